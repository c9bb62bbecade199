"""Any drawing of :mod:`nas.report.charts.spec` as a plotly figure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from nas.report.charts.palette import BITS, GREY, OTHER_BITS, ROLES
from nas.report.charts.spec import (
    XY,
    Axis,
    Bars,
    BarSeries,
    Drawing,
    Interval,
    Layer,
    Layers,
    Line,
    Parallel,
    Points,
    Rule,
    along,
    logarithmic,
)
from nas.report.charts.text import short
from search_spaces.errors import MissingExtraError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

_SYMBOLS = {"triangle": "triangle-up"}
_TICKS = {"percent": "~%", "count": "~s"}
_ROOM = 1.1
"""Factor beyond the values at either end of two axes with one range."""


def go() -> Any:
    """Return ``plotly.graph_objects``.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    try:
        import plotly.graph_objects
    except ImportError as error:
        raise MissingExtraError("plotly", "notebooks") from error
    return plotly.graph_objects


def figure(drawing: Drawing) -> Figure:
    """Return a drawing as a figure.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    empty = go().Figure()
    empty.update_layout(
        title=escape(drawing.title), template="plotly_white", height=440, hovermode="closest",
        margin={"l": 60, "r": 20, "t": 56, "b": 52},
        legend={"orientation": "h", "yanchor": "top", "y": -0.18, "x": 0},
    )  # fmt: skip
    if isinstance(drawing, XY):
        return _xy(empty, drawing)
    if isinstance(drawing, Bars):
        return _bars(empty, drawing)
    return _parallel(empty, drawing) if isinstance(drawing, Parallel) else _layers(empty, drawing)


def _xy(found: Figure, chart: XY) -> Figure:
    xs, ys = along(chart, "x"), along(chart, "y")
    xs, ys = (xs + ys, xs + ys) if chart.same else (xs, ys)
    log = {"x": logarithmic(chart.x.scale, xs), "y": logarithmic(chart.y.scale, ys)}
    for name, axis in (("x", chart.x), ("y", chart.y)):
        scale = "log" if log[name] else "linear"
        found.update_layout({f"{name}axis": _axis(axis) | {"type": scale}})
        if axis.shows:
            found.update_layout({f"{name}axis.autorangeoptions.include": list(axis.shows)})
    if chart.same:
        found.update_layout(height=480)
        if log["x"]:
            ends = [math.log10(min(xs) / _ROOM), math.log10(max(xs) * _ROOM)]
            found.update_layout({"xaxis.range": ends, "yaxis.range": ends})
        else:
            found.update_yaxes(scaleanchor="x")
    # One name says no more than the title of the axis.
    found.update_layout(showlegend=len({mark.name for mark in chart.marks if mark.name}) > 1)
    labels = 0
    for mark in chart.marks:
        if isinstance(mark, Points):
            found.add_trace(_points(mark, chart))
        elif isinstance(mark, Line):
            found.add_trace(_line(mark))
        elif mark.along == "equal":
            ends = [min(xs) / _ROOM, max(xs) * _ROOM]
            found.add_trace(
                go().Scatter(x=ends, y=ends, mode="lines", line=_stroke(mark.role),
                             name=escape(mark.name), hoverinfo="skip")
            )  # fmt: skip
        else:
            labels += _rule(found, mark, labels, log=log["x"])
    return found


def _axis(axis: Axis) -> dict[str, Any]:
    # Plotly writes the sign beside each figure of a share.
    label = axis.label.replace(", %", "") if axis.format == "percent" else axis.label
    return {
        "title": {"text": escape(label)},
        "tickformat": _TICKS.get(axis.format),
        "showticklabels": axis.numbered,
    }


def _points(mark: Points, chart: XY) -> Any:
    order = list(range(len(mark.x)))
    if not mark.labels:
        order.sort(key=lambda i: mark.x[i] or 0.0)

    def turned(values: Sequence[Any]) -> list[Any] | None:
        return [values[i] for i in order] if values else None

    texts = mark.texts
    if mark.crowd:
        texts = tuple(
            f"{text}\n{chart.x.title} {short(x)}" for text, x in zip(texts, mark.x, strict=True)
        )
    role = ROLES[mark.role]
    symbol = _SYMBOLS.get(role.symbol, role.symbol) + ("-open" if role.hollow else "")
    marker: dict[str, Any] = {"size": 9, "symbol": symbol, "color": role.light}
    if mark.crowd:
        marker |= {"size": 4, "opacity": 0.5}
    return go().Scatter(
        x=turned(mark.x),
        y=turned(mark.y),
        mode="markers+text" if mark.labels else "markers",
        text=turned([escape(label) for label in mark.labels]),
        textposition="top center",
        marker=marker,
        hovertext=turned([_lines(text) for text in texts]),
        hoverinfo="text",
        customdata=turned(mark.ids),
        error_x=_error(mark.x, mark.across, order, role.light),
        error_y=_error(mark.y, mark.upwards, order, role.light),
        name=escape(mark.name),
    )


def _error(
    middle: Sequence[float | None], span: Interval | None, order: Sequence[int], colour: str
) -> dict[str, Any] | None:
    """Return plotly's error bars; a point without an interval gets none."""
    if span is None:
        return None

    def beyond(end: Sequence[float | None]) -> list[float]:
        pairs = ((middle[i], end[i]) for i in order)
        return [0.0 if m is None or e is None else abs(e - m) for m, e in pairs]

    return {
        "type": "data", "symmetric": False, "array": beyond(span.high),
        "arrayminus": beyond(span.low), "color": colour, "thickness": 1, "width": 3,
    }  # fmt: skip


def _line(mark: Line) -> Any:
    texts = [_lines(text) for text in mark.texts] or None
    return go().Scatter(
        x=list(mark.x),
        y=list(mark.y),
        mode="lines+markers" if mark.marked else "lines",
        line=_stroke(mark.role)
        | {"width": 1 if mark.thin else 2, "shape": "hv" if mark.stepped else "linear"},
        hovertext=texts,
        hoverinfo="skip" if mark.thin else "text" if texts else "x+y",
        name=escape(mark.name),
        showlegend=bool(mark.name) and not mark.thin,
    )


def _stroke(role: str) -> dict[str, Any]:
    return {"color": ROLES[role].light, "dash": "dash" if ROLES[role].dashed else "solid"}


def _rule(found: Figure, mark: Rule, labels: int, *, log: bool) -> int:
    """Draw a rule, and return how many labels it put above the axis."""
    line = {"color": ROLES[mark.role].light, "dash": "dash", "width": 1.5}
    if mark.at is None or (mark.along == "x" and log and mark.at <= 0):
        return 0
    if mark.along == "y":
        found.add_hline(y=mark.at, line=line, annotation_text=escape(mark.label))
        return 0
    found.add_vline(x=mark.at, line=line)
    # Unlike a line, an annotation on a logarithmic axis is placed by the logarithm.
    found.add_annotation(
        x=math.log10(mark.at) if log else mark.at, y=0.02 + 0.07 * labels, yref="paper",
        text=escape(mark.label), showarrow=False, xanchor="right", font={"color": line["color"]},
    )  # fmt: skip
    return 1


def _bars(found: Figure, chart: Bars) -> Figure:
    names = [escape(name) for name in chart.categories]
    value, category = ("y", "x") if chart.upright else ("x", "y")
    for one in chart.series:
        hover = [_lines(text) for text in _told(one, chart)]
        colour = ROLES[one.role].light
        found.add_trace(
            go().Bar(
                {value: list(one.values), category: names},
                orientation="v" if chart.upright else "h",
                marker={"color": [GREY if p else colour for p in one.pale] or colour},
                hovertext=hover,
                hoverinfo="text",
                name=escape(one.name),
            )
        )
        if one.lines:
            ink = ROLES[one.line_role].light
            found.add_trace(
                go().Scatter(
                    {value: list(one.lines), category: names},
                    mode="markers",
                    marker={
                        "symbol": "line-ew" if chart.upright else "line-ns", "size": 16,
                        "line": {"width": 2, "color": ink},
                    },
                    name=escape(one.line_name),
                )
            )  # fmt: skip
    along_value = _axis(chart.value) | {"rangemode": "tozero"}
    along_names = {"title": {"text": escape(chart.category)}, "type": "category"}
    if not chart.upright:
        along_names |= {"title": {"text": ""}, "autorange": "reversed"}
        found.update_layout(height=180 + 24 * len(names))
    found.update_layout({f"{value}axis": along_value, f"{category}axis": along_names})
    found.update_layout(barmode="group")
    return found


def _told(one: BarSeries, chart: Bars) -> list[str]:
    if one.texts:
        return list(one.texts)
    labels = one.labels or tuple(short(value) for value in one.values)
    return [f"{name}: {label}" for name, label in zip(chart.categories, labels, strict=True)]


def _parallel(found: Figure, chart: Parallel) -> Figure:
    """Draw the rows that every axis has, coloured by the last axis.

    Drag along an axis to keep only the rows of that range.
    """
    columns = [one.values for one in chart.dimensions]
    kept = [i for i in range(len(chart.marked)) if all(c[i] is not None for c in columns)]
    found.add_trace(
        go().Parcoords(
            dimensions=[
                _dimension(one.axis, [one.values[i] for i in kept]) for one in chart.dimensions
            ],
            labelangle=-20,
            line={
                "color": [columns[-1][i] for i in kept],
                "colorscale": "Cividis",
                "showscale": True,
                "colorbar": {"title": {"text": escape(chart.dimensions[-1].axis.title)}},
            },
        )
    )
    found.update_layout(height=460, margin={"l": 60, "r": 40, "t": 120, "b": 40})
    return found


def _dimension(axis: Axis, values: Sequence[Any]) -> dict[str, Any]:
    if not logarithmic(axis.scale, values):
        return {"label": escape(axis.title), "values": list(values)}
    logs = [math.log10(v) for v in values]
    low, high = min(logs), max(logs)
    ticks = [low + (high - low) * k / 4 for k in range(5)]
    return {
        "label": escape(axis.title),
        "values": logs,
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.3g}" for tick in ticks],
    }


def _layers(found: Figure, chart: Layers) -> Figure:
    layers = [layer for block in chart.blocks for layer in block.layers]
    names = [escape(str(layer.name)) for layer in layers]
    for bits in sorted({layer.weight_bits for layer in layers}, key=lambda b: b or 0):
        chosen = [layer for layer in layers if layer.weight_bits == bits]
        found.add_trace(
            go().Bar(
                x=[layer.out_channels for layer in chosen],
                y=[escape(str(layer.name)) for layer in chosen],
                orientation="h",
                name="float" if bits == 32 else f"{bits} bit",
                marker={"color": BITS.get(bits or 0, OTHER_BITS)},
                text=[_layer(layer) for layer in chosen],
                textposition="auto",
                hovertemplate="%{y}<br>%{text}<br>%{x} output channels<extra></extra>",
            )
        )
    found.update_layout(xaxis_title="output channels", height=140 + 22 * len(layers))
    found.update_yaxes(autorange="reversed", categoryorder="array", categoryarray=names)
    return found


def _layer(layer: Layer) -> str:
    kind = "linear" if layer.kind == "linear" else f"{layer.kernel}×{layer.kernel}"
    form = f" {layer.weight_format}" if layer.weight_format else ""
    zeros = "" if layer.sparsity in (None, "dense") else f", {layer.sparsity} sparse"
    return f"{kind}, w{layer.weight_bits}{form} a{layer.activation_bits}{zeros}"


def _lines(text: str) -> str:
    return escape(text).replace("\n", "<br>")
