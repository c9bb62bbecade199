"""Hardware-aware neural architecture search, from one job to models that run on a board.

The names below are the public API; each is imported when it is first used, so that
``import nas`` stays quick and needs no torch.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nas.api import (
        compare,
        estimate,
        export,
        inspect,
        load_results,
        make_job,
        measure,
        resume,
        run,
        track,
        write_report,
    )
    from nas.data.splits import DataSplits, load_splits
    from nas.job.check import load_job
    from nas.job.schema import Job, job_schema, job_space
    from nas.job.yaml_source import DiagnosticsError
    from nas.tasks import TASKS, Task
    from search_spaces.errors import (
        EnvironmentProblem,
        InfeasibleError,
        InputError,
        MissingExtraError,
        NasError,
    )

_HOME = {
    "compare": "nas.api",
    "estimate": "nas.api",
    "export": "nas.api",
    "inspect": "nas.api",
    "load_results": "nas.api",
    "make_job": "nas.api",
    "measure": "nas.api",
    "resume": "nas.api",
    "run": "nas.api",
    "track": "nas.api",
    "write_report": "nas.api",
    "Job": "nas.job.schema",
    "job_schema": "nas.job.schema",
    "job_space": "nas.job.schema",
    "load_job": "nas.job.check",
    "DiagnosticsError": "nas.job.yaml_source",
    "DataSplits": "nas.data.splits",
    "load_splits": "nas.data.splits",
    "TASKS": "nas.tasks",
    "Task": "nas.tasks",
    "EnvironmentProblem": "search_spaces.errors",
    "InfeasibleError": "search_spaces.errors",
    "InputError": "search_spaces.errors",
    "MissingExtraError": "search_spaces.errors",
    "NasError": "search_spaces.errors",
}

__all__ = [
    "TASKS",
    "DataSplits",
    "DiagnosticsError",
    "EnvironmentProblem",
    "InfeasibleError",
    "InputError",
    "Job",
    "MissingExtraError",
    "NasError",
    "Task",
    "compare",
    "estimate",
    "export",
    "inspect",
    "job_schema",
    "job_space",
    "load_job",
    "load_results",
    "load_splits",
    "make_job",
    "measure",
    "resume",
    "run",
    "track",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("edge-nas")
    if name in _HOME:
        return getattr(importlib.import_module(_HOME[name]), name)
    raise AttributeError(f"module 'nas' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
