"""The charts of the report's page: which there are, and what a reader may choose in each."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from nas.report.charts import choices, front, latency, model, search
from nas.report.charts.encode import Pool
from nas.report.charts.spec import Choice, Drawing, NothingRecorded, Panel
from nas.report.rows import Rows

MOST_LAYER_BYTES = 1_200_000
"""Size of the layers of rejected models in the page; further models keep their figures only."""


def page_panels(rows: Rows) -> dict[str, Panel]:
    """Return the panels of the page by name; ``layers`` and ``classes`` are of the chosen model."""
    panels = {
        "front": _front(rows),
        "layers": Panel(drawings=_layers(rows)),
        "latency": _latency(rows),
        "hypervolume": _single(search.hypervolume, rows),
        "predictor": _single(search.accuracy_predictor, rows),
        "training": _single(search.training, rows),
        "importance": _importance(rows),
        "parallel": _single(choices.parallel_coordinates, rows),
    }
    if model.tells_classes(rows):
        panels["classes"] = Panel(
            drawings={
                (entry.id,): _drawn(model.accuracy_by_class, rows, entry.id)
                for entry in rows.results.front
            }
        )
    return panels


def _front(rows: Rows) -> Panel:
    costs, splits = front.costs(rows), front.splits(rows)
    words = {"test": "test split", "validation": "validation split (used by the search)"}
    metric = rows.metric[:1].upper() + rows.metric[1:]
    if not costs:
        return _single(front.front, rows)
    return Panel(
        (
            Choice("Cost", tuple((cost, front.cost_axis(rows, cost).label) for cost in costs)),
            Choice(f"{metric} on the", tuple((split, words[split]) for split in splits)),
        ),
        {
            (cost, split): _drawn(front.front, rows, cost=cost, split=split)
            for cost in costs
            for split in splits
        },
    )


def _latency(rows: Rows) -> Panel:
    devices = rows.devices or [""]
    return Panel(
        (Choice("Device", tuple((name, name) for name in devices)),),
        {
            (name,): _drawn(latency.predicted_vs_measured, rows, device=name or None)
            for name in devices
        },
    )


def _importance(rows: Rows) -> Panel:
    metrics = list(choices.ranked_metrics(rows))
    if not metrics:
        return _single(choices.importance, rows)
    return Panel(
        (
            Choice("Metric", tuple((name, name) for name in metrics)),
            Choice("By", tuple(choices.LEVELS.items())),
        ),
        {
            (name, by): _drawn(choices.importance, rows, metric=name, by=by)
            for name in metrics
            for by in choices.LEVELS
        },
    )


def _layers(rows: Rows) -> dict[tuple[str, ...], Drawing | str]:
    """Return the layers of every model of the front, and of rejected ones while there is room."""
    found: dict[tuple[str, ...], Drawing | str] = {}
    left = MOST_LAYER_BYTES
    for entry in (*rows.results.front, *rows.results.rejected):
        if (entry.id,) in found:
            continue
        if left < 0 and entry.plan:
            found[(entry.id,)] = (
                "The layers of this rejected model were left out to keep the page small; they are "
                "in results.json."
            )
            continue
        drawing = found[(entry.id,)] = _drawn(model.architecture, rows, entry.id)
        if len(found) > len(rows.results.front) and not isinstance(drawing, str):
            left -= len(json.dumps(Pool().encode(drawing)))
    return found


def _single(build: Callable[[Rows], Drawing], rows: Rows) -> Panel:
    return Panel(drawings={(): _drawn(build, rows)})


def _drawn(build: Callable[..., Drawing], *arguments: Any, **options: Any) -> Drawing | str:
    """Return a drawing, or the sentence that says why there is none."""
    try:
        return build(*arguments, **options)
    except NothingRecorded as error:
        text = str(error)
        return text[:1].upper() + text[1:] + "."
