"""Muon against AdamW: the same networks trained alone by both, for equal seconds of a processor.

Networks of three stages of fused blocks, widened twice, at 4-bit weights and 8-bit activations,
from random weights, as winners of a budget are trained. What is judged is the validation set of
letters; their test set is not read. It resumes; several processes may share the work::

    python -m experiments.value.letters runs/letters
    python -m experiments.supernet.muon runs/muon --share 1/2 &
    python -m experiments.supernet.muon runs/muon --share 2/2
    python -m experiments.supernet.muon runs/muon --collect
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from experiments.results_index import write_result
from experiments.supernet.common import train_alone
from experiments.supernet.widening import JOB, ROOT, Shape
from nas.job.check import load_job
from nas.record.json_lines import append_line, read_lines
from nas.stages.opened_job import RunContext
from nas.stages.threads import set_threads
from supernet.network import Supernet
from supernet.training.own_time import suited_recipe

COMMAND = "python -m experiments.supernet.muon runs/muon"
RESULT = ROOT / "results" / "supernet" / "muon.json"
SECONDS, SEEDS = 40.0, (0, 1)
Optimizer = Literal["muon", "adamw"]
OPTIMIZERS: tuple[Optimizer, ...] = ("muon", "adamw")
STEMS = (6, 10, 14, 20)
"""Channels of the first stage; the others have 1.5 and 2.5 times as many."""


def train(stem: int, seed: int, optimizer: Optimizer, context: RunContext) -> dict[str, Any]:
    """Return what one network reaches in :data:`SECONDS`, by one of the two."""
    channels = (stem, 2 * round(0.75 * stem), 2 * round(1.25 * stem))
    torch.manual_seed(seed)
    network = Supernet(Shape(channels, (1, 1, 1), 2, 4).space())
    plan = network.plan(network.space.largest())
    recipe = replace(suited_recipe(plan), optimizer=optimizer)
    return {
        "channels": channels,
        "weights_kib": plan.weights_kib,
        "seed": seed,
        "optimizer": optimizer,
        **train_alone(network, plan, recipe, SECONDS, context, seed=seed),
    }


def main() -> None:
    """Train what is left of a share, or write down what was found."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--share", default="1/1", help="which part of the networks, as 2/3")
    parser.add_argument("--collect", action="store_true")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    record = arguments.folder / "records.jsonl"
    if arguments.collect:
        rows = sorted(read_lines(record), key=lambda row: int(row["number"]))
        ahead = {
            f"{kib:.2f} KiB": {
                name: round(100 * float(np.mean([
                    r["validation"] for r in rows
                    if r["weights_kib"] == kib and r["optimizer"] == name
                ])), 2)
                for name in OPTIMIZERS
            }
            for kib in sorted({float(r["weights_kib"]) for r in rows})
        }  # fmt: skip
        values = {
            "seconds": SECONDS, "seeds": SEEDS, "job": str(JOB.relative_to(ROOT.parent)),
            "validation_percent": ahead, "networks": rows,
        }  # fmt: skip
        print(write_result(RESULT, values, COMMAND, packages=("torch", "numpy")))
        print(ahead)
        return
    set_threads(1)
    part, parts = map(int, arguments.share.split("/"))
    context = RunContext.of(load_job(JOB), threads=1)
    done = {row["number"] for row in read_lines(record)}
    # One after the other by both, so that what else the machine does meets both alike.
    for number, (seed, stem, optimizer) in enumerate(product(SEEDS, STEMS, OPTIMIZERS)):
        if number // 2 % parts == part - 1 and number not in done:
            row = {"number": number, **train(stem, seed, optimizer, context)}
            append_line(record, row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
