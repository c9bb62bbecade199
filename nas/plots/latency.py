"""Latency: predicted against measured, and the map of devices."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    Run,
    device_of,
    go,
    new_figure,
    results_of,
)
from nas.report.payload import latency_fit, sample_rows
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure


def predicted_vs_measured(run: Run, *, device: str | None = None) -> Figure:
    """Draw what was predicted against what was measured on a device of a run.

    Verified models, measured after the predictor was fitted, are told apart from the samples
    it may have been fitted on. Bars are 95 % intervals of either value.

    Raises:
        InputError: no such device, or no pair was recorded for it.
        MissingExtraError: plotly is not installed.
    """
    results = results_of(run)
    device = device_of(results, device)
    samples = sample_rows(results)
    rows = [r for r in samples if r["device"] == device and r["ms"] and r["predicted"]]
    if not rows:
        raise InputError(f"no pair of predicted and measured latency was recorded for {device}")
    fit = latency_fit(samples, device, held_out=True)
    title = f"Predicted and measured latency on {device}"
    if fit is not None:
        title += f": mean error {100 * fit['mape']:.1f} % over {fit['n']} verified models"
    figure = _square(title, [r["ms"] for r in rows] + [r["predicted"] for r in rows])
    groups = (
        ("verified model", BLUE, "circle", lambda r: r["held_out"] and r["valid"] is not False),
        ("other sample", GREY, "square",
         lambda r: not r["held_out"] and r["valid"] is not False),
        ("invalid measurement", ORANGE, "x", lambda r: r["valid"] is False),
    )  # fmt: skip
    for name, colour, symbol, wanted in groups:
        chosen = [r for r in rows if wanted(r)]
        if not chosen:
            continue
        x, y = [r["ms"] for r in chosen], [r["predicted"] for r in chosen]
        figure.add_trace(
            go().Scatter(
                x=x,
                y=y,
                mode="markers",
                name=name,
                marker={"color": colour, "symbol": symbol, "size": 8},
                error_x=_bars(x, chosen, "low", "high", colour),
                error_y=_bars(y, chosen, "predicted_low", "predicted_high", colour),
                text=[r["id"] for r in chosen],
                hovertemplate="%{text}<br>measured %{x:.4g} ms<br>predicted %{y:.4g} ms"
                "<extra></extra>",
            )
        )
    return figure


def prediction(
    measured_ms: Sequence[float],
    predicted_ms: Sequence[float],
    *,
    low_ms: Sequence[float] | None = None,
    high_ms: Sequence[float] | None = None,
    names: Sequence[str] | None = None,
    title: str = "Predicted and measured latency",
) -> Figure:
    """Draw predictions against measurements that belong to no run.

    Args:
        measured_ms, predicted_ms: (n,), positive.
        low_ms, high_ms: (n,), ends of the predicted intervals; both or neither.
        names: (n,), shown on hover.

    Raises:
        InputError: lengths that differ, or a value that is not positive.
        MissingExtraError: plotly is not installed.
    """
    x, y = np.asarray(measured_ms, dtype=float), np.asarray(predicted_ms, dtype=float)
    if x.shape != y.shape or x.ndim != 1 or not len(x):
        raise InputError(f"{len(x)} measurements do not pair with {len(y)} predictions")
    if not (x > 0).all() or not (y > 0).all():
        raise InputError("latencies must be positive")
    if (low_ms is None) != (high_ms is None):
        raise InputError("give both ends of the intervals, or neither")
    figure = _square(title, [*x, *y])
    bars = None
    if low_ms is not None and high_ms is not None:
        bars = {
            "type": "data", "symmetric": False, "color": BLUE, "thickness": 1, "width": 2,
            "array": np.asarray(high_ms) - y, "arrayminus": y - np.asarray(low_ms),
        }  # fmt: skip
    figure.add_trace(
        go().Scatter(
            x=x,
            y=y,
            mode="markers",
            name="architecture",
            marker={"color": BLUE, "size": 7},
            error_y=bars,
            text=None if names is None else list(names),
            hovertemplate="%{text}<br>measured %{x:.4g} ms<br>predicted %{y:.4g} ms<extra></extra>",
        )
    )
    return figure


def device_map(names: Sequence[str], points: Any, *, highlighted: Collection[str] = ()) -> Figure:
    """Draw devices as points; those that rank architectures alike lie close together.

    Args:
        names: of the devices.
        points: (devices, 2), beside the names, as
            :meth:`predictors.transfer_gp.predictor.TransferGP.embedding` returns them.
        highlighted: names drawn as squares, for instance the new device.

    Raises:
        InputError: points that do not fit the names.
        MissingExtraError: plotly is not installed.
    """
    points = np.asarray(points, dtype=float)
    if points.shape != (len(names), 2):
        raise InputError(f"{len(names)} devices need points of shape ({len(names)}, 2), "
                         f"not {points.shape}")  # fmt: skip
    figure = new_figure("Devices by how they rank architectures")
    for new, colour, symbol in ((False, BLUE, "circle"), (True, ORANGE, "square")):
        rows = [i for i, name in enumerate(names) if (name in highlighted) is new]
        if not rows:
            continue
        figure.add_trace(
            go().Scatter(
                x=points[rows, 0],
                y=points[rows, 1],
                mode="markers+text",
                text=[names[i] for i in rows],
                textposition="top center",
                marker={"size": 11, "color": colour, "symbol": symbol},
                hovertemplate="%{text}<extra></extra>",
                name="new device" if new else "known device",
            )
        )
    # Only distances mean something, so both axes have one scale and no numbers.
    figure.update_xaxes(showticklabels=False)
    figure.update_yaxes(showticklabels=False, scaleanchor="x")
    return figure


def _square(title: str, values: Sequence[float]) -> Figure:
    """Return a log-log figure with the line on which prediction and measurement agree."""
    figure = new_figure(title, "measured, ms", "predicted, ms", height=480)
    ends = [min(values) / 1.1, max(values) * 1.1]
    figure.add_trace(
        go().Scatter(
            x=ends, y=ends, mode="lines", line={"color": GREY, "dash": "dash"},
            name="predicted = measured", hoverinfo="skip",
        )
    )  # fmt: skip
    figure.update_xaxes(type="log")
    figure.update_yaxes(type="log")
    return figure


def _bars(
    middle: list[float], rows: list[dict[str, Any]], low: str, high: str, colour: str
) -> dict[str, Any]:
    return {
        "type": "data", "symmetric": False, "color": colour, "thickness": 1, "width": 2,
        "array": [(r[high] or m) - m for m, r in zip(middle, rows, strict=True)],
        "arrayminus": [m - (r[low] or m) for m, r in zip(middle, rows, strict=True)],
    }  # fmt: skip
