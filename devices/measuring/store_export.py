"""A measurement store as files for other programs: a latency table, or every raw sample."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from devices.measuring.store import MeasurementStore
from search_spaces.atomic import write_atomic
from search_spaces.errors import InputError, MissingExtraError
from search_spaces.tables.files import is_parquet, write_raw


def export_table(
    store: MeasurementStore,
    path: Path,
    *,
    space: str | None = None,
    variant: str | None = None,
    include_invalid: bool = False,
) -> int:
    """Write a latency table: one row an architecture, one column a device, ms.

    The newest measurement of a cell counts; a missing cell is empty. The suffix picks CSV or
    Parquet.

    Args:
        space: whose architectures; needed when the store holds several spaces.
        variant: restrict to this variant.
        include_invalid: also take the figures of rejected samples.

    Returns:
        The number of rows.

    Raises:
        InputError: several spaces and none named, or no measurement fits.
        MissingExtraError: pyarrow is missing for Parquet.
    """
    rows = [row for row in _rows(store, space, variant, include_invalid) if row["arch"]]
    rows = [row for row in rows if row["latency_ms"] is not None]
    spaces = sorted({row["space"] for row in rows})
    if len(spaces) > 1:
        raise InputError(f"{store.path} holds several spaces ({', '.join(spaces)}); name one")
    if not rows:
        kind = "measurement" if include_invalid else "valid measurement"
        raise InputError(f"{store.path} has no {kind} of a named architecture for this table")
    cells: dict[str, dict[str, float]] = {}
    for row in rows:
        cells.setdefault(row["arch"], {})[row["device"]] = row["latency_ms"]
    columns = {
        device: np.array([found.get(device, np.nan) for found in cells.values()])
        for device in sorted({row["device"] for row in rows})
    }
    declared = {"space": spaces[0]} if spaces[0] else {}
    write_raw(Path(path), list(cells), columns, {**declared, "metric": "latency_ms"})
    return len(cells)


def export_samples(
    store: MeasurementStore,
    path: Path,
    *,
    space: str | None = None,
    variant: str | None = None,
    include_invalid: bool = True,
) -> int:
    """Write every measurement as a row of Parquet, oldest first, with all its raw samples.

    ``samples_ms`` is a list of attempts, each a list of processes, each a list of runs; the
    first attempt is the one whose figures count. Parameters, protocol, fingerprint and summary
    are JSON texts.

    Returns:
        The number of rows.

    Raises:
        InputError: the path does not end in .parquet, or no measurement fits.
        MissingExtraError: pyarrow is not installed.
    """
    if not is_parquet(Path(path)):
        raise InputError(f"raw samples are written as Parquet; give {path} the suffix .parquet")
    try:
        import pyarrow
        import pyarrow.parquet as parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", "search") from error
    rows = _rows(store, space, variant, include_invalid)
    if not rows:
        raise InputError(f"{store.path} has no measurement for this file")
    texts = ("spec_parameters", "fingerprint", "protocol", "summary")
    columns: dict[str, Any] = {
        name: [json.dumps(row[name]) if name in texts else row[name] for row in rows]
        for name in rows[0]
    }
    columns["samples_ms"] = pyarrow.array(
        [store.samples(row["id"]) for row in rows],
        type=pyarrow.list_(pyarrow.list_(pyarrow.list_(pyarrow.float64()))),
    )
    table = pyarrow.table(columns)
    write_atomic(Path(path), lambda temporary: parquet.write_table(table, temporary))
    return len(rows)


def _rows(
    store: MeasurementStore, space: str | None, variant: str | None, include_invalid: bool
) -> list[dict[str, Any]]:
    rows = [row for row in store.rows() if include_invalid or row["valid"]]
    return [
        row
        for row in rows
        if (space is None or row["space"] == space)
        and (variant is None or row["variant"] == variant)
    ]
