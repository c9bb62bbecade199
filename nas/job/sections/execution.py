"""Keys ``study``, ``executor`` and ``workers``: where a run computes and keeps count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.job.findings import Finding
from nas.job.option_types import wrong_options
from nas.job.paths import absolute
from nas.job.registries import registry_for
from nas.record.database_url import without_password


def absolute_database(url: str, folder: Path) -> str:
    """Return a database URL whose file, if it is one, does not depend on the current folder."""
    # A relative file would be another one for a run that is resumed from elsewhere.
    scheme, _, path = url.partition(":///")
    return f"{scheme}:///{absolute(path, folder)}" if scheme.startswith("sqlite") and path else url


def check_study(study: str) -> Iterator[Finding]:
    """Yield what is no URL of a database."""
    scheme, mark, rest = study.partition("://")
    if not mark or not scheme:
        yield (
            ("study",),
            f"study: {without_password(study)!r} is no database URL; write sqlite:///{study} for "
            "a file, or postgresql+psycopg2://user@host/name",
        )
    elif scheme.split("+")[0] == "sqlite" and len(rest) < 2:
        yield ("study",), f"study: {study!r} names no file; write sqlite:///shared.db"


def check_executor(sections: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield workers and options that the executor does not take."""
    name, workers = sections["executor"], sections.get("workers")
    registry = registry_for("executor")
    if name not in registry:
        return
    if name == "local" and workers not in (None, 1):
        yield (
            ("workers",),
            f"workers: executor 'local' has one worker, not {workers}; use executor: processes",
        )
    yield from wrong_options(
        ("executor_options",),
        sections.get("executor_options") or {},
        registry.get(name),
        f"executor {name!r}",
        own=("workers",),
    )
