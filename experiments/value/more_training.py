"""What more time of their own would have given the networks of a front.

The architectures of a finished run train again from the weights that they inherit, each for a
multiple of the seconds that the run gave it, by the same recipe; the run's own figure is beside it.
Judged on the validation images, as in the run: test images are read once, by the run itself. The
run's folder stays as it is; what is recorded is not done again. Run from the repository::

    python -m experiments.value.more_training runs/value/fashion/seed-0 runs/value/fashion/seed-1
"""

from __future__ import annotations

import argparse
import csv
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from experiments.results_index import record_claim, write_result
from nas.record.json_lines import append_line, read_lines
from nas.stages.worker_tasks import candidates

RESULT = Path(__file__).parents[1] / "results" / "value" / "more_training.json"
CLAIM = "value.more_training_gain"
LIMIT = 0.3
"""Points that twice the time may add on average."""


def finished(run: Path) -> list[dict[str, Any]]:
    """Return what the run recorded of each network that it trained to the end on its own.

    Raises:
        SystemExit: its networks did not share time of their own.
    """
    record = run / "winners" / "rungs.jsonl"
    if not record.exists():
        raise SystemExit(f"{run} has no networks that shared time: it needs a job with a budget")
    return [line for line in read_lines(record) if line["rung"] == 1]


def places(run: Path) -> list[dict[str, Any]]:
    """Return what the run recorded of each network of its front: seconds, steps, accuracy."""
    with open(run / "front.csv", encoding="utf-8", newline="") as file:
        sizes = {row["arch"]: float(row["weights_kib"]) for row in csv.DictReader(file)}
    found = [
        {**line, "weights_kib": sizes[line["arch"]]}
        for line in finished(run)
        if line["arch"] in sizes
    ]
    return sorted(found, key=lambda line: float(line["weights_kib"]))


def scratch(run: Path, times: float) -> Path:
    """Return a copy of the run's folder without what its networks became."""
    copy = run.with_name(f"{run.name}-times-{times:g}")
    if not copy.exists():
        ignored = shutil.ignore_patterns("*.onnx", "measurements*", "studies", "models")
        shutil.copytree(run, copy, ignore=ignored)
        shutil.rmtree(copy / "winners")
        (copy / "winners").mkdir()
    return copy


def trained_again(run: Path, times: float) -> list[dict[str, Any]]:
    """Return, for each network of the front, what it reached in the run and after more time."""
    folder = scratch(run, times)
    record = folder / "winners" / "again.jsonl"
    done = {line["arch"]: line for line in read_lines(record)} if record.exists() else {}
    do = candidates(folder=str(folder), threads=1)
    rows = []
    for before in places(run):
        if before["arch"] not in done:
            seconds = times * float(before["seconds"])
            item = {
                "do": "winner", "arch": before["arch"], "rung": 1, "until": seconds,
                "total": seconds, "cpu": True, "judged": True,
                "taught": bool(before.get("taught", True)),
            }  # fmt: skip
            done[before["arch"]] = do(item)
            append_line(record, done[before["arch"]])
        after = done[before["arch"]]
        rows.append(row(before, after))
        print(rows[-1], flush=True)
    return rows


def row(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any]:
    """Return one network's figures, accuracies as shares."""
    return {
        "weights_kib": before["weights_kib"],
        **{
            f"{key}_{when}": line[key]
            for when, line in (("in_the_run", before), ("after_more", after))
            for key in ("seconds", "steps", "accuracy")
        },
        "gain_points": round(100 * (after["accuracy"] - before["accuracy"]), 3),
    }


def main() -> None:
    """Train again, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--times", type=float, default=2.0, help="of the seconds in the run")
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = {f"{run.parent.name}/{run.name}": trained_again(run, given.times) for run in given.runs}
    gains = [one["gain_points"] for each in rows.values() for one in each]
    gain = round(float(np.mean(gains)), 3)
    command = f"python -m experiments.value.more_training {' '.join(sys.argv[1:])}"
    file = write_result(
        RESULT,
        {"times": given.times, "runs": rows, "mean_gain_points": gain},
        command,
        packages=("torch", "numpy"),
    )
    if given.times == 2.0:
        record_claim(CLAIM, gain, f"<= {LIMIT} points", gain <= LIMIT, file, command)
    print(f"{CLAIM}: {gain}")


if __name__ == "__main__":
    main()
