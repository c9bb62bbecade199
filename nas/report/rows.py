"""A run's results row by row, trimmed and completed for charts and tables."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from nas.record.result_types import Model, Results
from nas.report.charts.text import interval, milliseconds, short
from nas.report.family import family_rows
from nas.report.results import (
    complete,
    device_names,
    is_accuracy,
    metric_of,
    metric_text,
    number,
)
from nas.tasks.data import each_of

MOST_DOTS = 4000
"""Evaluations drawn at most; more would make the page slow and large. The page says so."""


@dataclass(frozen=True)
class Rows:
    """What charts are built from: a run's results, and the rows that come of them, made once.

    Attributes:
        results: as :func:`nas.report.results.complete` gives them.
        study: the content of ``studies/value.json``, if there is one.
    """

    results: Results
    study: Mapping[str, Any] | None = None

    @classmethod
    def of(cls, results: Any, study: Mapping[str, Any] | None = None) -> Rows:
        """Return the rows of what a file of any version holds.

        Raises:
            InputError: a part of the results is of another type.
        """
        return cls(complete(results), study)

    @property
    def metric(self) -> str:
        """Name of the task's metric."""
        return metric_of(self.results)[0]

    @property
    def higher(self) -> bool:
        """Whether more of the metric is better."""
        return metric_of(self.results)[1]

    @cached_property
    def devices(self) -> list[str]:
        """Names of the devices."""
        return device_names(self.results)

    @cached_property
    def models(self) -> list[dict[str, Any]]:
        """Verified models, see :func:`model_rows`."""
        return model_rows(self.results)

    @cached_property
    def samples(self) -> list[dict[str, Any]]:
        """Measured samples, see :func:`sample_rows`."""
        return sample_rows(self.results)

    @cached_property
    def evaluations(self) -> dict[str, Any]:
        """Evaluations of the search, see :func:`evaluation_rows`."""
        return evaluation_rows(self.results, self.metric, self.samples)

    @cached_property
    def evaluation_texts(self) -> list[str]:
        """What is told of each evaluation, whatever it is drawn against."""
        found = self.evaluations
        # One source for all of them is told once, below the chart.
        mixed = {n: each for n, each in found["sources"].items() if len(set(each)) > 1}
        texts = []
        for i, id in enumerate(found["id"]):
            value = self.value_text(found["accuracy"][i])
            lines = [f"evaluation {found['number'][i]}: {id}", f"validation {self.metric} {value}"]
            lines += [f"{name} {each[i]}" for name, each in mixed.items()]
            lines += ["over a budget"] if found["feasible"][i] is False else []
            texts.append("\n".join(lines))
        return texts

    @cached_property
    def budgets(self) -> list[dict[str, Any]]:
        """Constraints and budgets, see :func:`budgets` and :func:`served_budgets`."""
        return budgets(self.results) + served_budgets(self.results)

    @cached_property
    def family(self) -> list[dict[str, Any]]:
        """Networks made by hand, see :func:`nas.report.family.family_rows`."""
        return family_rows(self.study)

    def value_text(self, value: float | None) -> str:
        """Return a value of the task's metric as people read it."""
        return metric_text(value, self.results) or "not recorded"

    def source(self, device: str) -> str:
        """Say whether latencies on a device are measured, or how else they came about."""
        found = (m["devices"][device]["source"] for m in self.models if device in m["devices"])
        return next(found, "measured")

    def runtime(self, device: str) -> str:
        """Return the runtime of a device with its version."""
        for one in self.results.devices:
            if one.name == device and one.runtime:
                return f"{one.runtime} {one.runtime_version or ''}".rstrip()
        return "runtime not recorded"


def each_word(results: Results) -> str:
    """Return what the metric is given for one by one: ``class``, ``label`` or ``output``."""
    return each_of((results.get("task") or {}).get("targets"))


def budgets(results: Results) -> list[dict[str, Any]]:
    """Return each constraint with its wording and how many models of the front meet it."""
    out = []
    for constraint in results["constraints"]:
        metric = str(constraint.get("metric"))
        name, _, rest = metric.partition("[")
        device = rest.rstrip("]") or None
        bound = number(constraint.get("bound"))
        upper = constraint.get("upper", True)
        text = f"{metric} {'≤' if upper else '≥'} {'?' if bound is None else f'{bound:g}'}"
        confidence = number(constraint.get("confidence"))
        if confidence is not None:
            text += f" with probability {confidence:g}"
        of_task = metric_of(results)[0]
        values = [(_metric(entry, name, device, of_task), entry) for entry in results["front"]]
        known = [
            (value, entry)
            for value, entry in values
            if value is not None
            and (device is None or entry["devices"][device].get("valid") is not False)
        ]
        met = sum((value <= bound) if upper else (value >= bound) for value, _ in known) if (
            bound is not None
        ) else 0  # fmt: skip
        status = f"met by {met} of {len(values)} models on the front"
        if device is not None:
            status += ", as measured"
        if len(known) < len(values):
            status += f"; {len(values) - len(known)} without a valid figure"
        if not values:
            status = "no model on the front"
        out.append(
            {
                "metric": metric,
                "name": name,
                "device": device,
                "bound": bound,
                "upper": bool(upper),
                "text": text,
                "status": status,
            }
        )
    return out


def served_budgets(results: Results) -> list[dict[str, Any]]:
    """Return each of ``search.budgets`` as a bound, with the model of the front that serves it."""
    out = []
    of_task = metric_of(results)[0]
    for one in results["budgets"]:
        metric, limit = str(one.get("metric")), number(one.get("limit"))
        name, _, rest = metric.partition("[")
        device = rest.rstrip("]") or None
        values = {
            str(entry["id"]): (_metric(entry, name, device, of_task), entry)
            for entry in results["front"]
        }
        known = {id: value for id, (value, _) in values.items() if value is not None}
        model = one.get("model")
        if model in values:
            value, entry = values[str(model)]
            tested = metric_text(entry.get("test_accuracy"), results) or "not recorded"
            status = f"served by {model}: test {of_task} {tested}"
            status += "" if value is None else f", {name} {value:.4g}"
        elif known:
            nearest = min(known, key=known.__getitem__)
            status = f"nothing on the front keeps it; the closest, {nearest}, has "
            status += f"{known[nearest]:.4g}"
        else:
            status = "nothing on the front keeps it"
        out.append(
            {
                "metric": metric,
                "name": name,
                "device": device,
                "bound": limit,
                "upper": True,
                "text": f"a place for {metric} ≤ {'?' if limit is None else f'{limit:g}'}",
                "status": status,
            }
        )
    return out


def test_images(results: Results) -> int | None:
    """Return the number of test images, where the provenance records it."""
    splits = (results.get("provenance") or {}).get("splits")
    for _ in range(2):
        if not isinstance(splits, Mapping):
            return None
        part = splits.get("test")
        if isinstance(part, Mapping):
            part = part.get("images")
        if isinstance(part, int) and not isinstance(part, bool) and part > 0:
            return part
        splits = splits.get("splits")
    return None


def wilson(share: float, n: int) -> tuple[float, float]:
    """Return the 95 % interval of a share of ``n`` trials (Wilson 1927)."""
    z = 1.959964
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    return max(0.0, centre - half), min(1.0, centre + half)


def model_rows(results: Results) -> list[dict[str, Any]]:
    """Return the verified models, those of the front first, with what is told of each."""
    # Only a metric that counts right answers has an interval that follows from their number.
    images = test_images(results) if is_accuracy(results) else None
    rows = [_model(entry, "front", images) for entry in results["front"]]
    rows += [_model(entry, "rejected", None) for entry in results["rejected"]]
    return [row | {"told": "\n".join(_told(row, results))} for row in rows]


def _told(row: Mapping[str, Any], results: Results) -> list[str]:
    metric, _ = metric_of(results)

    def value(split: str) -> str:
        return f"{split} {metric} {metric_text(row[split], results) or 'not recorded'}"

    lines = [row["id"] + (" (knee)" if row["knee"] else "")]
    if row["kind"] == "rejected":
        lines[0] += " – rejected"
        lines += [f"why: {row['why']}"] if row["why"] else []
    else:
        if not row["pareto"]:
            other = "".join(f" by {id}" for id in row["beaten_by"][:1])
            lines.append(f"beaten{other} by the final figures")
        lines.append(value("test"))
    lines.append(value("validation"))
    for name, found in row["devices"].items():
        bounds = interval(found["low"], found["high"])
        lines.append(f"{name}: {milliseconds(found['ms'])} {found['source']} ({bounds})")
        if found["valid"] is False:
            why = "; ".join(found["reasons"]) or "reason not recorded"
            lines.append(f"⚠ invalid measurement: {why}")
        if found["predicted"] is not None:
            lines.append(f"predicted {milliseconds(found['predicted'])}")
    weights = row["costs"].get("weights_kib")
    if weights is not None:
        lines.append(f"{short(weights)} KiB of weights")
    if row["feasible"] is False:
        lines.append("over a budget")
    return lines


def _model(entry: Model, kind: str, images: int | None) -> dict[str, Any]:
    costs = entry.get("costs") or {}
    test = number(entry.get("test_accuracy"))
    low, high = wilson(test, images) if test is not None and images and 0 <= test <= 1 else (
        None, None)  # fmt: skip
    return {
        "id": str(entry["id"]),
        "kind": kind,
        "why": entry.get("why"),
        "arch": entry.get("arch"),
        "test": test,
        "test_low": low,
        "test_high": high,
        "validation": number(entry.get("validation_accuracy")),
        "per_class": entry.get("per_class"),
        "class_loss": number((entry.get("metrics") or {}).get("worst_class_loss")),
        "costs": {name: number(value) for name, value in costs.items()},
        "size_kib": number(entry.get("size_kib")),
        "knee": bool(entry.get("knee")),
        "pareto": entry.get("pareto") is not False,
        "beaten_by": [str(other) for other in (entry.get("beaten_by") or {}).values()],
        "feasible": entry.get("feasible"),
        "devices": {
            str(name): {
                "ms": number(found.get("latency_ms")),
                "low": number(found.get("low_ms")),
                "high": number(found.get("high_ms")),
                "source": found.get("source") or "measured",
                "valid": found.get("valid"),
                "reasons": [str(reason) for reason in found.get("reasons") or []],
                "busy": bool(found.get("busy")),
                "predicted": number(found.get("predicted_ms")),
                "predicted_low": number(found.get("predicted_low_ms")),
                "predicted_high": number(found.get("predicted_high_ms")),
                "feasible": found.get("feasible"),
            }
            for name, found in (entry.get("devices") or {}).items()
        },
        "parity": entry.get("parity"),
    }


def evaluation_rows(results: Results, metric: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the evaluations of the search, column by column.

    Args:
        metric: name of the task's metric.
        samples: of :func:`sample_rows`; they tell measured latencies from predicted ones.
    """
    rows = results["evaluations"]
    shown = thin(rows, MOST_DOTS)
    measured = {(s["device"], s["id"]): s["ms"] for s in samples}
    names = list(dict.fromkeys(name for row in shown for name in row.get("metrics") or {}))
    axes = _axes(shown)
    return {
        "total": len(rows),
        "number": [row.get("number") for row in shown],
        "id": [str(row.get("id")) for row in shown],
        "feasible": [row.get("feasible") for row in shown],
        "accuracy": [evaluated_accuracy(row, metric) for row in shown],
        "metrics": {
            name: [rounded((row.get("metrics") or {}).get(name)) for row in shown] for name in names
        },
        "sources": {
            name: [_source(row, name, measured) for row in shown]
            for name in names
            if name.startswith("latency_ms")
        },
        "choices": {name: [(row.get("choices") or {}).get(name) for row in shown] for name in axes},
    }


def evaluated_accuracy(row: Mapping[str, Any], metric: str) -> float | None:
    """Return the task's metric of an evaluation."""
    metrics = row.get("metrics") or {}
    return number(metrics.get(metric, metrics.get("accuracy")))


def _source(row: dict[str, Any], name: str, measured: dict[tuple[str, str], float | None]) -> str:
    """Say where the latency of an evaluation comes from: measured, predicted or not recorded."""
    device = name.partition("[")[2].rstrip("]")
    stated = row.get("latency_source")
    if isinstance(stated, Mapping):
        stated = stated.get(device)
    if stated:
        return str(stated)
    value = number((row.get("metrics") or {}).get(name))
    if value is not None and measured.get((device, str(row.get("id")))) == value:
        return "measured"
    if value is not None and (row.get("predicted") or {}).get(name) == value:
        return "predicted"
    return "source not recorded"


def _axes(rows: list[dict[str, Any]]) -> list[str]:
    """Choices that make an axis of the parallel coordinates: numeric, global and varying."""
    names = list(dict.fromkeys(name for row in rows for name in row.get("choices") or {}))
    kept = []
    for name in names:
        values = [(row.get("choices") or {}).get(name) for row in rows]
        if any(number(v) is None for v in values) or len(set(values)) < 2:
            continue
        if name.count(".") <= 1:
            kept.append(name)
    return kept[:6]


def sample_rows(results: Results) -> list[dict[str, Any]]:
    """Every measured sample; verified models were measured after the predictor was fitted."""
    verified = {str(entry["id"]) for entry in [*results["front"], *results["rejected"]]}
    return [
        {
            "device": str(row.get("device")),
            "id": str(row.get("id")),
            "held_out": row["role"] == "verify" if row.get("role") else row.get("id") in verified,
            "ms": number(row.get("latency_ms")),
            "low": number(row.get("low_ms")),
            "high": number(row.get("high_ms")),
            "valid": row.get("valid"),
            "predicted": number(row.get("predicted_ms")),
            "predicted_low": number(row.get("predicted_low_ms")),
            "predicted_high": number(row.get("predicted_high_ms")),
        }
        for row in results["latency_samples"]
    ]


def _metric(entry: Model, name: str, device: str | None, of_task: str) -> float | None:
    if device is not None:
        found = (entry.get("devices") or {}).get(device) or {}
        return number(found.get(name))
    if name == "size_kib":
        return number(entry.get("size_kib"))
    if name == of_task:
        return number(entry.get("validation_accuracy"))
    return number((entry.get("costs") or {}).get(name))


def thin(rows: list[Any], most: int) -> list[Any]:
    """Return at most ``most`` rows, evenly spaced, the first and last among them."""
    if len(rows) <= most:
        return list(rows)
    step = (len(rows) - 1) / (most - 1)
    return [rows[round(i * step)] for i in range(most)]


def rounded(value: Any) -> float | None:
    """Six significant digits are more than a chart shows and keep the page small."""
    value = number(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value
