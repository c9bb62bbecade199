"""Figures of latency on a board: the known devices it resembles, and what was foretold of it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from nas.plots.figure import figure, go
from nas.plots.svg import xy_svg
from nas.report.charts import latency
from nas.report.charts.spec import XY
from search_spaces.atomic import write_text_atomic
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nas.boards.calibration import Calibration
    from predictors.transfer_gp.adapted import AdaptedGP


def resemblance_map(adapted: AdaptedGP, *, device: str = "new device") -> Figure:
    """Draw an adapted device among the known ones; those that rank alike lie close together.

    Args:
        adapted: what :meth:`predictors.transfer_gp.predictor.TransferGP.adapt` returned.
        device: its name.

    Raises:
        MissingExtraError: plotly is not installed.
    """
    return figure(_map(adapted, device)[0])


def write_resemblance_map(adapted: AdaptedGP, path: Path, *, device: str = "new device") -> int:
    """Write the map, atomically: a page with plotly for ``.html``, else SVG without it.

    Returns:
        the number of devices on the map.

    Raises:
        MissingExtraError: plotly is not installed, for ``.html``.
    """
    chart, count = _map(adapted, device)
    _write(chart, path)
    return count


def _map(adapted: AdaptedGP, device: str) -> tuple[XY, int]:
    predictor = adapted.predictor
    label = device if device not in predictor.devices else f"{device} (new)"
    names, points = predictor.embedding({label: adapted})
    return latency.device_map(names, points, highlighted={label}), len(names)


def _write(chart: XY, path: Path) -> None:
    """Write a chart, atomically: a page with plotly for ``.html``, else SVG without it."""
    page = path.suffix.lower() == ".html"
    text = figure(chart).to_html(include_plotlyjs=True) if page else xy_svg(chart)
    write_text_atomic(path, text)


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
    _write(latency.foretold(found.foretold, title), path)
