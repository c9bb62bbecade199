"""``front.csv``: one row for each (architecture, device) of the front."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nas.record.result_types import Latency, Model, Results
from nas.report.rows import test_images, wilson
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
    "accuracy_low",
    "accuracy_high",
    "pareto",
    "dominated_by",
    "accuracy_at_fault_rate",
    "worst_class_loss",
    "sparse_weights_kib",
    "training_memory_kib",
)
"""Columns in order; :func:`columns` says which follow for other tasks. Accuracies are 0..1,
``accuracy`` and ``worst_class_accuracy`` on the test split, ``accuracy_low`` and
``accuracy_high`` its 95 % interval for so many test images (Wilson), ``accuracy_at_fault_rate``
and ``worst_class_loss`` on the validation split where the job asks for them; latencies ms with 95 %
intervals, sizes KiB, energy mJ an inference. ``sparse_weights_kib`` is an estimate;
``training_memory_kib`` is there where the job asks for it. ``pareto`` is false for a row that the
final figures say is beaten on each of its fronts, by ``dominated_by`` among others."""


def columns(results: Results) -> tuple[str, ...]:
    """Return the columns of a run's ``front.csv``.

    Those of :data:`COLUMNS` first. A task with another metric than accuracy leaves ``accuracy``
    and ``validation_accuracy`` empty and has its metric by name instead, on the test split, and
    ``validation_NAME``; further metrics of the test split come last.
    """
    results = Results.from_json(results)
    metric, further = results.metric, (results.task or {}).get("further_metrics") or {}
    names = [] if metric == "accuracy" else [metric, f"validation_{metric}"]
    return (*COLUMNS, *names, *further)


def front_rows(results: Results) -> list[dict[str, Any]]:
    """Return the rows of ``front.csv`` as dictionaries; what is not recorded is ``None``."""
    results = Results.from_json(results)
    runtimes = {device.name: device.runtime for device in results.devices}
    names = columns(results)
    rows = []
    for model in results.front:
        common = _of_model(results, model)
        for name, latency in model.devices.items():
            row = {**common, **_on_device(latency), "device": name, "runtime": runtimes.get(name)}
            rows.append({column: row[column] for column in names})
    return rows


def _of_model(results: Results, model: Model) -> dict[str, Any]:
    """Return what is the same on every device."""
    task, costs, metric = results.task or {}, model.costs, results.metric
    right = metric == "accuracy"
    named: dict[str, Any] = {"accuracy": model.test_accuracy}
    named["validation_accuracy"] = model.validation_accuracy
    if not right:
        named = {metric: model.test_accuracy, f"validation_{metric}": model.validation_accuracy}
        named |= {"accuracy": None, "validation_accuracy": None}
    classes = task.get("has_classes", right)
    return {
        **named,
        **{name: model.test.get(name) for name in task.get("further_metrics") or {}},
        "id": model.id,
        "arch": model.arch,
        "weight_bits_mean": costs.get("weight_bits_mean"),
        "activation_bits_mean": costs.get("activation_bits_mean"),
        "weights_kib": costs.get("weights_kib"),
        "size_kib": model.size_kib,
        "macs": _whole(costs.get("macs")),
        "feasible_all": model.feasible,
        "model": model.model,
        "bops": _whole(costs.get("bops")),
        "parameters": _whole(costs.get("parameters")),
        "agreement": (model.parity or {}).get("agreement"),
        "knee": model.knee,
        "fronts": " ".join(model.fronts) or None,
        "worst_class_accuracy": _worst(model.per_class) if classes else None,
        "peak_memory_kib": costs.get("peak_memory_kib"),
        "flash_kib": costs.get("flash_kib"),
        **_accuracy_interval(model.test_accuracy if right else None, test_images(results)),
        "pareto": model.pareto,
        "accuracy_at_fault_rate": model.metrics.get("accuracy_at_fault_rate"),
        "worst_class_loss": model.metrics.get("worst_class_loss"),
        "sparse_weights_kib": costs.get("sparse_weights_kib"),
        "training_memory_kib": costs.get("training_memory_kib"),
        "dominated_by": None if model.pareto else dominator(model),
    }


def _on_device(latency: Latency) -> dict[str, Any]:
    return {
        "latency_ms": latency.latency_ms,
        "latency_low_ms": latency.low_ms,
        "latency_high_ms": latency.high_ms,
        "feasible": latency.feasible,
        "latency_source": None if latency.latency_ms is None else latency.source,
        "latency_valid": latency.valid,
        "predicted_latency_ms": latency.predicted_ms,
        "predicted_low_ms": latency.predicted_low_ms,
        "predicted_high_ms": latency.predicted_high_ms,
        "energy_mj": latency.energy_mj,
    }


def write_front_csv(results: Results, path: Path) -> None:
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


def dominator(model: Model) -> str | None:
    """Return the id of a row that beats ``model`` by the final figures, or None."""
    return next(iter(model.beaten_by.values()), None)


def _accuracy_interval(accuracy: float | None, images: int | None) -> dict[str, float | None]:
    if accuracy is None or not images or not 0 <= accuracy <= 1:
        return {"accuracy_low": None, "accuracy_high": None}
    low, high = wilson(accuracy, images)
    return {"accuracy_low": low, "accuracy_high": high}


def _worst(per_class: Mapping[str, float | None] | None) -> float | None:
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
