"""The data behind the charts: the content of ``results.json``, trimmed and completed.

Everything statistical happens here, so that the script of the page only draws.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from typing import Any

from nas.record.result_types import Model, Results
from nas.report.importance import Importance, choice_importance, family_importance
from nas.report.results import (
    device_names,
    is_accuracy,
    is_share,
    metric_of,
    metric_unit,
    number,
)

MOST_DOTS = 4000
"""Evaluations drawn at most; more would make the page slow and large. The page says so."""

MOST_PLAN_BYTES = 1_200_000
"""Size of the layers of rejected models in the page; further models keep their figures only."""

MOST_STEPS = 600
"""Training records drawn at most."""

MOST_RANKED = 1000
"""Evaluations the importance of choices rests on at most, evenly spaced over the search."""

MOST_CHOICES = 24
"""Choices listed by importance."""

LAYER_FIELDS = (
    "name",
    "role",
    "in_channels",
    "out_channels",
    "kernel",
    "stride",
    "groups",
    "in_size",
    "out_size",
    "weight_bits",
    "activation_bits",
    "activation",
    "kind",
    "weight_format",
)


def build_payload(results: Results) -> dict[str, Any]:
    """Return what the page embeds, JSON without non-finite numbers.

    Args:
        results: as :func:`nas.report.results.complete` gives them.
    """
    metric, higher = metric_of(results)
    images = test_images(results)
    names = device_names(results)
    runtimes = {str(d.get("name")): d for d in results["devices"] if isinstance(d, Mapping)}
    samples = sample_rows(results)
    return _finite(
        {
            "metric": {
                "name": metric,
                "higher": higher,
                "percent": is_share(results),
                "unit": metric_unit(results),
                "each": each_word(results),
                "classes": is_accuracy(results),
            },
            "devices": [
                {
                    "name": name,
                    "runtime": runtimes.get(name, {}).get("runtime"),
                    "version": runtimes.get(name, {}).get("runtime_version"),
                }
                for name in names
            ],
            "budgets": budgets(results),
            "models": model_rows(results, images if is_accuracy(results) else None),
            "layer_fields": LAYER_FIELDS,
            "evaluations": evaluation_rows(results, metric, samples),
            "hypervolume": results.get("hypervolume"),
            "samples": _thin(samples, MOST_DOTS),
            "latency_fit": {
                name: {
                    "held_out": latency_fit(samples, name, held_out=True),
                    "others": latency_fit(samples, name, held_out=False),
                }
                for name in names
            },
            "accuracy_predictor": results["accuracy_predictor"],
            "training": _thin(results["training"], MOST_STEPS),
            "importance": importance_rows(results, metric, names),
        }
    )  # fmt: skip


def each_word(results: Results) -> str:
    """Return what the metric is given for one by one: ``class``, ``label`` or ``output``."""
    targets = (results.get("task") or {}).get("targets", "classes")
    return {"labels": "label", "values": "output"}.get(targets, "class")


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


def latency_fit(
    samples: list[dict[str, Any]], device: str, *, held_out: bool
) -> dict[str, Any] | None:
    """Return how well latency was predicted on a device, over valid measured samples.

    Args:
        samples: of the payload.
        device: name.
        held_out: over the models measured after the predictor was fitted, or over the other
            samples, which it may have been fitted on.

    ``mape``: mean absolute error as a fraction of the measured value; ``inside``: share of
    measured values inside the predicted 95 % interval; ``None`` without a pair.
    """
    pairs = [
        s
        for s in samples
        if s["held_out"] is held_out
        and s["device"] == device
        and s["valid"] is not False
        and s["ms"]
        and s["predicted"]
    ]
    if not pairs:
        return None
    bounded = [s for s in pairs if s["predicted_low"] is not None and s["predicted_high"]]
    return {
        "n": len(pairs),
        "mape": sum(abs(s["predicted"] / s["ms"] - 1) for s in pairs) / len(pairs),
        "spearman": _spearman([s["ms"] for s in pairs], [s["predicted"] for s in pairs]),
        "inside": sum(s["predicted_low"] <= s["ms"] <= s["predicted_high"] for s in bounded)
        / len(bounded)
        if bounded
        else None,
        "bounded": len(bounded),
    }


def model_rows(results: Results, images: int | None) -> list[dict[str, Any]]:
    """Return the verified models, those of the front first, as the page draws them.

    Args:
        images: of the test split, for the interval of an accuracy; None for no interval.
    """
    models = [_model(entry, "front", images) for entry in results["front"]]
    left = MOST_PLAN_BYTES
    for entry in results["rejected"]:
        model = _model(entry, "rejected", None)
        left -= len(json.dumps(model["plan"]))
        if left < 0 and model["plan"] is not None:
            model.update(plan=None, plan_left_out=True)
        models.append(model)
    return models


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
        "plan": _plan(entry.get("plan")),
    }


def _plan(plan: Any) -> dict[str, Any] | None:
    if not isinstance(plan, Mapping) or not plan.get("blocks"):
        return None
    return {
        "input_shape": plan.get("input_shape"),
        "blocks": [
            {
                "name": block.get("name"),
                "kind": block.get("kind"),
                "residual": bool(block.get("residual")),
                "layers": [
                    [layer.get(field) for field in LAYER_FIELDS]
                    for layer in block.get("layers") or []
                ],
            }
            for block in plan["blocks"]
        ],
    }


def evaluation_rows(results: Results, metric: str, samples: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the evaluations of the search, column by column.

    Args:
        metric: name of the task's metric.
        samples: of :func:`sample_rows`; they tell measured latencies from predicted ones.
    """
    rows = results["evaluations"]
    shown = _thin(rows, MOST_DOTS)
    measured = {(s["device"], s["id"]): s["ms"] for s in samples}
    names = list(dict.fromkeys(name for row in shown for name in row.get("metrics") or {}))
    axes = _axes(shown)
    return {
        "total": len(rows),
        "number": [row.get("number") for row in shown],
        "id": [str(row.get("id")) for row in shown],
        "feasible": [row.get("feasible") for row in shown],
        "accuracy": [_evaluated_accuracy(row, metric) for row in shown],
        "metrics": {
            name: [_short((row.get("metrics") or {}).get(name)) for row in shown] for name in names
        },
        "sources": {
            name: [_source(row, name, measured) for row in shown]
            for name in names
            if name.startswith("latency_ms")
        },
        "choices": {name: [(row.get("choices") or {}).get(name) for row in shown] for name in axes},
    }


def _evaluated_accuracy(row: dict[str, Any], metric: str) -> float | None:
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


def importance_rows(results: Results, metric: str, names: list[str]) -> dict[str, Any]:
    """Return what each choice explains of the metric, of the latencies and of the sizes.

    Args:
        metric: name of the task's metric.
        names: of the devices.
    """
    rows = [row for row in results["evaluations"] if row.get("choices")]
    rows = _thin(rows, MOST_RANKED)
    if not rows:
        return {}
    series = {metric: [_evaluated_accuracy(row, metric) for row in rows]}
    for name in [*(f"latency_ms[{device}]" for device in names), "weights_kib", "macs"]:
        values = [number((row.get("metrics") or {}).get(name)) for row in rows]
        if sum(value is not None for value in values) > len(rows) / 2:
            series[name] = values
    choices = [row["choices"] for row in rows]
    return {
        name: {
            "families": [_importance_row(item) for item in family_importance(choices, values)],
            "choices": [
                _importance_row(item) for item in choice_importance(choices, values)[:MOST_CHOICES]
            ],
        }
        for name, values in series.items()
    }


def _importance_row(item: Importance) -> dict[str, Any]:
    return {
        "choice": item.choice,
        "explained": round(item.explained, 4),
        "chance": round(item.chance, 4),
        "active": item.active,
        "levels": [[str(option), count, mean] for option, count, mean in item.levels],
    }


def _metric(entry: Model, name: str, device: str | None, of_task: str) -> float | None:
    if device is not None:
        found = (entry.get("devices") or {}).get(device) or {}
        return number(found.get(name))
    if name == "size_kib":
        return number(entry.get("size_kib"))
    if name == of_task:
        return number(entry.get("validation_accuracy"))
    return number((entry.get("costs") or {}).get(name))


def _spearman(a: list[float], b: list[float]) -> float | None:
    import numpy as np

    if len(a) < 3 or len(set(a)) < 2 or len(set(b)) < 2:
        return None
    return float(np.corrcoef(_ranks(a), _ranks(b))[0, 1])


def _ranks(values: list[float]) -> list[float]:
    ordered = sorted(values)
    first: dict[float, int] = {}
    for i, value in enumerate(ordered):
        first.setdefault(value, i)
    return [first[value] + (ordered.count(value) - 1) / 2 for value in values]


def _thin(rows: list[Any], most: int) -> list[Any]:
    """Return at most ``most`` rows, evenly spaced, the first and last among them."""
    if len(rows) <= most:
        return list(rows)
    step = (len(rows) - 1) / (most - 1)
    return [rows[round(i * step)] for i in range(most)]


def _short(value: Any) -> float | None:
    """Six significant digits are more than a chart shows and keep the page small."""
    value = number(value)
    return float(f"{value:.6g}") if isinstance(value, float) else value


def _finite(value: Any) -> Any:
    """Replace every number that JSON has no word for by null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(v) for v in value]
    return value
