"""Evaluate every architecture of a small family inside a run's space with the run's supernet.

Accuracy is that of inherited weights on the first validation images, batch norm calibrated
at each architecture's own bits; costs are exact. Rows are evaluated in a random order that
follows from the seed and appended one by one, so the program resumes where it was stopped.
Run from the repository, with a run of ``experiments/fashion_mnist.yaml`` in ``RUN``::

    python -m experiments.search.supernet_table RUN
"""

from __future__ import annotations

import argparse
import csv
import dataclasses
import json
from pathlib import Path

import numpy as np

from experiments.search.family import FamilySpace, mobilenet_family
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng

RESULTS = Path(__file__).parents[1] / "results" / "search"
TABLE = RESULTS / "supernet_table.csv"
COSTS = ("macs", "bops", "parameters", "weights_kib")
COLUMNS = ("arch", "accuracy", *COSTS)


def all_genes(space: FamilySpace, seed: int = 0) -> np.ndarray:
    """Return every architecture of the family in the order of evaluation."""
    from nas.strategies.genes import enumerate_genes

    return derive_rng(seed, "supernet table").permutation(enumerate_genes(space))


def main() -> None:
    """Evaluate what the table does not hold yet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("--validation-images", type=int, default=500)
    parser.add_argument("--calibration-images", type=int, default=64)
    parser.add_argument("--output", type=Path, default=TABLE)
    parser.add_argument(
        "--part", default="1/1", metavar="K/N", help="every N-th row only, for N processes at once"
    )
    arguments = parser.parse_args()
    part, parts = (int(v) for v in arguments.part.split("/"))

    import torch

    from nas.job.schema import Job, job_space
    from nas.stages.evaluator import Evaluator
    from nas.tasks import TASKS
    from supernet.network import Supernet
    from supernet.training.checkpoint import load_checkpoint
    from supernet.training.train import load_weights

    torch.set_num_threads(1)
    manifest = json.loads((arguments.run / "manifest.json").read_text(encoding="utf-8"))
    job = Job.model_validate(manifest["job"])
    task = TASKS.get(job.task)(label_smoothing=0.0)
    splits = task.load(job.data, job.seed)
    found, trained = splits.record()["splits"], manifest["data"]["splits"]
    if any(found[name] != trained[name] for name in ("train", "validation", "calibration")):
        raise InputError(f"the data at {splits.origin} is not what the run was trained on")
    full = job_space(job, input_channels=splits.channels, outputs=task.outputs(splits))
    supernet = Supernet(full)
    file = arguments.run / "supernet" / "checkpoint.safetensors"
    tensors, _ = load_checkpoint(file)
    if load_weights(supernet, tensors, prefix="model.", source=str(file)):
        raise InputError(f"{file} does not hold every tensor of the run's supernet")
    splits = dataclasses.replace(
        splits, calibration=splits.calibration.first(arguments.calibration_images)
    )
    evaluator = Evaluator(supernet.eval(), splits, task)

    space = mobilenet_family(full)
    done: set[str] = set()
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    if arguments.output.exists():
        with open(arguments.output, encoding="utf-8", newline="") as table:
            done = {row["arch"] for row in csv.DictReader(table)}
    else:
        arguments.output.write_text(",".join(COLUMNS) + "\n", encoding="utf-8")
    genes = all_genes(space)
    full_genes = space.full_genes(genes)
    costs = full.costs(full_genes)
    with open(arguments.output, "a", encoding="utf-8", newline="") as table:
        writer = csv.writer(table)
        rows = zip(space.decode(genes), full.decode(full_genes), strict=True)
        for i, (arch, network) in enumerate(rows):
            if str(arch) in done or i % parts != part - 1:
                continue
            accuracy = evaluator.accuracy(
                evaluator.network(network), images=arguments.validation_images
            )
            writer.writerow([str(arch), f"{accuracy:.6g}", *(f"{costs[c][i]:.10g}" for c in COSTS)])
            table.flush()


if __name__ == "__main__":
    main()
