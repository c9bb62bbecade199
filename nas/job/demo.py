"""The job of ``nas demo``: part of the package, so that it needs no repository."""

from __future__ import annotations

from contextlib import ExitStack
from importlib import resources
from pathlib import Path
from typing import Any

from nas.job.check import load_job
from nas.job.schema import Job

_SMALL: dict[str, dict[str, Any]] = {
    "budget": {"minutes": 0.8, "supernet": 0.25},
    "search": {
        "objectives": ["accuracy", "latency_ms", "weights_kib"],
        "evaluations": 16,
        "initial": 12,
        "batch": 4,
        "latency_samples": 4,
        "front_size": 3,
    },
}


def demo_job(*, small: bool = False) -> Job:
    """Return the job on scikit-learn's digits.

    Args:
        small: a third of the time and of the search, to see that everything works.
    """
    with ExitStack() as stack:
        file = resources.files("nas.job") / "digits.yaml"
        path = stack.enter_context(resources.as_file(file))
        return load_job(Path(path), changes=_SMALL if small else {})
