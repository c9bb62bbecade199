"""Sub-adapters of a frozen 4-bit language model against the whole adapter.

A small Llama-shaped decoder on bytes is trained on one text, its blocks are quantised to 4 bits
(groups of 32, GPTQ) and frozen, and adapters for a second text are trained so that ranks and the
MLPs' channels may vary (LoNAS, Shears). The figure is by how many points of next-byte accuracy on
held-out windows the best sub-adapter of at most 75 % of the operations is behind the whole one.
Beside it stand what a good engineer would do instead with as many steps: the adapter of full rank
alone, and one of 75 % of the operations chosen by hand alone (all MLPs cut alike).

    python -m experiments.tasks.adapters FIRST

FIRST is a text; the recorded run took the King James Bible (Debian's bible-kjv, see
``experiments.tasks.language``). The second is this repository's documentation. About two minutes of
a processor.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from experiments.results_index import record_claim, write_result
from nas.adapters.search import search_adapters
from nas.bits.weights_alone import inputs_of_layers, linear_layers, with_weights
from nas.data.text.source import read_text
from search_spaces.space import Arch
from search_spaces.spaces.adapters import AdapterSpace
from supernet.adapters.elastic import AdaptedDecoder, adapted_sizes
from supernet.adapters.training import single_path, train_adapters
from supernet.checkpoints.config import DecoderConfig
from supernet.checkpoints.decoder import CheckpointDecoder
from supernet.weight_only.model import WeightOnly

RESULTS = Path(__file__).parents[1] / "results" / "adapters.json"
COMMAND = "python -m experiments.tasks.adapters FIRST"
DOCS = Path(__file__).parents[2] / "docs"
LENGTH = 48
RATE = 5e-3
CONFIG = DecoderConfig(
    family="llama", vocabulary=256, width=96, layers=3, heads=3, key_heads=3, head_width=32,
    inner=256, length=LENGTH, epsilon=1e-5, activation="silu", theta=1e4, tied=False,
    attention_bias=False, mlp_bias=False,
)  # fmt: skip


def windows(path: Path, *, most: int, seed: int, files: str = "*") -> tuple[Tensor, Tensor]:
    """Return training and held-out windows of bytes; every tenth piece of the text is held out."""
    data = np.frombuffer(read_text(path, files=files).encode()[:most], np.uint8).astype(np.int64)
    count = (len(data) - 1) // LENGTH
    rows = torch.from_numpy(
        np.stack([data[i * LENGTH : i * LENGTH + LENGTH + 1] for i in range(count)])
    )
    piece = np.arange(count) * 100 // count
    held = torch.from_numpy((piece + seed) % 10 == 0)
    return rows[~held], rows[held]


def accuracy(network: Any, rows: Tensor) -> float:
    """Return the share of next bytes that are the likeliest."""
    with torch.inference_mode():
        right = [
            (network(r[:, :-1]).argmax(-1) == r[:, 1:]).double().mean(1) for r in rows.split(64)
        ]
    return float(torch.cat(right).mean())


def trained(
    rows: Tensor,
    *,
    steps: int,
    seed: int,
    config: DecoderConfig = CONFIG,
    deviation: float | None = None,
) -> CheckpointDecoder:
    """Return a decoder trained on windows.

    Args:
        rows: of bytes.
        steps: of 16 windows.
        seed: of weights and windows.
        config: of the decoder.
        deviation: of normal weights that linear layers begin with, times the square root of their
            inputs; by default they begin as PyTorch has it.
    """
    torch.manual_seed(seed)
    model = CheckpointDecoder(config)
    for layer in linear_layers(model).values() if deviation is not None else ():
        torch.nn.init.normal_(layer.weight, std=deviation / layer.in_features**0.5)
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, total_steps=steps)
    for _ in range(steps):
        part = rows[torch.randint(len(rows), (16,))]
        loss = F.cross_entropy(model(part[:, :-1]).flatten(0, 1), part[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
    return model.eval()


def in_four_bits(model: CheckpointDecoder, rows: Tensor) -> CheckpointDecoder:
    """Return the model with the linear layers of its blocks in 4 bits."""
    layers = {n: layer for n, layer in linear_layers(model).items() if n != "head"}
    inputs = inputs_of_layers(layers, lambda: model(rows[:16, :-1]))
    how = WeightOnly(bits=4, group=32, method="gptq")
    return with_weights(
        model,
        {n: how.quantise(x.weight.detach().numpy(), inputs[n], None) for n, x in layers.items()},
    )


def main() -> None:
    """Train, search, and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("--steps", type=int, default=500, help="of the model; adapters: 1.2 times")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(1)
    began = time.process_time()
    first, _ = windows(given.first, most=1_000_000, seed=given.seed)
    second, held = windows(DOCS, most=300_000, seed=given.seed, files="*.md")
    held = held[:400]
    base = in_four_bits(trained(first, steps=given.steps, seed=given.seed), first)
    space = AdapterSpace(adapted_sizes(base), ranks=(4, 8, 16), shares=(0.5, 0.625, 0.75, 1.0))
    steps = round(0.4 * given.steps)
    shared = AdaptedDecoder(base, space)
    train_adapters(
        shared,
        second,
        sampler=single_path(shared, seed=given.seed),
        steps=3 * steps,
        learning_rate=RATE,
        seed=given.seed,
    )

    def judged(arch: Arch) -> float:
        shared.configure(arch)
        return 100 * accuracy(shared, held[::2])

    found = search_adapters(space, judged, metric="accuracy", evaluations=24, seed=given.seed)
    limit = 0.75 * found[0].macs
    chosen = max((f for f in found if f.macs <= limit), key=lambda f: f.quality)

    def told(arch: Arch, network: AdaptedDecoder) -> float:
        # On the half of the held-out windows that the search has not seen.
        network.configure(arch)
        return 100 * accuracy(network, held[1::2])

    # By hand: every block alike, the largest that keeps the limit.
    alike = [
        space.arch({f"b{b}.{k}": v for b in range(1, 4) for k, v in (("rank", r), ("inner", i))})
        for r in (4, 8, 16)
        for i in (128, 160, 192, 256)
    ]
    costs = space.costs(space.genes(alike))["macs"]
    by_hand = alike[int(np.argmax(np.where(costs <= limit, costs, 0)))]
    alone = {}
    for name, arch in (("whole", space.largest()), ("by hand", by_hand)):
        network = AdaptedDecoder(base, space)
        train_adapters(
            network, second, sampler=lambda _, a=arch: [a], steps=3 * steps, learning_rate=RATE
        )
        alone[name] = told(arch, network)
    whole, sub = told(space.largest(), shared), told(chosen.arch, shared)
    record = {
        "base": 100 * accuracy(base, held[1::2]),
        "whole": whole,
        "sub_adapter": sub,
        "sub_adapter_arch": str(chosen.arch),
        "operations": chosen.macs / found[0].macs,
        "trained_alone": alone,
        "by_hand_arch": str(by_hand),
        "front": [{"arch": str(f.arch), "accuracy": f.quality, "macs": f.macs} for f in found],
        "steps": given.steps,
        "seed": given.seed,
        "cpu_seconds": time.process_time() - began,
    }
    file = write_result(RESULTS, record, COMMAND, packages=("torch", "numpy"))
    print({k: v for k, v in record.items() if k != "front"})
    gap = whole - sub
    record_claim("adapters.gap_at_25_percent", gap, "<= 0.5 points", gap <= 0.5, file, COMMAND)


if __name__ == "__main__":
    main()
