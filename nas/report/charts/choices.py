"""Which choices of a space matter: shares of the variance, and every evaluation axis by axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from nas.report.charts.front import cost_axis, latency_of, metric_axis
from nas.report.charts.spec import (
    Axis,
    Bars,
    BarSeries,
    Dimension,
    NothingRecorded,
    Parallel,
    Scale,
)
from nas.report.charts.text import short, tally
from nas.report.importance import Importance, choice_importance, family_importance
from nas.report.results import number
from nas.report.rows import Rows, evaluated_accuracy, thin
from search_spaces.errors import InputError

LEVELS = {"families": "kind of choice", "choices": "single choice"}
MOST_RANKED = 1000
"""Evaluations the importance of choices rests on at most, evenly spaced over the search."""
MOST_BARS = 15
_KINDS = {"w": "w (weight bits)", "a": "a (activation bits)"}
_COSTS = ("weight_bits_mean", "activation_bits_mean", "weights_kib")
"""Costs beside latencies that have an axis of their own."""


def ranked_metrics(rows: Rows) -> dict[str, list[float | None]]:
    """Return what choices can be ranked for: the metric, latencies and sizes, by evaluation.

    Those count that more than half of the evaluations with choices have; at most
    :data:`MOST_RANKED` evaluations.
    """
    chosen = _with_choices(rows)
    if not chosen:
        return {}
    found = {rows.metric: [evaluated_accuracy(row, rows.metric) for row in chosen]}
    for name in [*map(latency_of, rows.devices), "weights_kib", "macs"]:
        values = [number((row.get("metrics") or {}).get(name)) for row in chosen]
        if sum(value is not None for value in values) > len(chosen) / 2:
            found[name] = values
    return found


def importance(
    rows: Rows, *, metric: str | None = None, by: str = "families", most: int = MOST_BARS
) -> Bars:
    """Return the share of a metric's variance that each choice explains alone.

    The line across a bar is what chance reaches in 5 % of shuffles; see
    :mod:`nas.report.importance` for the method.

    Args:
        rows: of the run.
        metric: the task's metric (default), ``latency_ms[DEVICE]``, ``weights_kib`` or ``macs``.
        by: ``families`` (kinds of choice) or ``choices``.
        most: bars.

    Raises:
        InputError: an unknown metric or level.
        NothingRecorded: evaluations without choices, or none that explains anything.
    """
    if by not in LEVELS:
        raise InputError(f"by={by!r} is not one of {', '.join(LEVELS)}")
    found = ranked_metrics(rows)
    metric = rows.metric if metric is None else metric
    if found and metric not in found:
        raise InputError(f"no importance for {metric!r} (known for: {', '.join(found)})")
    choices = [row["choices"] for row in _with_choices(rows)]
    rank = family_importance if by == "families" else choice_importance
    kept = rank(choices, found[metric]) if found else []
    if by == "choices":
        kept = [item for item in kept if item.explained > 0]
    kept = kept[:most]
    if not kept:
        raise NothingRecorded(
            "the choices of the evaluations were not recorded, or none explains the metric"
        )
    names = tuple(
        _KINDS.get(item.choice, item.choice) if by == "families" else item.choice for item in kept
    )
    told = [f"{name} {100 * item.explained:.0f} %" for name, item in zip(names, kept, strict=True)]
    each = "kind of choice (by its mean over the layers)" if by == "families" else "choice"
    notes = [
        f"Share of the variance of {metric} among the evaluated architectures that each {each} "
        "explains alone (epsilon squared). The line across a bar is what chance reaches in 5 % of "
        "shuffles; paler bars stay under it, and of choices without effect about one in twenty "
        "passes it. The search visits good regions more often, so this describes the evaluated "
        "architectures, not the whole space."
    ]
    sources = rows.evaluations["sources"].get(metric)
    if sources:
        notes.append(f"Latencies are {tally(sources)}.")
    return Bars(
        title=f"What explains {metric}",
        description=f"Share of the variance of {metric}: {', '.join(told)}",
        category="choice",
        categories=names,
        value=Axis("share of the variance", "%", format="percent"),
        series=(
            BarSeries(
                "explained",
                "front",
                tuple(round(item.explained, 4) for item in kept),
                labels=tuple(f"{100 * item.explained:.1f} %" for item in kept),
                texts=tuple(_told(rows, item, name, metric)
                            for item, name in zip(kept, names, strict=True)),
                pale=tuple(item.explained <= item.chance for item in kept),
                lines=tuple(round(item.chance, 4) for item in kept),
                line_name="chance (95 %)",
                line_role="chance",
            ),
        ),
        notes=tuple(notes),
    )  # fmt: skip


def parallel_coordinates(rows: Rows) -> Parallel:
    """Return every evaluation as a line through its choices, costs and metric.

    Raises:
        NothingRecorded: no evaluations, or fewer than two axes that vary.
    """
    found = rows.evaluations
    dimensions = [Dimension(Axis(name), tuple(values)) for name, values in found["choices"].items()]
    names = [*_COSTS, *map(latency_of, rows.devices)]
    for name in names:
        if name in found["metrics"]:
            scale: Scale = "linear" if name.endswith("bits_mean") else "log"
            axis = Axis(name, scale=scale, format=cost_axis(rows, name).format)
            dimensions.append(Dimension(axis, tuple(found["metrics"][name])))
    axis = Axis(rows.metric, format=metric_axis(rows, "validation").format)
    dimensions.append(Dimension(axis, tuple(found["accuracy"])))
    dimensions = [d for d in dimensions if len({v for v in d.values if v is not None}) > 1]
    if not found["number"]:
        raise NothingRecorded("the evaluations were not recorded")
    if len(dimensions) < 2:
        raise NothingRecorded("the evaluations have fewer than two axes that vary")
    told = {m["id"]: m["told"] for m in rows.models if m["kind"] == "front"}
    # An architecture may have been evaluated twice; its first line stands for it.
    first: dict[str, int] = {}
    for i, id in enumerate(found["id"]):
        first.setdefault(id, i)
    marked = tuple(id in told and first[id] == i for i, id in enumerate(found["id"]))
    lines = list(zip(found["id"], marked, strict=True))
    notes = [f"{rows.metric} is of the validation split."]
    sources = [f"{name}: {tally(each)}" for name, each in found["sources"].items()]
    if sources:
        notes.append(f"Latencies are {'; '.join(sources)}.")
    return Parallel(
        title="All evaluations, axis by axis",
        description="One line an evaluation, through "
        + ", ".join(d.axis.title for d in dimensions),
        dimensions=tuple(dimensions),
        name="evaluation",
        role="evaluation",
        marked=marked,
        marked_name="on the front",
        marked_role="front",
        ids=tuple(id if on else None for id, on in lines),
        texts=tuple(told[id] if on else "" for id, on in lines),
        notes=tuple(notes),
    )


def _with_choices(rows: Rows) -> Sequence[Any]:
    return thin([row for row in rows.results.evaluations if row.choices], MOST_RANKED)


def _told(rows: Rows, item: Importance, name: str, metric: str) -> str:
    lines = [
        f"{name} explains {100 * item.explained:.1f} % (chance: up to {100 * item.chance:.1f} %)",
        f"over {item.active} architectures",
        f"mean of {metric}:",
    ]
    for option, count, mean in item.levels:
        value = rows.value_text(mean) if metric == rows.metric else short(mean)
        lines.append(f"{option}: {value} ({count})")
    return "\n".join(lines)
