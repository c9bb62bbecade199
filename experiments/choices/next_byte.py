"""The byte that follows sixteen others, told by linear layers: where few bits of weights cost most.

Of pictures of ten classes small networks lose half a point with weights of two bits, whatever the
two bits stand for. The text is this repository's documentation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.data.text.source import read_text

CONTEXT, EMBEDDING, WIDTH, BATCH = 16, 24, 512, 128
BYTES, PIECES, JUDGED = 600_000, 100, 10_000
DOCS = Path(__file__).parents[2] / "docs"


@dataclass(frozen=True)
class Text:
    """Windows of one text.

    Attributes:
        data: int64, the bytes.
        train, validation, test: where windows begin; pieces of the text are in one of them each.
    """

    data: Tensor
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray

    def windows(self, starts: np.ndarray) -> tuple[Tensor, Tensor]:
        """Return windows (count, :data:`CONTEXT`) and the byte after each."""
        at = torch.from_numpy(starts)
        return self.data[at[:, None] + torch.arange(CONTEXT)], self.data[at + CONTEXT]


def text(seed: int) -> Text:
    """Return the text; of ten pieces one is for validation, the next for test, by ``seed``."""
    data = np.frombuffer(read_text(DOCS, files="*.md").encode()[:BYTES], np.uint8)
    starts = np.arange(len(data) - CONTEXT)
    piece = starts * PIECES // len(data)
    whole = piece == (starts + CONTEXT) * PIECES // len(data)
    turn = (piece - seed) % 10
    rng = np.random.default_rng(seed)
    validation, test = (
        rng.choice(part, min(len(part), JUDGED), replace=False)
        for part in (starts[whole & (turn == 0)], starts[whole & (turn == 1)])
    )
    return Text(
        torch.from_numpy(data.astype(np.int64)), starts[whole & (turn > 1)], validation, test
    )


class NextByte(nn.Module):
    """An embedding and four linear layers, of which the inner three are quantised."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(256, EMBEDDING)
        self.body = nn.Sequential(
            nn.Linear(CONTEXT * EMBEDDING, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU(),
            nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, 256),
        )  # fmt: skip

    def inner(self) -> list[int]:
        """Return the places of the layers that are quantised."""
        return [i for i, m in enumerate(self.body) if isinstance(m, nn.Linear)][:-1]

    def forward(self, x: Tensor) -> Tensor:
        """Return logits (batch, 256) of ``x`` (batch, :data:`CONTEXT`), int64."""
        found: Tensor = self.body(self.embedding(x).flatten(1))
        return found


def fit(
    network: nn.Module,
    source: Text,
    *,
    steps: int,
    rate: float,
    seed: int,
    teacher: nn.Module | None = None,
) -> None:
    """Train in place by AdamW with one cycle of the learning rate.

    Args:
        network: ends in evaluation mode.
        source: the text.
        steps: of :data:`BATCH` windows.
        rate: highest learning rate.
        seed: of the windows.
        teacher: whose outputs are learned beside the bytes, half each.
    """
    optimizer = torch.optim.AdamW(network.parameters(), rate, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, rate, total_steps=steps)
    rng = np.random.default_rng(seed)
    network.train()
    for _ in range(steps):
        x, y = source.windows(rng.choice(source.train, BATCH))
        out = network(x)
        loss = F.cross_entropy(out, y)
        if teacher is not None:
            with torch.no_grad():
                wanted = teacher(x).softmax(1)
            loss = 0.5 * loss + 0.5 * F.cross_entropy(out, wanted)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        schedule.step()
    network.eval()


@torch.no_grad()
def accuracy(network: nn.Module, source: Text, starts: np.ndarray) -> float:
    """Return the share of bytes told rightly, in per cent."""
    x, y = source.windows(starts)
    return 100 * float((network(x).argmax(1) == y).float().mean())
