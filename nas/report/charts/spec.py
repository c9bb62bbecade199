"""What a chart is: frozen data that says what is drawn, and leaves how to who draws it.

There are four kinds of drawings. :class:`XY` has two axes and any marks on them, :class:`Bars` one
bar or several a category, :class:`Parallel` one line a row through many axes, :class:`Layers` a
network layer by layer. Colours and shapes are roles, see :mod:`nas.report.charts.palette`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, TypeAlias

from search_spaces.errors import InputError

Scale = Literal["linear", "log", "auto"]
"""``auto`` is logarithmic where positive values span more than a factor of :data:`WIDE`."""

Format = Literal["number", "count", "percent", "seconds"]
"""How figures are written: as they are, with G and M, times 100, as seconds to hours."""

WIDE = 6.0

Column: TypeAlias = tuple[float | None, ...]


class NothingRecorded(InputError):
    """A run did not record what a chart shows; the message says what is missing."""


@dataclass(frozen=True)
class Axis:
    """One axis.

    Attributes:
        title, unit, note: its label is ``title, unit (note)``.
        scale, format: of its figures.
        shows: values that it shows whatever is drawn.
        numbered: whether figures are written along it.
        offered: whether a reader may choose the scale.
    """

    title: str = ""
    unit: str = ""
    note: str = ""
    scale: Scale = "linear"
    format: Format = "number"
    shows: tuple[float, ...] = ()
    numbered: bool = True
    offered: bool = False

    @property
    def label(self) -> str:
        """What is written along the axis."""
        unit = f", {self.unit}" if self.unit else ""
        return f"{self.title}{unit}" + (f" ({self.note})" if self.note else "")


@dataclass(frozen=True)
class Interval:
    """Ends of an interval of each point, in the units of the axis; None for one without."""

    low: Column
    high: Column


@dataclass(frozen=True)
class Points:
    """Marks at (x, y).

    Attributes:
        name: in the legend.
        role: colour and shape.
        x, y: (n,), in the units of the axes.
        across, upwards: intervals along x and along y.
        texts: (n,), what is told of each, in lines.
        ids: (n,), the row that each stands for, or None.
        doubted: (n,), whether each is marked with a warning sign.
        labels: (n,), written beside the marks.
        crowd: many small marks, which no one visits one by one.
        toggle: what a reader ticks to see them; empty for marks that always show.
        reach: the least and the most y that the axes must show; None for all.
    """

    kind: ClassVar[str] = "points"
    name: str
    role: str
    x: Column
    y: Column
    across: Interval | None = None
    upwards: Interval | None = None
    texts: tuple[str, ...] = ()
    ids: tuple[str | None, ...] = ()
    doubted: tuple[bool, ...] = ()
    labels: tuple[str, ...] = ()
    crowd: bool = False
    toggle: str = ""
    reach: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        spans = [end for one in (self.across, self.upwards) if one for end in (one.low, one.high)]
        _same_length(self.name, self.x, self.y, *spans)
        _same_length(self.name, self.x, self.texts, self.ids, self.doubted, self.labels, empty=True)


@dataclass(frozen=True)
class Line:
    """A line through (x, y) in their order.

    Attributes:
        name: in the legend; empty for a line that needs no words.
        role: colour and dashes.
        x, y: (n,), in the units of the axes.
        stepped: whether a value holds until the next x.
        marked: whether its points are marked, and told of.
        thin: whether it only leads the eye from mark to mark.
        texts: (n,), what is told of each point; empty for its figures.
        toggle: as of :class:`Points`.
    """

    kind: ClassVar[str] = "line"
    name: str
    role: str
    x: Column
    y: Column
    stepped: bool = False
    marked: bool = False
    thin: bool = False
    texts: tuple[str, ...] = ()
    toggle: str = ""

    def __post_init__(self) -> None:
        _same_length(self.name, self.x, self.y)
        _same_length(self.name, self.x, self.texts, empty=True)


@dataclass(frozen=True)
class Rule:
    """A straight line through the whole chart.

    Attributes:
        name: in the legend.
        role: colour and dashes.
        along: ``x`` or ``y``, the axis on which it stands; ``equal`` for y = x.
        at: where, in the units of the axis.
        label: written beside it.
        reached: whether the axes stretch to show it.
    """

    kind: ClassVar[str] = "rule"
    name: str
    role: str
    along: Literal["x", "y", "equal"]
    at: float | None = None
    label: str = ""
    reached: bool = True


Mark: TypeAlias = Points | Line | Rule


@dataclass(frozen=True)
class XY:
    """A chart with two axes.

    Attributes:
        title: its heading.
        description: for who cannot see it.
        x, y: the axes.
        marks: drawn in this order.
        notes: sentences below it.
        same: whether both axes have one range, so that y = x is the diagonal.
        low: whether it needs less height than others.
    """

    kind: ClassVar[str] = "xy"
    title: str
    description: str
    x: Axis
    y: Axis
    marks: tuple[Mark, ...]
    notes: tuple[str, ...] = ()
    same: bool = False
    low: bool = False


@dataclass(frozen=True)
class BarSeries:
    """One bar a category.

    Attributes:
        name: in the legend where there are several series.
        role: colour.
        values: (categories,), None for no bar.
        labels: (categories,), written at the ends of the bars; empty for none.
        texts: (categories,), what is told of each.
        pale: (categories,), whether a bar counts for little.
        lines: (categories,), a line across each bar; empty for none.
        line_name, line_role: of these lines.
    """

    name: str
    role: str
    values: Column
    labels: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    pale: tuple[bool, ...] = ()
    lines: Column = ()
    line_name: str = ""
    line_role: str = ""

    def __post_init__(self) -> None:
        _same_length(
            self.name, self.values, self.labels, self.texts, self.pale, self.lines, empty=True
        )


@dataclass(frozen=True)
class Bars:
    """Bars, category by category.

    Attributes:
        title, description, notes: as of :class:`XY`.
        category: what the categories are.
        categories: their names.
        value: axis of the values; it begins at 0.
        series: of bars.
        whole: the value that a full bar stands for; None for the largest.
        upright: whether bars stand, for few categories with several series.
    """

    kind: ClassVar[str] = "bars"
    title: str
    description: str
    category: str
    categories: tuple[str, ...]
    value: Axis
    series: tuple[BarSeries, ...]
    notes: tuple[str, ...] = ()
    whole: float | None = None
    upright: bool = False

    def __post_init__(self) -> None:
        for one in self.series:
            _same_length(one.name, self.categories, one.values)


@dataclass(frozen=True)
class Dimension:
    """One axis of :class:`Parallel`: its axis, and the value of each row, None for none."""

    axis: Axis
    values: Column


@dataclass(frozen=True)
class Parallel:
    """One line a row through many axes (Inselberg 1985).

    Attributes:
        title, description, notes: as of :class:`XY`.
        dimensions: the axes, in order; the last may colour the lines.
        name, role: of the lines.
        marked: (rows,), whether a line stands out; ``marked_name``, ``marked_role``: of those.
        ids, texts: (rows,), of the lines that stand out; None and empty of others.
    """

    kind: ClassVar[str] = "parallel"
    title: str
    description: str
    dimensions: tuple[Dimension, ...]
    name: str
    role: str
    marked: tuple[bool, ...]
    marked_name: str
    marked_role: str
    ids: tuple[str | None, ...]
    texts: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _same_length(self.title, self.marked, self.ids, self.texts)
        for one in self.dimensions:
            _same_length(one.axis.title, self.marked, one.values)


@dataclass(frozen=True)
class Layer:
    """One layer, as :class:`search_spaces.plan.LayerPlan` has it; None for what is not known."""

    name: str | None = None
    role: str | None = None
    in_channels: int | None = None
    out_channels: int | None = None
    kernel: int | None = None
    stride: int | None = None
    groups: int | None = None
    in_size: int | None = None
    out_size: int | None = None
    weight_bits: int | None = None
    activation_bits: int | None = None
    activation: str | None = None
    kind: str | None = None
    weight_format: str | None = None
    sparsity: str | None = None


@dataclass(frozen=True)
class Block:
    """Layers that belong together; ``residual``: whether their input is added to their output."""

    name: str
    kind: str
    residual: bool
    layers: tuple[Layer, ...]


@dataclass(frozen=True)
class Layers:
    """A network layer by layer: a bar a layer, as long as its channels, coloured by its bits.

    Attributes:
        title, description, notes: as of :class:`XY`.
        input_shape: of the network, without the batch.
        blocks: from input to output.
    """

    kind: ClassVar[str] = "layers"
    title: str
    description: str
    input_shape: tuple[int, ...]
    blocks: tuple[Block, ...]
    notes: tuple[str, ...] = ()


Drawing: TypeAlias = XY | Bars | Parallel | Layers


@dataclass(frozen=True)
class Choice:
    """What a reader chooses from: a label, and the key and words of each option."""

    label: str
    options: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class Panel:
    """A place of the page: its drawings, and the choices that say which one is shown.

    Attributes:
        choices: asked for above the chart where there is more than one option.
        drawings: by one key a choice; a text says why there is no drawing. Where there are no
            choices the key is (), or the id of the row that is selected.
    """

    choices: tuple[Choice, ...] = ()
    drawings: Mapping[tuple[str, ...], Drawing | str] = field(default_factory=dict)


def logarithmic(scale: Scale, values: Iterable[float | None]) -> bool:
    """Whether an axis with these values is drawn with a logarithmic scale."""
    known = [value for value in values if value is not None]
    if scale == "linear" or not known or min(known) <= 0:
        return False
    return scale == "log" or max(known) / min(known) > WIDE


def along(chart: XY, axis: Literal["x", "y"]) -> list[float]:
    """Return every value that an axis of a chart must show, in its units."""
    found: list[float | None] = [*(chart.x if axis == "x" else chart.y).shows]
    for mark in chart.marks:
        if isinstance(mark, Rule):
            found += [mark.at] if mark.along == axis and mark.reached else []
        elif isinstance(mark, Points) and axis == "y" and mark.reach is not None:
            found += mark.reach
        else:
            found += mark.x if axis == "x" else mark.y
            span = None if isinstance(mark, Line) else (
                mark.across if axis == "x" else mark.upwards
            )  # fmt: skip
            found += (*span.low, *span.high) if span else ()
    return [value for value in found if value is not None and math.isfinite(value)]


def _same_length(name: str, first: tuple[Any, ...], *others: tuple[Any, ...],
                 empty: bool = False) -> None:  # fmt: skip
    for other in others:
        if len(other) != len(first) and not (empty and not other):
            raise ValueError(f"{name!r} has {len(first)} values, and {len(other)} beside them")
