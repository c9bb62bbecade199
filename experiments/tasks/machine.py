"""Anomalies by reconstruction beside principal components, on made vibrations of a machine.

Principal components of the same normal windows are what a good engineer tries first: the error of
giving a window back from the first of them, as many as do best on the validation windows. The
published figure is the area under the ROC curve on the test windows, of the front's model that is
best on the validation windows, and how far that is ahead. Beside it is told what the score of
errors alone does, for a network that gives nothing back.

    python -m experiments.tasks.machine
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch

from experiments.results_index import record_claim, write_result
from nas.data.batches import Subset
from nas.job.check import load_job
from nas.job.sections.data import DataConfig
from nas.report.results import load_results
from nas.stages.pipeline import run
from nas.tasks import AnomalyDetection
from nas.tasks.anomaly import REFERENCE
from nas.tasks.multi_label import area_under_roc
from nas.tasks.normal_errors import NormalErrors

HERE = Path(__file__).parent
RESULTS = HERE.parent / "results" / "tasks_anomaly.json"
COMPONENTS = (1, 2, 4, 8, 16, 32, 64, 96, 128)


def components(config: DataConfig, seed: int) -> dict[str, float]:
    """Return ``validation`` and ``test`` of principal components, how ``many`` did best, and
    ``without_network`` on the test windows."""
    splits = AnomalyDetection().load(config, seed)

    def of(part: Subset) -> tuple[np.ndarray, np.ndarray]:
        labels = part.labels[part.indices].double().numpy()
        labels = labels[labels[:, 0] != REFERENCE]
        return labels[:, 1:], labels[:, 0]

    windows, _ = of(splits.train)
    mean = windows.mean(0)
    axes = torch.linalg.svd(torch.from_numpy(windows - mean), full_matrices=False)[2].numpy()

    def auc(part: Subset, many: int) -> float:
        values, anomalous = of(part)
        away = values - mean
        left = away - away @ axes[:many].T @ axes[:many]
        return area_under_roc((left**2).mean(1), anomalous)

    best = max(COMPONENTS, key=lambda many: auc(splits.validation, many))
    test = splits.test("principal components beside the front")
    values, anomalous = of(test)
    errors = NormalErrors.of(windows.reshape(len(windows), splits.channels, -1))
    return {
        "many": best,
        "validation": auc(splits.validation, best),
        "test": auc(test, best),
        "without_network": area_under_roc(
            errors.scores(values.reshape(len(values), splits.channels, -1)), anomalous
        ),
    }


def main() -> None:
    """Run every seed and record the claims; what is there already is not run again."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--minutes", type=float, default=0.7, help="of a processor, a seed")
    parser.add_argument("--runs", type=Path, default=Path("runs/machine"))
    given = parser.parse_args()
    rows = []
    for seed in given.seeds:
        folder = given.runs / str(seed)
        changes = {"seed": seed, "budget": {"cpu_minutes": given.minutes}}
        job = load_job(HERE / "machine.yaml", changes=changes)
        if not (folder / "results.json").exists():
            run(job, folder)
        front = load_results(folder)["front"]
        best = max(front, key=lambda e: e["validation_accuracy"])
        rows.append(
            {
                "seed": seed,
                "auc": best["test_accuracy"],
                "weights_kib": best["costs"]["weights_kib"],
                "principal_components": components(job.data, seed),
            }
        )
        print(rows[-1], flush=True)
    command = "python -m experiments.tasks.machine"
    file = write_result(
        RESULTS,
        {
            "rows": rows,
            "cpu_minutes_of_a_seed": given.minutes,
        },
        command,
        packages=("torch", "numpy", "onnxruntime"),
    )
    auc = float(np.mean([row["auc"] for row in rows]))
    ahead = auc - float(np.mean([row["principal_components"]["test"] for row in rows]))
    record_claim("task.anomaly_auc", auc, "told", True, file, command)
    record_claim(
        "task.anomaly_ahead_of_components", 100 * ahead, ">= 0 points", ahead >= 0, file, command
    )


if __name__ == "__main__":
    main()
