"""What a front of each task is worth: beside plain networks by hand, trained for the same time.

Each run gets a few processor minutes; the family gets what the run spent, all of it for training,
and is quantised to 8 bits afterwards. Told is how far the front is ahead at equal size on the test
set, on average over sizes and seeds: in points of a share, or in the metric's own unit. Data is
made, but for spoken words, which ``experiments.tasks.spoken_words`` makes first.

    python -m experiments.tasks.value image_regression --minutes 1.5 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from experiments.results_index import record_claim, write_result
from nas.job.check import load_job
from nas.report.results import load_results
from nas.stages.pipeline import run
from nas.studies.source import find_source
from nas.studies.value.study import ValueStudy
from nas.studies.value.training import TimedRecipe

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "tasks_value.json"


@dataclass(frozen=True)
class Case:
    """One task.

    Attributes:
        job: beside this file, or above it.
        metric: of the task.
        family: by hand; None for the built-in one.
        batch_size: of the family.
    """

    job: str
    metric: str
    family: str | None = None
    batch_size: int = 64


CASES = {
    "signal_classification": Case("../signals.yaml", "accuracy"),
    "signal_regression": Case("../signal_regression.yaml", "rmse"),
    "audio_classification": Case("keywords.yaml", "accuracy"),
    "image_regression": Case("counts_digits.yaml", "rmse"),
    "multi_label_classification": Case("labels_digits.yaml", "mean_average_precision"),
    "image_embedding": Case("embedding_digits.yaml", "recall_at_1"),
    "anomaly_detection": Case("machine.yaml", "auc", "experiments.tasks.anomaly_family:family"),
}


def one(task: str, seed: int, minutes: float, folder: Path) -> dict[str, Any]:
    """Return what a seed gave; what is there already is not run again."""
    case = CASES[task]
    changes = {
        "seed": seed,
        "threads": 1,
        "budget": {"cpu_minutes": minutes},
        # Sizes are compared, so no latency is measured.
        "devices": [{"name": "mcu", "simulator": "roofline", "hardware": "mcu-simd"}],
        "search": {
            "objectives": [case.metric, "weights_kib"],
            "constraints": {"weights_kib": {"max": 64}},
            "evaluations": 24, "initial": 16, "batch": 8, "latency_samples": 4, "front_size": 3,
        },
    }  # fmt: skip
    if not (folder / "results.json").exists():
        run(load_job(HERE / case.job, changes=changes), folder)
    study = ValueStudy(
        family=case.family, qat=False, recipe=TimedRecipe(batch_size=case.batch_size)
    )
    found = study.run(find_source(folder), folder / "studies" / "value")
    at_size = found["at_size"]["int8"]
    return {
        "seed": seed,
        "ahead": at_size["mean"],
        "worst": at_size["worst"],
        "not_compared": at_size["missing"],
        "seconds": found["budget"]["seconds"],
        "front": [
            {
                "weights_kib": e["costs"]["weights_kib"],
                "validation": e["validation_accuracy"],
                "test": e["test_accuracy"],
            }
            for e in load_results(folder)["front"]
        ],
        "family": [
            {k: m[k] for k in ("member", "kind", "weights_kib", "validation", "accuracy")}
            for m in found["members"]
        ],
        "at_size": [
            {
                "kib": row["budget"],
                "front": row["front"] and row["front"]["accuracy"],
                "family": row["family"] and row["family"][0]["accuracy"],
            }
            for row in at_size["rows"]
        ],
        "metric": found["metric"],
        "family_is": found["family"],
        "unit": "points" if found["unit"] == 100.0 else found["metric"],
    }


def main() -> None:
    """Run every seed of a task, write ``results/tasks_value.json`` and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=sorted(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=1.5, help="of a processor, a run")
    parser.add_argument("--runs", type=Path, default=Path("runs/value"))
    given = parser.parse_args()
    rows = []
    for seed in given.seeds:
        rows.append(one(given.task, seed, given.minutes, given.runs / f"{given.task}-{seed}"))
        print({k: rows[-1][k] for k in ("seed", "ahead", "worst", "at_size")}, flush=True)
    command = (
        f"python -m experiments.tasks.value {given.task} --minutes {given.minutes:g} "
        f"--seeds {' '.join(map(str, given.seeds))}"
    )
    compared = [row["ahead"] for row in rows if row["ahead"] is not None]
    ahead = float(np.mean(compared)) if compared else None
    known = json.loads(RESULTS.read_text())["tasks"] if RESULTS.is_file() else {}
    tasks = {
        **known,
        given.task: {
            "metric": rows[0]["metric"],
            "unit": rows[0]["unit"],
            "ahead": ahead,
            "minutes": given.minutes,
            "command": command,
            "rows": rows,
        },
    }
    file = write_result(
        RESULTS,
        {"tasks": dict(sorted(tasks.items()))},
        "python -m experiments.tasks.value TASK",
        packages=("torch", "numpy", "onnxruntime"),
    )
    record_claim(
        f"task.{given.task}_ahead", ahead, f">= 0 {rows[0]['unit']} at equal size",
        ahead is not None and ahead >= 0, file, command,
    )  # fmt: skip


if __name__ == "__main__":
    main()
