"""The exits of one architecture as one network, each image going only as far as it must."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS
from supernet.exits.gates import Gate
from supernet.plain import PlainBlock, PlainNetwork, Source

if TYPE_CHECKING:
    from collections.abc import Iterable


class ExitNetwork(nn.Module):
    """A trunk in segments, with a head after each.

    Args:
        networks: exit -> the network that ends there, the last one being the whole; each begins
            with the blocks of the one before, with the same weights and statistics.
        gates: of the exits but the last, in order; may be given later.

    Raises:
        InputError: fewer than two exits, or trunks that differ; the message names the block.
    """

    def __init__(self, networks: Mapping[int, PlainNetwork], gates: Sequence[Gate] = ()) -> None:
        super().__init__()
        if len(networks) < 2:
            raise InputError(f"{len(networks)} exits are none to choose from; give at least two")
        self.exits = tuple(sorted(networks))
        segments, heads = [], []
        trunk: list[nn.Module] = []
        for stage in self.exits:
            *blocks, head = networks[stage]
            _same_trunk(trunk, blocks, stage)
            segments.append(nn.Sequential(*blocks[len(trunk) :]))
            heads.append(head)
            trunk = blocks
        self.plan = networks[self.exits[-1]].plan
        self.segments, self.heads = nn.ModuleList(segments), nn.ModuleList(heads)
        self.gates = tuple(gates)

    def outputs(self, x: Tensor) -> list[Tensor]:
        """Return what every exit says of images (batch, channels, height, width)."""
        found = []
        for segment, head in zip(self.segments, self.heads, strict=True):
            x = segment(x)
            found.append(head(x))
        return found

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Run images until each leaves.

        Returns:
            Outputs (batch, classes), and the index of the exit that gave them, (batch,).

        Raises:
            InputError: there is not a gate for each exit but the last.
        """
        self.require_gates()
        every = self.outputs(x)
        left = torch.full((len(x),), len(self.exits) - 1, dtype=torch.int64)
        logits = every[-1].clone()
        for k in reversed(range(len(self.gates))):
            leaves = self.gates[k].leaves(every[k])
            left[leaves] = k
            logits[leaves] = every[k][leaves]
        return logits, left

    def require_gates(self) -> None:
        """Raise an InputError unless there is a gate for each exit but the last."""
        if len(self.gates) != len(self.exits) - 1:
            raise InputError(f"{len(self.exits)} exits need {len(self.exits) - 1} gates")

    def restream(self, index: int) -> Source | None:
        """Return the quantiser on whose grid segment ``index`` begins, None where it is float.

        What passes from one segment to the next is quantised at the end of the block before.
        """
        if index == 0 or not len(self.segments[index - 1]):  # type: ignore[arg-type]
            return None
        last = self.segments[index - 1][-1]  # type: ignore[index]
        assert isinstance(last, PlainBlock)
        ops = dict(last.ops.items())
        for name in ("sum", "output"):
            point = ops.get(name)
            if isinstance(point, Source) and point.bits < FLOAT_BITS:
                return Source("none", bits=point.bits, step=point.step, zero_point=point.zero_point)
        return None


def _same_trunk(known: Sequence[nn.Module], blocks: Sequence[nn.Module], stage: int) -> None:
    for place, block in enumerate(known):
        name = block.block.name if isinstance(block, PlainBlock) else str(place)
        if place >= len(blocks):
            raise InputError(f"exit {stage} ends before the block {name} of an earlier exit")
        other = blocks[place]
        mine, theirs = block.state_dict(), other.state_dict()
        equal = list(mine) == list(theirs) and all(
            torch.allclose(mine[key].float(), theirs[key].float(), rtol=1e-4, atol=1e-5)
            for key in mine
        )
        if not equal or _grids(block) != _grids(other):
            raise InputError(
                f"the block {name} of exit {stage} has other weights than that of an earlier exit; "
                "a trunk is shared only by networks from one supernet at the same choices"
            )


def _grids(block: nn.Module) -> list[tuple[str, int, float, int]]:
    return [
        (m.source, m.bits, round(m.step, 9), m.zero_point)
        for m in block.modules()
        if isinstance(m, Source)
    ]


def collect(
    network: ExitNetwork, batches: Iterable[tuple[Tensor, Tensor]]
) -> tuple[list[Tensor], Tensor]:
    """Return the outputs of every exit, (images, classes) each, and the targets (images,)."""
    every: list[list[Tensor]] = [[] for _ in network.exits]
    targets = []
    with torch.inference_mode():
        for x, y in batches:
            for part, logits in zip(every, network.outputs(x), strict=True):
                part.append(logits)
            targets.append(y)
    return [torch.cat(part) for part in every], torch.cat(targets)
