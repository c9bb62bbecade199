"""A chart with two axes as a file of SVG, without plotly and without a script.

It shows what :mod:`nas.plots.figure` and the report's page show of the same
:class:`nas.report.charts.spec.XY`, on a white page.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from html import escape
from itertools import pairwise

from nas.report.charts.palette import ROLES, SHAPES
from nas.report.charts.spec import XY, Axis, Interval, Line, Points, Rule, along, logarithmic
from nas.report.charts.text import short

_WIDTH, _HEIGHT, _SQUARE = 720, 480, 560
_LEFT, _RIGHT, _TOP, _BOTTOM, _LEGEND_LINE = 60, 20, 60, 50, 18
_GRID = "#e3e6e8"
_LABEL_LINE, _LETTER = 13, 6.5
"""Height of a label, and about the width of a letter; in pixels."""


class _Scale:
    """Maps values of an axis to pixels."""

    def __init__(self, values: list[float], axis: Axis, start: float, end: float) -> None:
        self.log = logarithmic(axis.scale, values)
        low, high = min(values), max(values)
        if self.log:
            low, high = low / 1.1, high * 1.1
        else:
            room = 0.08 * (high - low) or abs(low) * 0.05 or 0.5
            low, high = low - room, high + room
        self.low, self.high, self.start, self.end = low, high, start, end

    def __call__(self, value: float) -> float:
        turn = math.log if self.log else float
        share = (turn(value) - turn(self.low)) / (turn(self.high) - turn(self.low))
        return self.start + share * (self.end - self.start)

    def holds(self, value: float) -> bool:
        """Whether a value lies in the range."""
        return self.low <= value <= self.high

    def ticks(self) -> list[float]:
        """Return round numbers inside the range, about five."""
        if not self.log:
            raw = (self.high - self.low) / 5
            power = 10.0 ** math.floor(math.log10(raw))
            step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= raw * 0.999)
            first = math.ceil(self.low / step)
            count = math.floor(self.high / step) - first + 1
            return [round((first + k) * step, 12) for k in range(count)]
        steps: tuple[float, ...] = (1, 2, 5)
        if self.high / self.low < 4:
            steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
        first, last = math.floor(math.log10(self.low)), math.ceil(math.log10(self.high))
        found = [round(s * 10**e, 12) for e in range(first, last + 1) for s in steps]
        return [tick for tick in found if self.low <= tick <= self.high]


def xy_svg(chart: XY) -> str:
    """Return a chart as SVG.

    Args:
        chart: with at least one point.
    """
    xs, ys = along(chart, "x"), along(chart, "y")
    if chart.same and chart.x.numbered:
        xs = ys = xs + ys
    width, height = (_SQUARE, _SQUARE) if chart.same and chart.x.numbered else (_WIDTH, _HEIGHT)
    legend = _legend(chart, width)
    top = _TOP + _LEGEND_LINE * max(0, len(legend) - 1)
    x = _Scale(xs, chart.x, _LEFT, width - _RIGHT)
    y = _Scale(ys, chart.y, height - _BOTTOM, top)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" '
        'font-family="sans-serif" font-size="12" role="img">',
        f"<title>{escape(chart.description)}</title>",
        f'<rect width="{width}" height="{height}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="14">{escape(chart.title)}</text>',
        *legend,
        *_axes(chart, x, y),
    ]
    for mark in chart.marks:
        if isinstance(mark, Points):
            parts += _points(mark, x, y)
        elif isinstance(mark, Line):
            parts.append(_line(mark, x, y))
        else:
            parts += _rule(mark, x, y)
    parts += _labels(chart, x, y)
    return "\n".join([*parts, "</svg>", ""])


def _axes(chart: XY, x: _Scale, y: _Scale) -> Iterator[str]:
    left, right, bottom, top = x.start, x.end, y.start, y.end
    for tick in x.ticks() if chart.x.numbered else ():
        at = x(tick)
        yield _segment(at, top, at, bottom, _GRID)
        text = _figure(chart.x, tick)
        yield f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{text}</text>'
    for tick in y.ticks() if chart.y.numbered else ():
        at = y(tick)
        yield _segment(left, at, right, at, _GRID)
        text = _figure(chart.y, tick)
        yield f'<text x="{left - 6}" y="{at + 4:.1f}" text-anchor="end">{text}</text>'
    yield (
        f'<text x="{(left + right) / 2}" y="{bottom + _BOTTOM - 12}" text-anchor="middle">'
        f"{escape(chart.x.label)}</text>"
    )
    middle = (top + bottom) / 2
    yield (
        f'<text x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escape(chart.y.label)}</text>"
    )


def _figure(axis: Axis, value: float) -> str:
    return short(100 * value if axis.format == "percent" else value)


def _legend(chart: XY, width: int) -> list[str]:
    """Name marks in lines above the chart, where there is more than one name.

    The last line stands just above the chart.
    """
    named = {mark.name: mark for mark in chart.marks if mark.name}
    if len(named) < 2:
        return []
    lines: list[list[str]] = [[]]
    at = 16.0
    for name, mark in named.items():
        room = 40 + _LETTER * len(name)
        if at + room > width and lines[-1]:
            lines.append([])
            at = 16.0
        if isinstance(mark, Points):
            key = _symbol(mark.role, at + 8, -4, small=mark.crowd)
        else:
            look = ROLES[mark.role]
            key = _segment(at, -4, at + 16, -4, look.light, dashed=look.dashed)
        lines[-1].append(f'{key}<text x="{at + 22}">{escape(name)}</text>')
        at += room
    return [
        f'<g transform="translate(0 {44 + _LEGEND_LINE * i})">{"".join(line)}</g>'
        for i, line in enumerate(lines)
    ]


def _points(mark: Points, x: _Scale, y: _Scale) -> Iterator[str]:
    colour = ROLES[mark.role].light
    for i, (a, b) in enumerate(zip(mark.x, mark.y, strict=True)):
        if a is None or b is None or not (x.holds(a) and y.holds(b)):
            continue
        for low, high in _ends(mark.across, i):
            yield _segment(x(low), y(b), x(high), y(b), colour)
        for low, high in _ends(mark.upwards, i):
            yield _segment(x(a), y(low), x(a), y(high), colour)
        text = mark.texts[i] if mark.texts else ""
        yield _symbol(mark.role, x(a), y(b), text, small=mark.crowd)


def _ends(span: Interval | None, i: int) -> list[tuple[float, float]]:
    if span is None:
        return []
    low, high = span.low[i], span.high[i]
    return [] if low is None or high is None else [(low, high)]


def _labels(chart: XY, x: _Scale, y: _Scale) -> Iterator[str]:
    """Write labels beside marks, moved down until those of near twins do not overlap."""
    taken: list[tuple[float, float, float]] = []
    for mark in (one for one in chart.marks if isinstance(one, Points)):
        for i, label in enumerate(mark.labels):
            px, py = x(mark.x[i] or 0.0), y(mark.y[i] or 0.0) + 4
            end = px + _LETTER * (len(label) + 2)
            while any(
                abs(py - ty) < _LABEL_LINE and px < others_end and begin < end
                for begin, others_end, ty in taken
            ):
                py += _LABEL_LINE
            taken.append((px, end, py))
            yield f'<text x="{px + 9:.1f}" y="{py:.1f}">{escape(label)}</text>'


def _symbol(role: str, x: float, y: float, text: str = "", *, small: bool = False) -> str:
    look = ROLES[role]
    fill = "#ffffff" if look.hollow else look.light
    told = f"<title>{escape(text)}</title>" if text else ""
    size = ' scale(0.45)" opacity="0.5"' if small else '"'
    return (
        f'<path class="mark" d="{SHAPES[look.symbol]}" transform="translate({x:.1f} {y:.1f}){size} '
        f'fill="{fill}" stroke="{look.light}">{told}</path>'
    )


def _line(mark: Line, x: _Scale, y: _Scale) -> str:
    points = [
        (x(a), y(b)) for a, b in zip(mark.x, mark.y, strict=True) if a is not None and b is not None
    ]
    if mark.stepped:
        before = pairwise(points)
        points = [*points[:1], *(p for one, two in before for p in ((two[0], one[1]), two))]
    d = "".join(f"{'L' if i else 'M'}{a:.1f} {b:.1f}" for i, (a, b) in enumerate(points))
    dash = ' stroke-dasharray="5 4"' if ROLES[mark.role].dashed else ""
    return f'<path d="{d}" fill="none" stroke="{ROLES[mark.role].light}"{dash}/>'


def _rule(mark: Rule, x: _Scale, y: _Scale) -> Iterator[str]:
    look = ROLES[mark.role]
    if mark.along == "equal":
        ends = (x(x.low), y(x.low), x(x.high), y(x.high))
    elif mark.at is None or not (x if mark.along == "x" else y).holds(mark.at):
        return
    elif mark.along == "x":
        ends = (x(mark.at), y.end, x(mark.at), y.start)
    else:
        ends = (x.start, y(mark.at), x.end, y(mark.at))
    yield _segment(*ends, look.light, dashed=look.dashed)
    if mark.label:
        yield f'<text x="{ends[0] + 5:.1f}" y="{ends[1] + 12:.1f}">{escape(mark.label)}</text>'


def _segment(
    x1: float, y1: float, x2: float, y2: float, colour: str, *, dashed: bool = False
) -> str:  # fmt: skip
    style = ' stroke-dasharray="5 4"' if dashed else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{style}/>'
    )
