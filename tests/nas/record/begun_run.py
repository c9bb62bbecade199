"""A run that has begun: a job, and evaluations in its study, without any training."""

from __future__ import annotations

import numpy as np

from nas.job.schema import Job, job_space
from nas.record.evaluations import StudyRecord
from nas.record.run_folder import RunStore

JOB = {
    "name": "tiny",
    "data": {"name": "digits"},
    "space": {"name": "mobilenet", "preset": "8x8"},
    "search": {
        "objectives": ["accuracy", "weights_kib"],
        "constraints": {"weights_kib": {"max": 9}},
    },
}


def evaluated(store: RunStore, metrics: list[tuple[float, float]]) -> list[str]:
    """Record evaluations of accuracy and KiB; returns the ids."""
    job = Job.model_validate(JOB)
    space = job_space(job, input_channels=1, outputs=10, input_size=(8, 8))
    archs = space.decode(space.sample_genes(np.random.default_rng(0), 4 * len(metrics)))
    archs = list(dict.fromkeys(archs))
    with StudyRecord(
        store.study, space=space, goals=job.objectives(), constraints=job.constraints()
    ) as study:
        for arch, (accuracy, kib) in zip(archs, metrics, strict=False):
            study.record(arch, {"accuracy": accuracy, "weights_kib": kib})
    return [arch.id for arch in archs[: len(metrics)]]
