"""Which shapes of small networks deserve a place in a space: random ones, each trained alone.

As RegNet compares design spaces (Radosavovic et al., CVPR 2020, section 3), by the error of random
members trained for the same time: here networks of three stages of fused blocks, and how much of a
member's error its shape explains beside its size. What is judged is the validation set of letters;
their test set is not read. It resumes; several processes may share the work, with equal shares
each::

    python -m experiments.value.letters runs/letters
    python -m experiments.supernet.widening runs/widening --share 1/2 &
    python -m experiments.supernet.widening runs/widening --share 2/2
    python -m experiments.supernet.widening runs/widening --collect
"""

from __future__ import annotations

import argparse
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.results_index import write_result
from experiments.supernet.common import train_alone
from nas.job.check import load_job
from nas.record.json_lines import append_line, read_lines
from nas.stages.opened_job import RunContext
from nas.stages.threads import set_threads
from search_spaces.seeds import derive_rng
from search_spaces.spaces.mobilenet import MobileNetSpace, Stage
from supernet.network import Supernet
from supernet.training.own_time import suited_recipe

COMMAND = "python -m experiments.supernet.widening runs/widening"
ROOT = Path(__file__).parents[1]
JOB = ROOT / "value" / "letters.yaml"
RESULT = ROOT / "results" / "supernet" / "widening.json"
MEMBERS, SECONDS = 40, 20.0
SMALLEST_KIB, LARGEST_KIB = 3.0, 40.0


@dataclass(frozen=True)
class Shape:
    """One random network: ``channels`` and ``depths`` of its stages, one ratio, bits of weights."""

    channels: tuple[int, int, int]
    depths: tuple[int, int, int]
    expand: int
    bits: int

    def space(self) -> MobileNetSpace:
        """Return the space that holds it alone."""
        stages = tuple(
            Stage(channels, 1 if i == 0 else 2, (depth,), fused=True)
            for i, (channels, depth) in enumerate(zip(self.channels, self.depths, strict=True))
        )
        return MobileNetSpace.from_config(
            preset="28x28-lean", stages=stages, stem_channels=self.channels[0],
            expands=(self.expand,), weight_bits=(self.bits,), widths=(1.0,),
            input_size=(28, 28), input_channels=1, outputs=10,
        )  # fmt: skip


def shapes(count: int = MEMBERS) -> list[Shape]:
    """Return random shapes, evenly spread over the logarithm of their size in KiB."""
    rng = derive_rng(0, "widening")
    found: list[Shape] = []
    while len(found) < count:
        wanted = float(np.exp(rng.uniform(np.log(SMALLEST_KIB), np.log(LARGEST_KIB))))
        first = 2 * round(np.exp(rng.uniform(np.log(4), np.log(24))) / 2)
        second = 2 * round(first * rng.uniform(1.0, 2.2) / 2)
        third = 2 * round(second * rng.uniform(1.0, 2.5) / 2)
        one, two, three = (int(d) for d in rng.choice([1, 1, 2], 3))
        shape = Shape(
            (first, second, third), (one, two, three),
            int(rng.choice([1, 2, 3, 4])), int(rng.choice([4, 4, 4, 8])),
        )  # fmt: skip
        space = shape.space()
        kib = space.plan(space.largest()).weights_kib
        if abs(np.log(kib / wanted)) < 0.1:
            found.append(shape)
    return found


def train(shape: Shape, context: RunContext) -> dict[str, Any]:
    """Return what ``shape`` reaches in :data:`SECONDS` of a processor, from random weights."""
    torch.manual_seed(0)
    network = Supernet(shape.space())
    plan = network.plan(network.space.largest())
    return {
        **asdict(shape),
        "weights_kib": plan.weights_kib,
        "macs": plan.macs,
        **train_alone(network, plan, suited_recipe(plan), SECONDS, context, seed=0),
    }


def explained(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Return by what factor each trait changes the error at equal size, by least squares.

    The logarithm of the error is fitted; ``low`` and ``high`` are two standard errors away.
    """
    traits = {
        "one": [1.0] * len(rows),
        "twice the size": [np.log2(r["weights_kib"]) for r in rows],
        **{f"widened {k} times, not 1": [float(r["expand"] == k) for r in rows] for k in (2, 3, 4)},
        "8 bits, not 4": [float(r["bits"] == 8) for r in rows],
        **{
            f"second block in stage {i + 1}": [float(r["depths"][i] > 1) for r in rows]
            for i in range(3)
        },
    }
    x, y = np.array(list(traits.values())).T, np.log([1 - r["validation"] for r in rows])
    weights = np.linalg.lstsq(x, y, rcond=None)[0]
    left = y - x @ weights
    noise = left @ left / (len(y) - x.shape[1])
    errors = np.sqrt(np.diag(noise * np.linalg.inv(x.T @ x)))
    return {
        name: {
            "error_times": round(float(np.exp(w)), 3),
            "low": round(float(np.exp(w - 2 * e)), 3),
            "high": round(float(np.exp(w + 2 * e)), 3),
        }
        for name, w, e in zip(traits, weights, errors, strict=True)
        if name != "one"
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
        rows = sorted(read_lines(record), key=lambda row: float(row["weights_kib"]))
        values = {
            "seconds": SECONDS, "seed": 0, "job": str(JOB.relative_to(ROOT.parent)),
            "of": MEMBERS, "error": explained(rows), "networks": rows,
        }  # fmt: skip
        print(write_result(RESULT, values, COMMAND, packages=("torch", "numpy")))
        for name, value in values["error"].items():
            print(name, value)
        return
    set_threads(1)
    part, parts = map(int, arguments.share.split("/"))
    context = RunContext.of(load_job(JOB), threads=1)
    done = {row["number"] for row in read_lines(record)}
    for number, shape in enumerate(shapes()):
        if number % parts == part - 1 and number not in done:
            row = {"number": number, **train(shape, context)}
            append_line(record, row)
            print(row, flush=True)


if __name__ == "__main__":
    main()
