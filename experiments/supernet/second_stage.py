"""What a second stage of training does to the accuracies that one front inherits.

The architectures are those of the first run's front; every run's supernet is asked for the same
ones, on all validation images. What is recorded is not done again. Run from the repository::

    python -m experiments.supernet.second_stage runs/fashion_mnist_long \\
        runs/fashion_mnist_odds runs/fashion_mnist_focused
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from experiments.supernet.common import mean_and_interval, write_result
from nas.studies.records import StudyFolder
from nas.studies.source import find_source
from nas.studies.workers import AloneRecipe, Bench


def main() -> None:
    """Evaluate one front in several supernets and write the differences to the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+", help="the one whose front is taken first")
    parser.add_argument("--work", type=Path, default=Path("runs/second_stage"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    sources = [find_source(run) for run in arguments.runs]
    with open(sources[0].folder / "front.csv", encoding="utf-8", newline="") as file:
        front = {row["arch"]: float(row["weights_kib"]) for row in csv.DictReader(file)}
    archs = sorted(front, key=front.__getitem__)
    supernets = []
    for source in sources:
        store = StudyFolder(arguments.work / source.job.name, source.identity())
        if any(store.get(text) is None for text in archs):
            bench = Bench(source, AloneRecipe(steps=1))
            for text in archs:
                if store.get(text) is None:
                    arch = bench.opened.space.parse(text)
                    store.add(text, {"accuracy": bench.evaluate(bench.supernet, arch)})
        accuracies = np.array([(store.get(text) or {})["accuracy"] for text in archs])
        if not supernets:
            first = accuracies
        training = source.job.supernet.model_dump(
            mode="json", exclude_defaults=True, exclude={"init_from"}
        )
        if source.job.supernet.focus is not None:
            # By its name: where it was kept does not matter.
            training["focus"]["run"] = find_source(Path(source.job.supernet.focus.run)).job.name
        supernets.append(
            {
                "run": source.job.name,
                "supernet_sha256": source.identity()["supernet_sha256"],
                "training": training,
                "accuracies": accuracies.tolist(),
                "points_gained": mean_and_interval(100 * (accuracies - first)),
            }
        )
        print(source.job.name, supernets[-1]["points_gained"], flush=True)
    names = " ".join(f"runs/{source.job.name}" for source in sources)
    write_result(
        "second_stage",
        {
            "command": f"python -m experiments.supernet.second_stage {names}",
            "archs": archs,
            "supernets": supernets,
        },
    )


if __name__ == "__main__":
    main()
