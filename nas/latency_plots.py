"""Which known devices does this board resemble: the figure of ``nas latency neighbours``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from predictors.device_map import device_map_svg
from search_spaces.atomic import write_text_atomic

if TYPE_CHECKING:
    import numpy as np
    from plotly.graph_objects import Figure

    from predictors.adapted_gp import AdaptedGP


def resemblance_map(adapted: AdaptedGP, *, device: str = "new device") -> Figure:
    """Draw an adapted device among the known ones; those that rank alike lie close together.

    Args:
        adapted: what :meth:`predictors.latency.TransferGP.adapt` returned.
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
