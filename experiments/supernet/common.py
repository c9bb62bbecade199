"""What the supernet experiments share: jobs in code, training by a recipe, how results are told."""

from __future__ import annotations

import platform
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.device import device_fingerprint
from nas.job.schema import Job, job_space
from nas.studies.source import Opened
from nas.tasks import TASKS
from search_spaces.atomic import write_json_atomic

if TYPE_CHECKING:
    from supernet.network import Supernet

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "supernet"


def open_job(values: dict[str, Any]) -> Opened:
    """Check a job given as a mapping, and load its data."""
    job = Job.model_validate(values)
    task = TASKS.get(job.task)(label_smoothing=job.supernet.label_smoothing)
    splits = task.load(job.data, job.seed)
    space = job_space(job, input_channels=splits.channels, outputs=task.outputs(splits))
    return Opened(job, task, splits, space)


def accuracy(opened: Opened, supernet: Supernet, arch: Any) -> float:
    """Return the validation accuracy of one architecture, calibrated at its bits."""
    from nas.stages.evaluator import Evaluator

    evaluator = Evaluator(supernet, opened.splits, opened.task)
    return evaluator.accuracy(evaluator.network(arch))


def write_result(name: str, values: dict[str, Any]) -> str:
    """Write a result with versions and machine; return its path in the repository."""
    path = RESULTS / f"{name}.json"
    write_json_atomic(
        path,
        {
            **values,
            "versions": {
                "python": platform.python_version(),
                **{package: version(package) for package in ("torch", "numpy", "scipy")},
            },
            "machine": device_fingerprint(),
        },
    )
    return str(path.relative_to(ROOT))


def mean_and_interval(values: Any) -> dict[str, float]:
    """Return the mean and its 95 % interval (Student's t) over independent values."""
    from scipy.stats import t

    values = np.asarray(values, dtype=float)
    mean = float(values.mean())
    if len(values) < 2:
        return {"mean": mean, "low": mean, "high": mean}
    half = float(t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / np.sqrt(len(values)))
    return {"mean": mean, "low": mean - half, "high": mean + half}
