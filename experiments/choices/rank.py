"""Networks of linear layers: fronts of width and bits alone, and of width, rank and bits.

Both get the same passes over the training images: widths alone train six networks, the other side
three and lets each become three networks of smaller ranks, which learn from it for a pass::

    python -m experiments.choices.rank [--seeds 3] [--epochs 3]

The table holds the seeds that were run, under ``seeds``; so far seed 0 alone, from
``--seeds 1``. Seeds that it has are kept, so the default adds what is missing.
"""

from __future__ import annotations

import argparse
import math
from typing import Any

import numpy as np
import torch
from torch import nn

from experiments.choices.material import (
    accuracy,
    by_seed,
    calibration,
    fashion,
    keep,
    perceptron,
    test_batches,
    train,
)
from experiments.results_index import record_claim
from nas.bits.ranks import allocate_ranks
from nas.bits.search import STEPS, LayerSize
from nas.fronts.pareto import hypervolume
from search_spaces.errors import InfeasibleError
from supernet.ptq.quantize import quantize_post_training

COMMAND = "python -m experiments.choices.rank"
WIDTHS = (40, 80, 140, 240, 400, 640)
RANKED = (140, 400, 640)
BUDGETS = ("12%", "22%", "40%")
BITS = (4, 8)
LEAST_ACCURACY = 70.0
"""Of the reference point, per cent; its size is that of the largest network at 8 bits."""


def size_kib(network: nn.Module, bits: dict[str, Any] | int) -> float:
    """Return KiB of packed weights, scales and biases of the linear layers of a float network."""
    layers = [m for m in network.modules() if isinstance(m, nn.Linear)]
    widths = [bits] * len(layers) if isinstance(bits, int) else [w for w, _ in bits.values()]
    return sum(
        LayerSize("", m.weight.numel(), m.out_features, 0).packed_kib(w)
        for m, w in zip(layers, widths, strict=True)
    )


def one_seed(seed: int, epochs: float) -> dict[str, list[dict[str, Any]]]:
    """Return the points of both sides."""
    splits = fashion(seed)
    tests, images = test_batches(splits), calibration(splits)
    found: dict[str, list[dict[str, Any]]] = {"width": [], "width and rank": []}
    for width in WIDTHS:
        torch.manual_seed(seed)
        network = perceptron(width)
        train(network, splits, epochs=epochs, rate=1e-3, seed=seed, adam=True)
        for bits in BITS:
            quantised = quantize_post_training(
                network, images, (bits, 8), steps=STEPS, edge_bits=None
            )
            point = {"width": width, "bits": bits, "kib": size_kib(network, bits),
                     "accuracy": accuracy(quantised, tests)}  # fmt: skip
            found["width"].append(point)
            if width in RANKED:
                found["width and rank"].append(point)
        if width not in RANKED:
            continue
        for budget in BUDGETS:
            try:
                result = allocate_ranks(
                    network, images, {"weights_kib": budget}, weight_bits=BITS, edge_bits=None,
                    seed=seed,
                )  # fmt: skip
            except InfeasibleError as error:
                found["width and rank"].append(
                    {"width": width, "budget": budget, "refused": str(error)}
                )
                continue
            module = result.module.requires_grad_(True)
            before = accuracy(result.network, tests)
            train(module, splits, epochs=epochs / len(BUDGETS), rate=1e-3, seed=seed + 100,
                  teacher=network, adam=True)  # fmt: skip
            again = quantize_post_training(module, images, result.layer_bits, steps=STEPS)
            found["width and rank"].append(
                {
                    "width": width,
                    "budget": budget,
                    "options": [str(option) for option in result.best.options],
                    "kib": size_kib(module, result.layer_bits),
                    "accuracy, not trained on": before,
                    "accuracy": accuracy(again, tests),
                }
            )
    return found


def volume(points: list[dict[str, Any]], largest: float) -> float:
    """Return the hypervolume over log2 KiB and per cent of accuracy."""
    known = [p for p in points if "kib" in p]
    values = np.array([[math.log2(p["kib"]), -p["accuracy"]] for p in known])
    return float(hypervolume(values, np.array([math.log2(largest), -LEAST_ACCURACY])))


def main() -> None:
    """Fill the table, seed by seed; finished seeds are kept."""
    parser = argparse.ArgumentParser(description=__doc__, prog=COMMAND)
    parser.add_argument("--seeds", type=int, default=3, help="from 0; known ones are kept")
    parser.add_argument("--epochs", type=float, default=3.0)
    arguments = parser.parse_args()
    settings = {"epochs": arguments.epochs, "widths": WIDTHS, "ranked": RANKED, "budgets": BUDGETS}
    by_seed("rank", settings, arguments.seeds, lambda seed: one_seed(seed, arguments.epochs), write)


def write(settings: dict[str, Any], seeds: dict[str, Any], started: float) -> None:
    """Write the file and the claim."""
    largest = size_kib(perceptron(max(WIDTHS)), 8)
    volumes = {
        side: [round(volume(row[side], largest), 3) for row in seeds.values()]
        for side in ("width", "width and rank")
    }
    gain = float(np.mean(volumes["width and rank"])) / float(np.mean(volumes["width"])) - 1
    gain = round(100 * gain, 2)
    file = keep(
        "rank",
        {
            "metric": "hypervolume over log2 KiB and accuracy on 5,000 test images, above "
            f"{LEAST_ACCURACY:g} % and below {largest:.0f} KiB",
            "network": "three linear layers, 196-width-width-10; weights of 4 or 8 bits, inputs 8",
            "settings": settings,
            "volumes_by_seed": volumes,
            "gain_percent": gain,
            "seeds": seeds,
        },
        COMMAND,
        started,
    )
    record_claim("rank.hypervolume_gain", gain, "> 0 % above width alone, equal training", gain > 0,
                 file, COMMAND)  # fmt: skip


if __name__ == "__main__":
    main()
