"""One model: its layers, and the metric of each class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from nas.record.result_types import Model
from nas.report.charts.front import metric_axis
from nas.report.charts.spec import Bars, BarSeries, Block, Layer, Layers, NothingRecorded
from nas.report.results import is_share, number
from nas.report.rows import Rows, each_word
from search_spaces.errors import InputError

MOST_CLASSES = 20
"""Classes drawn at most; of more, the worst."""

_FIELDS = tuple(one.name for one in fields(Layer))


def entry_of(rows: Rows, model: str) -> Model:
    """Return a verified model by its id, or the knee of the front.

    Raises:
        InputError: there is no knee, or not this model.
    """
    results = rows.results
    for entry in (*results.front, *results.rejected):
        if entry.id == model or (model == "knee" and entry.knee):
            return entry
    ids = ", ".join(entry.id for entry in results.front[:20]) or "none, the front is empty"
    raise InputError(f"there is no model {model!r} on the front (models: {ids})")


def architecture(rows: Rows, model: str = "knee") -> Layers:
    """Return a model layer by layer: channels, kernels and bits.

    Args:
        rows: of the run.
        model: id, or ``knee``.

    Raises:
        InputError: no such model.
        NothingRecorded: its layers were not recorded.
    """
    entry = entry_of(rows, model)
    plan = entry.plan or {}
    blocks = tuple(_block(one) for one in plan.get("blocks") or [])
    if not any(block.layers for block in blocks):
        raise NothingRecorded(f"the layers of {entry.id} were not recorded")
    return Layers(
        title=f"Layers of {entry.id}",
        description=f"Layers of {entry.id} from input to output; the table below it says the same",
        input_shape=tuple(plan.get("input_shape") or ()),
        blocks=blocks,
    )


def accuracy_by_class(rows: Rows, model: str = "knee") -> Bars:
    """Return the test metric of a model for each class, label or output.

    Raises:
        InputError: no such model.
        NothingRecorded: no values by class were recorded.
    """
    entry = entry_of(rows, model)
    found = {str(name): number(value) for name, value in (entry.per_class or {}).items()}
    each = each_word(rows.results)
    if not found:
        raise NothingRecorded(f"the {rows.metric} of {entry.id} by {each} was not recorded")
    names = list(found)
    notes: tuple[str, ...] = ()
    if len(names) > MOST_CLASSES:
        worst = sorted(names, key=lambda name: _rank(found[name], higher=rows.higher))
        names = worst[:MOST_CLASSES]
        notes = (f"The {MOST_CLASSES} worst of {len(found)}.",)
    values = tuple(found[name] for name in names)
    labels = tuple("–" if value is None else rows.value_text(value) for value in values)
    return Bars(
        title=f"Test {rows.metric} by {each}, {entry.id}",
        description=", ".join(f"{n} {text}" for n, text in zip(names, labels, strict=True)),
        category=each,
        categories=tuple(names),
        value=metric_axis(rows, "test"),
        series=(BarSeries(f"test {rows.metric}", "front", values, labels=labels),),
        notes=notes,
        # A share fills its bar at 1; other metrics are drawn against the largest.
        whole=1.0 if is_share(rows.results) else None,
    )


def tells_classes(rows: Rows) -> bool:
    """Whether there is a metric of each class to tell, or should be.

    A task without classes has none. Runs of older versions do not say whether theirs has, so
    that what they recorded decides.
    """
    if any(entry.per_class for entry in rows.results.front):
        return True
    return bool((rows.results.task or {}).get("has_classes"))


def _rank(value: float | None, *, higher: bool) -> float:
    if value is None:
        return float("inf")
    return value if higher else -value


def _block(block: Mapping[str, Any]) -> Block:
    return Block(
        name=str(block.get("name") or ""),
        kind=str(block.get("kind") or ""),
        residual=bool(block.get("residual")),
        layers=tuple(
            Layer(**{name: layer[name] for name in _FIELDS if name in layer})
            for layer in block.get("layers") or []
        ),
    )
