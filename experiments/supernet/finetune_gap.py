"""What fine-tuning adds to the inherited accuracy of the front's architectures.

Each is trained on alone at its bits, with distillation from the largest network, and evaluated
on all validation images before and after. Run from the repository; what is recorded is not done
again::

    python -m experiments.supernet.finetune_gap runs/fashion_mnist_long

To compare supernets on the same architectures, take those of one run for all, and name the result::

    python -m experiments.supernet.finetune_gap runs/OTHER --front runs/fashion_mnist_long \\
        --result finetune_gap_other
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path

import numpy as np
import torch

from experiments.results_index import record_claim
from experiments.supernet.common import mean_and_interval, write_result
from nas.studies.records import StudyFolder
from nas.studies.source import find_source
from nas.studies.workers import AloneRecipe, Bench
from supernet.training.finetune import finetune

TARGET = 0.7
CLAIMED = "finetune_gap"
"""Name of the result that stands for the target."""


def main() -> None:
    """Fine-tune architectures of the front and write the gaps."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument(
        "--models", type=int, default=0, help="so many, evenly spread over the front; 0 for all"
    )
    parser.add_argument("--front", type=Path, help="run whose front is taken; its own by default")
    parser.add_argument("--result", default=CLAIMED, help="name of the result file")
    parser.add_argument("--epochs", type=float, default=0.5)
    parser.add_argument("--learning-rate", type=float, default=0.001)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=None)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    source = find_source(arguments.run)
    bench = Bench(source, AloneRecipe(steps=1))
    opened = bench.opened
    front_of = arguments.front or source.folder
    with open(front_of / "front.csv", encoding="utf-8", newline="") as file:
        front = {row["arch"]: float(row["weights_kib"]) for row in csv.DictReader(file)}
    ordered = sorted(front, key=front.__getitem__)
    places = np.linspace(0, len(ordered) - 1, min(arguments.models or len(ordered), len(ordered)))
    archs = [ordered[round(place)] for place in places]
    settings = {
        **source.identity(),
        "epochs": arguments.epochs,
        "learning_rate": arguments.learning_rate,
        "batch_size": arguments.batch_size,
        "seed": arguments.seed,
        "distillation": "targets and the largest network, equal weight",
    }
    store = StudyFolder(arguments.work or source.folder / "studies" / "finetune", settings)
    batches = opened.splits.training_batches(arguments.batch_size, seed=arguments.seed)
    for text in archs:
        arch = opened.space.parse(text)
        if store.get(text) is None:
            inherited = bench.evaluate(bench.supernet, arch)
            tuned = finetune(
                bench.supernet,
                opened.space.plan(arch),
                batches=batches,
                loss=opened.task.loss,
                distillation_loss=opened.task.distillation_loss,
                epochs=arguments.epochs,
                learning_rate=arguments.learning_rate,
            )
            store.add(text, {"inherited": inherited, "finetuned": bench.evaluate(tuned, arch)})
        print(arch.id, store.get(text), flush=True)
    inherited = np.array([store.get(text)["inherited"] for text in archs])
    tuned = np.array([store.get(text)["finetuned"] for text in archs])
    gaps = 100 * (tuned - inherited)
    # Runs by their names: where they were kept does not matter for repeating it.
    command = f"python -m experiments.supernet.finetune_gap runs/{source.job.name}"
    if arguments.models:
        command += f" --models {arguments.models}"
    if arguments.front is not None:
        command += f" --front runs/{find_source(arguments.front).job.name}"
    if arguments.result != CLAIMED:
        command += f" --result {arguments.result}"
    file = write_result(
        arguments.result,
        {
            **settings,
            "command": command,
            "front": len(ordered),
            "validation_images": len(opened.splits.validation),
            "gap_points": mean_and_interval(gaps),
            "largest_gap_points": float(gaps.max()),
            "models": [
                {"arch": text, "weights_kib": front[text], **(store.get(text) or {})}
                for text in archs
            ],
        },
    )
    gap = round(float(gaps.mean()), 2)
    if arguments.result == CLAIMED:
        record_claim("ranking.finetune_gap", gap, f"<= {TARGET}", gap <= TARGET, file, command)
    print(f"mean gap {gap:.2f} points over {len(archs)} of {len(ordered)} models")


if __name__ == "__main__":
    main()
