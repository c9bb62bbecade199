"""Fronts: the task's metric against a cost, with intervals, budgets and the knee."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from nas.report.charts.palette import series
from nas.report.charts.spec import (
    XY,
    Axis,
    Format,
    Interval,
    Line,
    Mark,
    NothingRecorded,
    Points,
    Rule,
)
from nas.report.charts.text import short, tally
from nas.report.results import is_share, metric_unit
from nas.report.rows import Rows
from search_spaces.errors import InputError

Row = Mapping[str, Any]

SPLITS = ("test", "validation")
WALK = "Use the arrow keys to go from mark to mark."
COSTS: dict[str, tuple[str, str, Format]] = {
    "weights_kib": ("packed weights", "KiB", "number"),
    "size_kib": ("model file", "KiB", "number"),
    "macs": ("MACs", "", "count"),
    "bops": ("bit operations", "", "count"),
    "parameters": ("parameters", "", "count"),
    "weight_bits_mean": ("mean weight bits", "", "number"),
    "activation_bits_mean": ("mean activation bits", "", "number"),
}
"""Costs beside latencies -> title, unit and format of their axis, in the order of the page."""

_FARTHEST = 0.1
"""Share of the evaluations, the worst ones, that the axis of the metric need not show."""


def front(
    rows: Rows, *, cost: str | None = None, split: str = "test", evaluations: bool = True
) -> XY:
    """Return the front of a run: the metric against a cost, 95 % intervals, budgets, the knee.

    Args:
        rows: of the run.
        cost: ``latency_ms[DEVICE]``, ``size_kib`` or a cost such as ``weights_kib`` or ``macs``;
            by default the latency on the first device.
        split: ``test``, or ``validation``, which guided the search.
        evaluations: with the evaluations of the search as small dots.

    Raises:
        InputError: an unknown split.
        NothingRecorded: no verified model has the cost.
    """
    cost = default_cost(rows) if cost is None else cost
    models = _models(rows, cost, split)
    members = [m for m in models if m["kind"] == "front"]
    x, y = cost_axis(rows, cost, offered=True), metric_axis(rows, split)
    metric = rows.metric
    marks: list[Mark] = []
    if evaluations:
        marks += _evaluations(rows, cost)
    marks += budget_rules(rows, cost)
    standing = [m for m in members if m["pareto"]]
    if standing:
        marks.append(_line(rows, standing, cost, _value_on(split), "front"))
    marks += _family(rows, cost, split)
    validation = f"validation {metric}"
    for role, name, chosen in (
        ("rejected", f"verified and rejected ({validation})",
         [m for m in models if m["kind"] == "rejected"]),
        ("beaten", "on the front by validation, beaten by the final figures",
         [m for m in members if not m["pareto"]]),
        ("front", f"on the front ({split} {metric})", [m for m in standing if not m["knee"]]),
        ("knee", "knee of the front", [m for m in standing if m["knee"]]),
    ):  # fmt: skip
        if chosen:
            marks.append(_points(chosen, cost, split, name, role))
    return XY(
        title=f"Front of {rows.results.name or 'run'}",
        description=f"Front: {y.title} against {x.label}. {WALK}",
        x=x,
        y=y,
        marks=tuple(marks),
        notes=tuple(_notes(rows, models, cost, split, evaluations=evaluations)),
    )


def fronts(
    runs: Mapping[str, Rows], *, cost: str | None = None, split: str = "test", budget: bool = True
) -> XY:
    """Return the fronts of several runs in one chart.

    Args:
        runs: name -> rows of a run; the runs may be of other devices or budgets.
        cost: as for :func:`front`; by default the latency on the first device of the first run.
        split: ``test`` or ``validation``.
        budget: with each run's budget on the cost, in the colour of the run.

    Raises:
        InputError: no runs, or an unknown split.
        NothingRecorded: a run's front does not have the cost.
    """
    if not runs:
        raise InputError("give at least one run to draw")
    first = next(iter(runs.values()))
    cost = default_cost(first) if cost is None else cost
    marks: list[Mark] = []
    for i, (name, rows) in enumerate(runs.items()):
        members = [m for m in _models(rows, cost, split) if m["kind"] == "front"]
        standing = [m for m in members if m["pareto"]]
        if standing:
            marks.append(_line(rows, standing, cost, _value_on(split), series(i)))
        marks.append(_points(members, cost, split, name, series(i)))
        if budget:
            marks += budget_rules(rows, cost, role=series(i), of=f" of {name}")
    x, y = cost_axis(first, cost), metric_axis(first, split)
    return XY(
        title="Fronts",
        description=f"Fronts of {', '.join(runs)}: {y.title} against {x.label}. {WALK}",
        x=x,
        y=y,
        marks=tuple(marks),
    )


def devices(rows: Rows, *, split: str = "test") -> XY:
    """Return the front of a run against its latency on each of its devices, one series each.

    Raises:
        InputError: an unknown split.
        NothingRecorded: a run without a device, or no model with a latency on one.
    """
    if not rows.devices:
        raise NothingRecorded("the run has no device")
    marks: list[Mark] = []
    for i, device in enumerate(rows.devices):
        cost = latency_of(device)
        members = [m for m in _models(rows, cost, split) if m["kind"] == "front"]
        marks.append(_points(members, cost, split, f"{device} ({rows.source(device)})", series(i)))
    y = metric_axis(rows, split)
    return XY(
        title="The front on each device",
        description=f"The front on {', '.join(rows.devices)}: {y.title} against latency. {WALK}",
        x=Axis("latency", "ms", scale="auto"),
        y=y,
        marks=tuple(marks),
    )


def latency_of(device: str) -> str:
    """Return the name of the latency on a device among the metrics."""
    return f"latency_ms[{device}]"


def device_of(cost: str) -> str | None:
    """Return the device that a latency is of; None for another cost."""
    return cost[11:-1] if cost.startswith("latency_ms[") and cost.endswith("]") else None


def costs(rows: Rows) -> list[str]:
    """Return the costs that a front can be drawn against, latencies first."""
    found = [latency_of(name) for name in rows.devices]
    return found + [c for c in COSTS if any(cost_of(m, c) is not None for m in rows.models)]


def splits(rows: Rows) -> list[str]:
    """Return the splits on which models of the front have the metric, the test split first."""
    members = [m for m in rows.models if m["kind"] == "front"]
    return [s for s in SPLITS if any(m[s] is not None for m in members)] or ["validation"]


def default_cost(rows: Rows) -> str:
    """Return the latency on the first device, or the weights where there is no device."""
    return latency_of(rows.devices[0]) if rows.devices else "weights_kib"


def cost_axis(rows: Rows, cost: str, *, offered: bool = False) -> Axis:
    """Return the axis of a cost."""
    device = device_of(cost)
    if device is not None:
        return Axis(
            f"latency on {device}", "ms", rows.runtime(device), scale="auto", offered=offered
        )
    title, unit, form = COSTS.get(cost, (cost, "", "number"))
    return Axis(title, unit, scale="auto", format=form, offered=offered)


def metric_axis(rows: Rows, split: str) -> Axis:
    """Return the axis of the task's metric on a split."""
    if is_share(rows.results):
        return Axis(f"{split} {rows.metric}", "%", format="percent")
    return Axis(f"{split} {rows.metric}", metric_unit(rows.results))


def cost_of(model: Row, cost: str) -> float | None:
    """Return a cost of a verified model, or None."""
    device = device_of(cost)
    if device is not None:
        return (model["devices"].get(device) or {}).get("ms")
    return model["size_kib"] if cost == "size_kib" else model["costs"].get(cost)


def budget_rules(
    rows: Rows, cost: str, *, role: str = "budget", of: str = ""
) -> list[Rule]:  # fmt: skip
    """Return the budgets on a cost, and those on the metric, as lines."""
    rules = []
    for one in rows.budgets:
        if one["bound"] is None:
            continue
        label = f"budget{of} {'≤' if one['upper'] else '≥'} {short(one['bound'])}"
        if one["metric"] == cost:
            rules.append(Rule("" if of else "budget", role, "x", one["bound"], label))
        elif one["name"] == rows.metric:
            rules.append(Rule("budget", role, "y", one["bound"], label, reached=False))
    return rules


def _value_on(split: str) -> Callable[[Row], Any]:
    """Return what gives the metric of a model that is drawn on a split."""
    # A rejected model never saw the test images; it keeps the figure that rejected it.
    return lambda m: m["test"] if split == "test" and m["kind"] == "front" else m["validation"]


def _models(rows: Rows, cost: str, split: str) -> Sequence[Row]:
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    value = _value_on(split)
    models = [m for m in rows.models if cost_of(m, cost) is not None and value(m) is not None]
    if not models:
        known = [latency_of(name) for name in rows.devices] + ["size_kib"]
        known += sorted({name for m in rows.models for name in m["costs"]})
        raise NothingRecorded(
            f"no verified model with both a {split} {rows.metric} and {cost!r} was recorded "
            f"(costs of this run: {', '.join(known)})"
        )
    return models


def _points(models: Sequence[Row], cost: str, split: str, name: str, role: str) -> Points:
    value, device = _value_on(split), device_of(cost)
    across = upwards = None
    if device is not None:
        found = [m["devices"][device] for m in models]
        across = Interval(tuple(d["low"] for d in found), tuple(d["high"] for d in found))
    if split == "test" and any(m["test_low"] is not None for m in models):
        upwards = Interval(
            tuple(m["test_low"] for m in models), tuple(m["test_high"] for m in models)
        )
    return Points(
        name,
        role,
        tuple(cost_of(m, cost) for m in models),
        tuple(value(m) for m in models),
        across,
        upwards,
        texts=tuple(m["told"] for m in models),
        ids=tuple(m["id"] for m in models),
        doubted=tuple(_invalid(m, device) for m in models),
    )


def _invalid(model: Row, device: str | None) -> bool:
    return device is not None and model["devices"][device]["valid"] is False


def _line(
    rows: Rows, models: Iterable[Row], cost: str, value: Callable[[Row], Any], role: str
) -> Line:
    """Join the models that nothing beats in the two quantities drawn.

    With three objectives others are on the front too; a line through all would zigzag.
    """
    sign = 1 if rows.higher else -1
    kept: list[tuple[float, float]] = []
    points = [(cost_of(m, cost) or 0.0, value(m)) for m in models]
    for x, y in sorted(points, key=lambda point: (point[0], -sign * point[1])):
        if not kept or sign * (y - kept[-1][1]) > 0:
            kept.append((x, y))
    return Line("", role, tuple(x for x, _ in kept), tuple(y for _, y in kept), thin=True)


def _family(rows: Rows, cost: str, split: str) -> list[Mark]:
    """Return the networks made by hand, where ``nas study value`` was done."""
    chosen = [
        m for m in rows.family if cost_of(m, cost) is not None and m[split] is not None
    ]  # fmt: skip
    if not chosen:
        return []
    toggle = "show networks made by hand"
    line = _line(rows, chosen, cost, lambda m: m[split], "family")
    texts = []
    for m in chosen:
        lines = [m["id"], *(f"{s} {rows.metric} {rows.value_text(m[s])}" for s in SPLITS)]
        lines.append(f"{cost_axis(rows, cost).label} {short(cost_of(m, cost))}")
        lines += [f"mean of {m['seeds']} trainings"] if m["seeds"] > 1 else []
        texts.append("\n".join(lines))
    points = Points(
        f"made by hand, 8 bits, trained in the same time ({split} {rows.metric})",
        "family",
        tuple(cost_of(m, cost) for m in chosen),
        tuple(m[split] for m in chosen),
        texts=tuple(texts),
        toggle=toggle,
    )
    return [Line("", "family", line.x, line.y, thin=True, toggle=toggle), points]


def _evaluations(rows: Rows, cost: str) -> list[Mark]:
    """Return the evaluations of the search; the axis follows all but the worst of them."""
    found = rows.evaluations
    xs, ys = found["metrics"].get(cost), found["accuracy"]
    chosen = [] if xs is None else [
        i for i in range(len(ys)) if xs[i] is not None and ys[i] is not None
    ]  # fmt: skip
    if xs is None or not chosen:
        return []
    ordered = sorted((ys[i] for i in chosen), reverse=not rows.higher)
    kept = ordered[int(len(ordered) * _FARTHEST) :]
    return [
        Points(
            f"search evaluation (validation {rows.metric})",
            "evaluation",
            tuple(xs[i] for i in chosen),
            tuple(ys[i] for i in chosen),
            texts=tuple(rows.evaluation_texts[i] for i in chosen),
            crowd=True,
            toggle="show search evaluations",
            reach=(min(kept), max(kept)),
        )
    ]


def _notes(rows: Rows, models: Sequence[Row], cost: str, split: str, *,
           evaluations: bool) -> Iterable[str]:  # fmt: skip
    device, found = device_of(cost), rows.evaluations
    if device is not None:
        yield (
            f"Latencies of filled and hollow marks were {rows.source(device)} on {device} with "
            f"{rows.runtime(device)}; horizontal bars are their 95 % intervals."
        )
        xs = found["metrics"].get(cost)
        if evaluations and xs is not None and cost in found["sources"]:
            told = [source for source, x, y in zip(found["sources"][cost], xs, found["accuracy"],
                                                   strict=True)
                    if x is not None and y is not None]  # fmt: skip
            yield f"Latencies of the small dots: {tally(told)}."
        if any(_invalid(m, device) for m in models):
            yield "⚠ marks an invalid measurement; its reason is in the table."
    if split == "test" and any(m["test_low"] is not None for m in models):
        yield (
            "Vertical bars are 95 % intervals of the test accuracy for the number of test images "
            "(Wilson)."
        )
    shown = len(found["number"])
    if evaluations and shown < found["total"]:
        yield f"Showing {shown} of {found['total']} evaluations."
