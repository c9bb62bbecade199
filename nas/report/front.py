"""``front.csv``: one row for each (architecture, device) of the front."""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import Any

from nas.report.results import metric_of
from search_spaces.atomic import write_text_atomic

COLUMNS = (
    "id",
    "arch",
    "accuracy",
    "latency_ms",
    "latency_low_ms",
    "latency_high_ms",
    "device",
    "runtime",
    "weight_bits_mean",
    "activation_bits_mean",
    "weights_kib",
    "size_kib",
    "macs",
    "feasible",
    "feasible_all",
    "model",
    "validation_accuracy",
    "latency_source",
    "latency_valid",
    "predicted_latency_ms",
    "predicted_low_ms",
    "predicted_high_ms",
    "bops",
    "parameters",
    "agreement",
    "knee",
    "fronts",
    "worst_class_accuracy",
    "peak_memory_kib",
    "flash_kib",
    "energy_mj",
)
"""Columns in order; :func:`columns` says which follow for other tasks. Accuracies are 0..1,
``accuracy`` and ``worst_class_accuracy`` on the test split; latencies ms with 95 % intervals,
sizes KiB, energy mJ an inference."""


def columns(results: dict[str, Any]) -> tuple[str, ...]:
    """Return the columns of a run's ``front.csv``.

    Those of :data:`COLUMNS` first. A task with another metric than accuracy leaves ``accuracy``
    and ``validation_accuracy`` empty and has its metric by name instead, on the test split, and
    ``validation_NAME``; further metrics of the test split come last.
    """
    metric, _ = metric_of(results)
    further = (results.get("task") or {}).get("further_metrics") or {}
    names = [] if metric == "accuracy" else [metric, f"validation_{metric}"]
    return (*COLUMNS, *names, *further)


def front_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows of ``front.csv`` as dictionaries; what is not recorded is ``None``.

    Args:
        results: the content of ``results.json``.
    """
    runtimes = {
        device.get("name"): device.get("runtime") for device in results.get("devices") or []
    }
    rows = []
    names, (metric, _) = columns(results), metric_of(results)
    right = metric == "accuracy"
    further = (results.get("task") or {}).get("further_metrics") or {}
    classes = (results.get("task") or {}).get("has_classes", right)
    for entry in results.get("front") or []:
        costs = entry.get("costs") or {}
        common = {
            "id": entry.get("id"),
            "arch": entry.get("arch"),
            "accuracy": entry.get("test_accuracy") if right else None,
            **({} if right else {metric: entry.get("test_accuracy")}),
            **({} if right else {f"validation_{metric}": entry.get("validation_accuracy")}),
            **{name: (entry.get("test") or {}).get(name) for name in further},
            "weight_bits_mean": costs.get("weight_bits_mean"),
            "activation_bits_mean": costs.get("activation_bits_mean"),
            "weights_kib": costs.get("weights_kib"),
            "size_kib": entry.get("size_kib"),
            "macs": _whole(costs.get("macs")),
            "feasible_all": entry.get("feasible"),
            "model": entry.get("model"),
            "validation_accuracy": entry.get("validation_accuracy") if right else None,
            "bops": _whole(costs.get("bops")),
            "parameters": _whole(costs.get("parameters")),
            "agreement": (entry.get("parity") or {}).get("agreement"),
            "knee": bool(entry.get("knee")),
            "fronts": " ".join(entry.get("fronts") or []) or None,
            "worst_class_accuracy": _worst(entry.get("per_class")) if classes else None,
            "peak_memory_kib": costs.get("peak_memory_kib"),
            "flash_kib": costs.get("flash_kib"),
        }
        for name, measured in (entry.get("devices") or {}).items():
            latency = measured.get("latency_ms")
            row = {
                **common,
                "latency_ms": latency,
                "latency_low_ms": measured.get("low_ms"),
                "latency_high_ms": measured.get("high_ms"),
                "device": name,
                "runtime": runtimes.get(name),
                "feasible": measured.get("feasible"),
                "latency_source": None if latency is None else measured.get("source", "measured"),
                "latency_valid": measured.get("valid"),
                "predicted_latency_ms": measured.get("predicted_ms"),
                "predicted_low_ms": measured.get("predicted_low_ms"),
                "predicted_high_ms": measured.get("predicted_high_ms"),
                "energy_mj": measured.get("energy_mj"),
            }
            rows.append({column: row[column] for column in names})
    return rows


def write_front_csv(results: dict[str, Any], path: Path) -> None:
    """Write ``front.csv`` from the content of ``results.json``, atomically.

    Columns are those of :func:`columns`; truth values are ``true`` and ``false``, and what is
    not recorded is empty.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = columns(results)
    writer.writerow(names)
    for row in front_rows(results):
        writer.writerow([_cell(row[column]) for column in names])
    write_text_atomic(path, text.getvalue())


def _worst(per_class: dict[str, float | None] | None) -> float | None:
    """Return the lowest test accuracy of a class that has test images."""
    return min((v for v in (per_class or {}).values() if v is not None), default=None)


def _whole(value: Any) -> Any:
    # Costs may come from float arrays; counts read better, and compare exactly, as integers.
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _cell(value: Any) -> Any:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
