"""What of a run is numbers at steps: training by step, search by evaluation, the front by rank."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from nas.record.result_types import Results, number
from nas.record.run_folder import RunStore
from nas.trackers.base import Row, TrackedRun


def tracked_run(store: RunStore) -> TrackedRun:
    """Return what trackers are told of the run in ``store``; moving its folder changes nothing."""
    manifest = store.manifest()
    job = dict(manifest.get("job") or {})
    fixed = {key: manifest.get(key) for key in ("created", "command", "hardware")}
    text = json.dumps({**fixed, "name": job.get("name")}, sort_keys=True)
    # Where the run is told of is no parameter of it.
    job.pop("tracking", None)
    return TrackedRun(
        folder=store.folder.absolute(),
        project=str(job.get("name") or "edge-nas"),
        label=store.folder.resolve().name,
        identity=hashlib.sha256(text.encode()).hexdigest(),
        parameters=dict(flat(job)),
    )


def flat(value: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield ``(dotted key, text)`` of every value of nested mappings that is not None."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from flat(inner, f"{prefix}.{key}" if prefix else str(key))
    elif value is not None:
        yield prefix, str(value)


def training_rows(records: Iterable[Mapping[str, Any]]) -> list[Row]:
    """Return the losses and rates of training steps."""
    return [
        (int(record["step"]), _numbers({k: v for k, v in record.items() if k != "step"}))
        for record in records
        if number(record.get("step")) is not None
    ]


def search_rows(evaluations: Iterable[tuple[int, Mapping[str, Any]]]) -> list[Row]:
    """Return the metrics of evaluations, from their numbers and metrics."""
    return [(int(place), _numbers(metrics)) for place, metrics in evaluations]


def hypervolume_rows(results: Results) -> list[Row]:
    """Return the hypervolume after so many evaluations."""
    rows = (results.get("hypervolume") or {}).get("values") or []
    return [
        (int(row["evaluations"]), {"hypervolume": float(row["value"])})
        for row in rows
        if number(row.get("value")) is not None
    ]


def front_rows(results: Results) -> list[Row]:
    """Return the figures of the models on the front, by their rank in the results."""
    rows: list[Row] = []
    for rank, entry in enumerate(results["front"]):
        figures = {"test_accuracy": entry.get("test_accuracy"), **(entry.get("costs") or {})}
        for device, measured in (entry.get("devices") or {}).items():
            figures[f"latency_ms[{device}]"] = measured.get("latency_ms")
        rows.append((rank, _numbers(figures)))
    return rows


def kept_files(run: Path) -> dict[str, Path]:
    """Return what a tracker keeps of a finished run: report, tables, models."""
    names = ("report.html", "front.csv", "results.json", "manifest.json")
    files = {name: run / name for name in names if (run / name).is_file()}
    for path in sorted((run / "models").glob("*")):
        if path.is_file():
            files[f"models/{path.name}"] = path
    return files


def _numbers(values: Mapping[str, Any]) -> dict[str, float]:
    return {k: float(v) for k, v in values.items() if number(v) is not None}
