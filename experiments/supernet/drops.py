"""Accuracy that bits cost: stratified subnets at 8, 4, 3 and 2 bits against themselves in float.

One checkpoint, inherited weights, batch norm calibrated for each subnet and bits, all validation
images. First and last layers stay at 8 bits, as in every architecture of the space. Run from the
repository::

    python -m experiments.supernet.drops runs/fashion_mnist_long
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from experiments.results_index import record_claim
from experiments.supernet.common import mean_and_interval, plans_at, write_result
from nas.studies.records import StudyFolder
from nas.studies.source import find_source
from nas.studies.subnets import stratified_subnets
from nas.studies.workers import AloneRecipe, Bench

COMMAND = "python -m experiments.supernet.drops runs/fashion_mnist_long"
TARGETS = {8: 0.3, 4: 1.0, 3: 2.0, 2: 5.0}


def main() -> None:
    """Evaluate every subnet at every bit-width and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("--subnets", type=int, default=15)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = find_source(arguments.run)
    # Only evaluations here: the recipe of trainings does not matter.
    bench = Bench(source, AloneRecipe(steps=1))
    space = bench.opened.space
    archs = stratified_subnets(space, arguments.subnets, seed=arguments.seed, bits=(8, 8)).archs
    settings = {**source.identity(), "subnets": [str(arch) for arch in archs]}
    store = StudyFolder(arguments.work or source.folder / "studies" / "drops", settings)
    for i, arch in enumerate(archs):
        plans = plans_at(space, arch, TARGETS)
        for bits, plan in plans.items():
            key = f"{bits}|{arch}"
            if store.get(key) is None:
                store.add(key, {"accuracy": bench.evaluate(bench.supernet, plan)})
        print(f"{i + 1}/{len(archs)}", {b: store.get(f"{b}|{arch}")["accuracy"] for b in plans})
    accuracy = {
        bits: np.array([store.get(f"{bits}|{arch}")["accuracy"] for arch in archs])
        for bits in (32, *TARGETS)
    }
    drops = {bits: 100 * (accuracy[32] - accuracy[bits]) for bits in TARGETS}
    file = write_result(
        "drops",
        {
            **settings,
            "command": COMMAND,
            "seed": arguments.seed,
            "validation_images": len(bench.opened.splits.validation),
            "mean_accuracy": {str(bits): float(values.mean()) for bits, values in accuracy.items()},
            "drop_points": {str(bits): mean_and_interval(d) for bits, d in drops.items()},
            "accuracy": {str(bits): values.tolist() for bits, values in accuracy.items()},
        },
    )
    for bits, limit in TARGETS.items():
        drop = round(float(drops[bits].mean()), 2)
        record_claim(
            f"quant.w{bits}a{bits}_drop", drop, f"<= {limit}", drop <= limit, file, COMMAND
        )
        print(f"W{bits}A{bits}: {drop:.2f} points (target {limit})")


if __name__ == "__main__":
    main()
