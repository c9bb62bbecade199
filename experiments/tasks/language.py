"""Language models within minutes of a processor: speed of decoding against bits per byte.

The text is the King James Bible as Debian has it (packages bible-kjv and bible-kjv-text, 4.3 MB)::

    mkdir text && bible -l 99999 gen1:1-rev22:21 > text/kjv.txt
    python -m experiments.tasks.language text --minutes 20

``language.decode_speedup_at_1_percent``: by how much the fastest model of the front whose bits per
byte are at most 1 % worse than those of the largest decodes faster than it. The largest is, by
parameters, that of all networks that the run trained on their own, for equal seconds, and measured;
it need not be on the front, which has no place for a network that a faster one is better than. Bits
are of the validation pieces, for only models of the front read the test pieces; ``within_front`` is
the same among models of the front, on those. Steps of decoding are timed in turn, one of each
network after another. ``language.two_bit_loss``: by how much the bits per byte of the front's best
model of 2-bit blocks are worse than those of its best, on the test pieces.

``--small`` is a run of three minutes: networks of a quarter of a million parameters at most, a
window of 64, and the first megabyte of the text. What it records says so.

``--alone`` trains the largest architecture of the space at 8 bits alone for the same processor
time, which is the simplest thing to do instead; its bits per byte are reported beside the front's.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import torch

from experiments.results_index import record_claim, write_result
from experiments.tasks.step_latency import step_ms
from nas.data.text.source import read_text
from nas.job.check import load_job
from nas.job.schema import Job
from nas.models.language.parts import DECODE
from nas.record.spending import spent
from nas.report.results import load_results
from nas.stages.opened_job import RunContext
from nas.stages.pipeline import resume, run
from supernet.network import Supernet
from supernet.training.own_time import OwnTraining, suited_recipe

JOB = Path(__file__).parent / "language.yaml"
RESULTS = Path(__file__).parents[1] / "results" / "language.json"
COMMAND = "python -m experiments.tasks.language text"
WINDOW, TOKEN = "window", "token"


SMALL = {
    "space": {
        "name": "decoder", "preset": "500k", "embeds": [48, 64, 96], "depths": [1, 2, 3],
        "heads": [2], "mlps": [1, 2], "weight_bits": [2, 8], "granularity": "block",
    },
    "search": {
        "objectives": ["bits_per_byte", "latency_ms[token]", "weights_kib"], "evaluations": 16,
        "initial": 10, "batch": 6, "latency_samples": 4, "front_size": 4,
    },
    "budget": {"supernet": 0.35, "teacher": 0.6},
}  # fmt: skip
"""What a small run changes in the job."""


def job_of(text: Path, *, minutes: float, seed: int, small: bool = False) -> Job:
    """Return the job on a text, given minutes of a processor."""
    plain = load_job(JOB, changes={"data": {"name": "text", "path": str(text.resolve())}})
    raw = plain.model_dump(mode="json", exclude_unset=True) | (SMALL if small else {})
    options = {"length": 128, "tokens": "bpe", "vocabulary": 512}
    raw["data"] = {
        "name": "text", "path": str(text.resolve()), "validation": 0.02, "test": 0.05,
        "calibration": 256, "options": options,
    }  # fmt: skip
    if small:
        raw["data"] |= {"validation": 0.05, "calibration": 64}
        options |= {"length": 64, "vocabulary": 320}
    raw["budget"] = {**raw["budget"], "cpu_minutes": minutes}
    raw["seed"] = seed
    return Job.model_validate(raw)


def rows_of(results: dict[str, Any], folder: Path) -> list[dict[str, Any]]:
    """Return what is told of each model that was measured."""
    rows = []
    entries = [*results["front"], *results["rejected"]]
    took = step_ms(folder, [entry["arch"] for entry in entries], [DECODE])
    for entry in entries:
        layers = [x for b in entry["plan"]["blocks"] if b["kind"] == "decoder" for x in b["layers"]]
        rows.append(
            {
                "id": entry["id"],
                "arch": entry["arch"],
                "on_front": entry in results["front"],
                "parameters": entry["costs"]["parameters"],
                "weights_kib": entry["costs"]["weights_kib"],
                "block_bits": sorted({layer["weight_bits"] for layer in layers}),
                "bits_per_byte": entry.get("test_accuracy"),
                "validation_bits_per_byte": entry["validation_accuracy"],
                "interleaved_ms": took[entry["arch"]],
                "latency": {
                    name: {
                        key: entry["devices"][name][key]
                        for key in ("latency_ms", "low_ms", "high_ms", "valid", "busy")
                    }
                    for name in (WINDOW, TOKEN)
                },
            }
        )
    return rows


def decode_speedup(rows: list[dict[str, Any]], bits: str, *, most: float = 0.01) -> float:
    """Return the speed of decoding against the largest at ``most`` relative loss in ``bits``.

    The fastest of the front counts; 0 where none of it is that good.
    """
    largest = max(rows, key=lambda row: row["parameters"])
    near = [
        row["interleaved_ms"][DECODE]
        for row in rows
        if row["on_front"] and row[bits] <= (1 + most) * largest[bits]
    ]
    return float(largest["interleaved_ms"][DECODE] / min(near)) if near else 0.0


def two_bit_loss(front: list[dict[str, Any]]) -> float | None:
    """Return the relative loss of the best 2-bit model against the best; None without one."""
    of_two = [row["bits_per_byte"] for row in front if row["block_bits"] == [2]]
    best = min(row["bits_per_byte"] for row in front)
    return min(of_two) / best - 1 if of_two else None


def largest_alone(job: Job, minutes: float, folder: Path) -> dict[str, Any]:
    """Train the largest architecture at 8 bits alone and return its bits per byte."""
    context = RunContext.of(job, threads=1)
    torch.manual_seed(job.seed)
    space, task, splits = context.space, context.task, context.splits
    supernet = Supernet(space)
    plan = space.plan(space.largest())
    training = OwnTraining(
        supernet,
        plan,
        batches=splits.training_batches(job.finetune.batch_size, seed=job.seed),
        loss=task.loss,
        distillation_loss=task.distillation_loss,
        recipe=suited_recipe(plan),
        checkpoint=folder / "alone.safetensors",
        now=time.process_time,
    )
    training.run(until=60 * minutes, total=60 * minutes)
    network = training.reached().extract(plan, {})
    batches = splits.evaluation_batches(splits.test("the largest, alone"), batch_size=64)
    return {
        "arch": str(space.largest()),
        "parameters": plan.parameters,
        "steps": training.step,
        "bits_per_byte": task.evaluate(network, batches),
    }


def main() -> None:
    """Run the job, and what it is held against, and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("text", type=Path, help="folder with the text")
    parser.add_argument("--minutes", type=float, default=20.0, help="of a processor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--small", action="store_true", help="three minutes, small networks")
    parser.add_argument("--alone", action="store_true", help="train the largest alone, too")
    parser.add_argument("--runs", type=Path, default=Path("runs/language"))
    given = parser.parse_args()
    minutes, text = given.minutes, given.text
    if given.small:
        minutes = 3.0
        text = given.runs / "first-megabyte.txt"
        text.parent.mkdir(parents=True, exist_ok=True)
        text.write_text(read_text(given.text)[:1_000_000], encoding="utf-8")
    folder = given.runs / f"{minutes:g}-{given.seed}"
    job = job_of(text, minutes=minutes, seed=given.seed, small=given.small)
    if not (folder / "manifest.json").exists():
        run(job, folder)
    elif not (folder / "results.json").exists():
        resume(folder)
    rows = rows_of(load_results(folder), folder)
    front = [row for row in rows if row["on_front"]]
    cost = spent(folder)
    alone = largest_alone(job, minutes, folder) if given.alone else None
    command = f"{COMMAND} --small" if given.small else f"{COMMAND} --minutes {minutes:g}"
    command += " --alone" if given.alone else ""
    file = write_result(
        RESULTS,
        {
            "measured": rows,
            "within_front": decode_speedup(front, "bits_per_byte"),
            "largest_alone": alone,
            "minutes": minutes,
            "small": given.small,
            "cpu_seconds": None if cost is None else cost.cpu_seconds,
            "seed": given.seed,
            "text": "King James Bible, Debian's bible-kjv-text",
        },
        command,
        packages=("torch", "onnxruntime", "tokenizers"),
    )
    speed, loss = decode_speedup(rows, "validation_bits_per_byte"), two_bit_loss(front)
    record_claim(
        "language.decode_speedup_at_1_percent", speed, ">= 1.5", speed >= 1.5, file, command
    )
    record_claim(
        "language.two_bit_loss", loss, "<= 0.05", loss is not None and loss <= 0.05, file, command
    )
    if alone is not None:
        best = min(row["bits_per_byte"] for row in front)
        record_claim(
            "language.best_against_largest_alone",
            best / alone["bits_per_byte"] - 1,
            "reported",
            True,
            file,
            command,
        )


if __name__ == "__main__":
    main()
