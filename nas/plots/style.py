"""What the figures have in common: how a run is read, colours, layout."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nas.record.result_types import Results
from search_spaces.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

Run: TypeAlias = "str | PathLike[str] | Mapping[str, Any]"

BLUE, ORANGE, AMBER, GREEN, PINK, GREY = (
    "#0072b2", "#d55e00", "#e69f00", "#009e73", "#cc79a7", "#8a9299",
)  # fmt: skip
"""Of Okabe and Ito's palette (2008)."""

SERIES = ((BLUE, "circle"), (ORANGE, "square"), (GREEN, "diamond"), (PINK, "cross"),
          (AMBER, "triangle-up"))  # fmt: skip
"""Colour and mark of the first, second, ... of several runs."""

BITS = {
    1: "#cc79a7", 2: "#d55e00", 3: "#e69f00", 4: "#f0e442", 5: "#a6d854", 6: "#009e73",
    7: "#5fc9b0", 8: "#56b4e9", 16: "#0072b2", 32: "#999999",
}  # fmt: skip
"""Bit-width -> colour, as in the report; the number always stands beside it."""


def results_of(run: Run) -> Results:
    """Return the results of a run folder, or complete those that were given.

    Raises:
        InputError: the folder has no readable ``results.json``.
    """
    from nas.report.results import complete, load_results

    if isinstance(run, Mapping):
        return complete(run)
    return load_results(Path(run))


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


def new_figure(title: str, x: str = "", y: str = "", *, height: int = 440) -> Figure:
    """Return an empty figure in the common style, its axes named."""
    figure = go().Figure()
    figure.update_layout(
        title=title, template="plotly_white", height=height, hovermode="closest",
        xaxis_title=x, yaxis_title=y, margin={"l": 60, "r": 20, "t": 56, "b": 52},
        legend={"orientation": "h", "yanchor": "bottom", "y": 1.0, "x": 0},
    )  # fmt: skip
    return figure


def spread(values: list[float]) -> str:
    """Return the scale of an axis: ``log`` where positive values span more than a factor of 6."""
    if values and min(values) > 0 and max(values) / min(values) > 6:
        return "log"
    return "linear"


def device_of(results: Results, device: str | None) -> str:
    """Return the device, by default the first of the run.

    Raises:
        InputError: the run knows no such device.
    """
    from nas.report.results import device_names

    names = device_names(results)
    if not names:
        raise InputError("the run has no device")
    if device is None:
        return names[0]
    if device not in names:
        raise InputError(f"the run has no device {device!r} (devices: {', '.join(names)})")
    return device


def entry_of(results: Results, model: str) -> dict[str, Any]:
    """Return a model of the front by its id, or the knee.

    Raises:
        InputError: the front is empty, has no knee, or not this model.
    """
    front = results["front"]
    for entry in front:
        if entry["id"] == model or (model == "knee" and entry.get("knee")):
            return entry
    ids = ", ".join(str(entry["id"]) for entry in front[:20]) or "none, the front is empty"
    raise InputError(f"there is no model {model!r} on the front (models: {ids})")
