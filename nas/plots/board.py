"""Figures of latency on a board: the known devices it resembles, and what was foretold of it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from predictors.device_map import device_map_svg
from search_spaces.atomic import write_text_atomic
from search_spaces.errors import InputError

if TYPE_CHECKING:
    import numpy as np
    from plotly.graph_objects import Figure

    from nas.boards.calibration import Calibration, Foretold
    from predictors.transfer_gp.adapted import AdaptedGP


def resemblance_map(adapted: AdaptedGP, *, device: str = "new device") -> Figure:
    """Draw an adapted device among the known ones; those that rank alike lie close together.

    Args:
        adapted: what :meth:`predictors.transfer_gp.predictor.TransferGP.adapt` returned.
        device: its name.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    from nas.plots import device_map

    names, points, label = _embedded(adapted, device)
    return device_map(names, points, highlighted={label})


def write_resemblance_map(adapted: AdaptedGP, path: Path, *, device: str = "new device") -> int:
    """Write the map, atomically: a page with plotly for ``.html``, else SVG without it.

    Returns:
        the number of devices on the map.

    Raises:
        MissingExtraError: plotly is not installed, for ``.html``.
    """
    names, points, label = _embedded(adapted, device)
    if path.suffix.lower() == ".html":
        figure = resemblance_map(adapted, device=device)
        write_text_atomic(path, figure.to_html(include_plotlyjs=True))
    else:
        write_text_atomic(path, device_map_svg(names, points, highlighted={label}))
    return len(names)


def _embedded(adapted: AdaptedGP, device: str) -> tuple[list[str], np.ndarray, str]:
    predictor = adapted.predictor
    label = device if device not in predictor.devices else f"{device} (new)"
    names, points = predictor.embedding({label: adapted})
    return names, points, label


def check_plot_file(path: Path) -> None:
    """Look whether a figure can be written to ``path``, before any work.

    Raises:
        InputError: the name ends in neither .svg nor .html, or the folder is missing.
        MissingExtraError: plotly is not installed, for ``.html``.
    """
    if path.suffix.lower() not in (".svg", ".html"):
        raise InputError(f"cannot draw {path}: the name must end in .svg or .html")
    if not path.absolute().parent.is_dir():
        raise InputError(f"cannot draw {path}: there is no folder {path.parent}")
    if path.suffix.lower() == ".html":
        from nas.plots.style import go

        go()


def write_foretold(found: Calibration, path: Path) -> None:
    """Draw a calibration's predictions against its measurements, atomically.

    Bars are the predicted 90 % and the measured 95 % intervals; hollow marks are measurements
    that the protocol rejected.

    Args:
        path: ``.html`` for a page with plotly, else SVG without it.

    Raises:
        MissingExtraError: plotly is not installed, for ``.html``.
    """
    title = f"Predicted and measured latency on {found.device}"
    if path.suffix.lower() == ".html":
        page = _foretold_figure(found.foretold, title).to_html(include_plotlyjs=True)
        write_text_atomic(path, page)
    else:
        write_text_atomic(path, foretold_svg(found.foretold, title))


def _foretold_figure(foretold: Sequence[Foretold], title: str) -> Figure:
    from nas.plots import prediction

    figure = prediction(
        [one.measured_ms for one in foretold],
        [one.predicted_ms for one in foretold],
        low_ms=[one.low_ms for one in foretold],
        high_ms=[one.high_ms for one in foretold],
        names=[one.arch if one.valid else f"INVALID: {one.arch}" for one in foretold],
        title=title,
    )
    figure.data[-1].update(
        error_x={
            "type": "data",
            "symmetric": False,
            "thickness": 1,
            "width": 2,
            "array": [one.measured_high_ms - one.measured_ms for one in foretold],
            "arrayminus": [one.measured_ms - one.measured_low_ms for one in foretold],
        },
        marker_symbol=["circle" if one.valid else "circle-open" for one in foretold],
    )
    return figure


_SIZE, _MARGIN = 560, 60


def foretold_svg(foretold: Sequence[Foretold], title: str) -> str:
    """Return predictions against measurements as SVG, both axes logarithmic."""
    from html import escape

    import numpy as np

    ends = [v for o in foretold for v in (o.low_ms, o.high_ms, o.predicted_ms,
                                          o.measured_low_ms, o.measured_high_ms)]  # fmt: skip
    low, high = (min(ends) / 1.1, max(ends) * 1.1) if ends else (0.1, 1.0)
    scale = (_SIZE - 2 * _MARGIN) / np.log(high / low)

    def across(ms: float) -> float:
        return _MARGIN + float(np.log(ms / low)) * scale

    def up(ms: float) -> float:
        return _SIZE - across(ms)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_SIZE} {_SIZE}" '
        'font-family="sans-serif" font-size="12">',
        f'<rect width="{_SIZE}" height="{_SIZE}" fill="#ffffff"/>',
        f'<text x="16" y="24" font-size="14">{escape(title)}</text>',
        f'<text x="{_SIZE / 2}" y="{_SIZE - 12}" text-anchor="middle">measured, ms '
        "(95 % interval; hollow: rejected by the protocol)</text>",
        f'<text x="16" y="{_SIZE / 2}" text-anchor="middle" '
        f'transform="rotate(-90 16 {_SIZE / 2})">predicted, ms (90 % interval)</text>',
        _line(across(low), up(low), across(high), up(high), "#8a9299", dash=True),
    ]
    for tick in _ticks(low, high):
        x, y = across(tick), up(tick)
        parts += [
            _line(x, up(low), x, up(high), "#e3e6e8"),
            _line(across(low), y, across(high), y, "#e3e6e8"),
            f'<text x="{x:.1f}" y="{_SIZE - _MARGIN + 16}" text-anchor="middle">{tick:g}</text>',
            f'<text x="{_MARGIN - 6}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>',
        ]
    for one in foretold:
        x, y = across(one.measured_ms), up(one.predicted_ms)
        parts += [
            _line(x, up(one.low_ms), x, up(one.high_ms), "#0072b2"),
            _line(across(one.measured_low_ms), y, across(one.measured_high_ms), y, "#0072b2"),
            f'<circle cx="{x:.1f}" cy="{y:.1f}" r="4" stroke="#0072b2" '
            f'fill="{"#0072b2" if one.valid else "#ffffff"}"><title>{escape(one.arch)}: predicted '
            f"{one.predicted_ms:.4g} ms, measured {one.measured_ms:.4g} ms</title></circle>",
        ]
    return "\n".join([*parts, "</svg>", ""])


def _line(x1: float, y1: float, x2: float, y2: float, colour: str, *, dash: bool = False) -> str:
    style = ' stroke-dasharray="5 4"' if dash else ""
    return (
        f'<line x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}" stroke="{colour}"{style}/>'
    )


def _ticks(low: float, high: float) -> list[float]:
    """Return round numbers on a logarithmic axis, about two to a factor of ten at least."""
    import math

    steps: tuple[float, ...] = (1, 2, 5)
    if high / low < 4:
        steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    ticks = [round(s * 10**e, 12) for e in range(first, last + 1) for s in steps]
    return [tick for tick in ticks if low <= tick <= high]
