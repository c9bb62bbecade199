"""Section ``latency``: how it is predicted."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from pydantic import (
    StrictStr,
)

from nas.job.findings import Finding, unknown_name
from nas.job.paths import JobPath, absolute
from nas.job.values import Section


def _table(named: str, folder: Path) -> str:
    return named if named == "packaged" else absolute(named, folder)


class LatencyConfig(Section):
    """How the latency of architectures that are not measured is predicted."""

    predictor: StrictStr = "transfer_gp"
    """Registered name of the predictor: transfer_gp, help, or a baseline."""
    known_devices: Annotated[StrictStr, JobPath(_table)] | None = "packaged"
    """What it learns from before it meets the job's devices: a latency table (CSV or Parquet,
    relative to the job file) with architectures of the job's space, packaged for the tables that
    come with the package where they fit the space, or null for nothing."""


def check_latency(latency: LatencyConfig, folder: Path) -> Iterator[Finding]:
    """Yield an unknown predictor, and a table of known devices that is not there."""
    yield from unknown_name("latency.predictor", ("latency", "predictor"), latency.predictor)
    known = latency.known_devices
    if known not in (None, "packaged") and not (folder / known).is_file():
        problem = "is not a file" if (folder / known).exists() else "does not exist"
        yield (
            ("latency", "known_devices"),
            f"latency.known_devices: {folder / known} {problem}; give a table's path, "
            "packaged, or null",
        )
