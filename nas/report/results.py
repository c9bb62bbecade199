"""Reading ``results.json``: the one file the report, ``front.csv`` and the comparison come from."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError

LISTS = (
    "devices",
    "goals",
    "constraints",
    "front",
    "rejected",
    "evaluations",
    "latency_samples",
    "accuracy_predictor",
    "training",
    "timing",
)
"""Keys that hold a list; an absent one is an empty list after :func:`load_results`."""


def load_results(run: Path) -> dict[str, Any]:
    """Return the results of a run, every list of :data:`LISTS` present.

    Raises:
        InputError: no results yet, no JSON, or a key that holds something else than it should.
    """
    path = Path(run) / "results.json"
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise InputError(
            f"{run} has no results.json, so the run has not ended; go on with: nas resume {run}"
        ) from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text: {error}") from error
    try:
        results = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: no JSON: {error.msg}") from error
    return complete(results, source=str(path))


def doubts(results: dict[str, Any]) -> list[str]:
    """Return a line for each device whose latencies on the front did not pass the protocol.

    Args:
        results: as :func:`load_results` returns them.
    """
    lines = []
    entries = [entry.get("devices") or {} for entry in results["front"]]
    for device in dict.fromkeys(name for entry in entries for name in entry):
        found = [entry[device] for entry in entries if device in entry]
        bad = [one for one in found if one.get("valid") is False]
        reasons = ", ".join(dict.fromkeys(r for one in bad for r in one.get("reasons") or []))
        if bad:
            lines.append(
                f"{len(bad)} of the front's {len(found)} latencies on {device} are marked invalid"
                f"{f' ({reasons})' if reasons else ''}; see the report"
            )
    return lines


def complete(results: Any, *, source: str = "results") -> dict[str, Any]:
    """Return a copy with every list of :data:`LISTS` present.

    Raises:
        InputError: the value or one of those keys is of another type.
    """
    if not isinstance(results, dict):
        raise InputError(f"{source} must hold an object, not {type(results).__name__}")
    whole = dict(results)
    for key in LISTS:
        value = whole.get(key)
        if value is None:
            value = []
        if not isinstance(value, list):
            raise InputError(f"{source}: {key!r} must be a list, not {type(value).__name__}")
        whole[key] = value
    for key in ("front", "rejected"):
        for i, entry in enumerate(whole[key]):
            if not isinstance(entry, dict) or not entry.get("id"):
                raise InputError(f"{source}: {key}[{i}] has no 'id'")
    return whole


def is_file_name(text: str) -> bool:
    """Whether ``text`` may name a file of a run: nothing that leads out of its folder."""
    return re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}", text) is not None


def number(value: Any) -> float | None:
    """Return a finite number as it is, anything else as ``None`` (not recorded)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return None
    return value if math.isfinite(value) else None


def device_names(results: dict[str, Any]) -> list[str]:
    """Return every device of the job, then those that only appear in measurements."""
    names = [str(d["name"]) for d in results["devices"] if isinstance(d, dict) and d.get("name")]
    for entry in [*results["front"], *results["rejected"]]:
        names += list(entry.get("devices") or {})
    names += [str(s["device"]) for s in results["latency_samples"] if s.get("device")]
    return list(dict.fromkeys(names))


def metric_text(value: Any, results: dict[str, Any]) -> str | None:
    """Return a value of the task's metric as people read it; None for one that is no number."""
    value = number(value)
    if value is None:
        return None
    if is_share(results):
        return f"{100 * value:.2f} %"
    unit = metric_unit(results)
    return f"{value:.4g} {unit}".rstrip()


def is_share(results: dict[str, Any]) -> bool:
    """Return whether the task's metric is a share of 0 to 1."""
    metric = (results.get("task") or {}).get("metric") or {}
    return bool(metric.get("share", "accuracy" in metric_of(results)[0]))


def is_accuracy(results: dict[str, Any]) -> bool:
    """Return whether the metric counts right answers, so that a share of images has an interval."""
    return bool((results.get("task") or {}).get("has_classes", is_share(results)))


def metric_unit(results: dict[str, Any]) -> str:
    """Return the unit of the task's metric, empty for none."""
    return str(((results.get("task") or {}).get("metric") or {}).get("unit") or "")


def metric_of(results: dict[str, Any]) -> tuple[str, bool]:
    """Return the name of the task's metric and whether more of it is better."""
    return str(results.get("metric") or "accuracy"), bool(results.get("higher_is_better", True))
