"""The search: volume, predictor, training, and which choices matter."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.plots.style import (
    BLUE,
    GREY,
    ORANGE,
    SERIES,
    Run,
    go,
    new_figure,
    results_of,
)
from nas.report.payload import evaluation_rows, importance_rows, sample_rows
from nas.report.results import device_names, metric_of, number
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEVELS = ("families", "choices")


def hypervolume(runs: Run | Mapping[str, Run]) -> Figure:
    """Draw the volume that the front dominates, over real evaluations.

    Args:
        runs: one run, or name -> run. Volumes compare only where objectives and reference
            point are the same, so other runs are refused.

    Raises:
        InputError: a run without recorded volumes, or with another reference point.
        MissingExtraError: plotly is not installed.
    """
    several = isinstance(runs, Mapping) and "front" not in runs and "evaluations" not in runs
    named: Mapping[str, Any] = runs if several else {"": runs}  # type: ignore[assignment]
    figure = new_figure("Hypervolume over evaluations", "real evaluations", "hypervolume")
    reference = None
    for i, (name, run) in enumerate(named.items()):
        results = results_of(run)
        found = results.get("hypervolume") or {}
        values = [
            (v["evaluations"], v["value"])
            for v in found.get("values") or []
            if number(v.get("value")) is not None
        ]
        if not values:
            raise InputError(f"no hypervolume was recorded in {name or 'the run'}")
        kind = (found.get("goals"), found.get("reference"))
        if reference not in (None, kind):
            raise InputError(
                f"the hypervolume of {name} has objectives {kind[0]} and reference point "
                f"{kind[1]}, another than {reference}; draw it alone"
            )
        reference = kind
        colour, _ = SERIES[i % len(SERIES)]
        figure.add_trace(
            go().Scatter(
                x=[v[0] for v in values],
                y=[v[1] for v in values],
                mode="lines",
                line={"color": colour, "shape": "hv", "dash": ("solid", "dash", "dot")[i % 3]},
                name=name or "hypervolume",
                showlegend=bool(name),
            )
        )
    return figure


def accuracy_predictor(run: Run) -> Figure:
    """Draw how well the accuracy predictor ranked candidates, over evaluations.

    Raises:
        InputError: nothing was recorded.
        MissingExtraError: plotly is not installed.
    """
    rows = results_of(run)["accuracy_predictor"]
    points = [
        (r.get("points", r.get("round")), r["kendall_tau"])
        for r in rows
        if number(r.get("kendall_tau")) is not None
    ]
    return _line("Accuracy predictor", points, "evaluated architectures", "Kendall tau")


def training(run: Run) -> Figure:
    """Draw the loss of the supernet over its training.

    Raises:
        InputError: nothing was recorded.
        MissingExtraError: plotly is not installed.
    """
    rows = results_of(run)["training"]
    points = [(r["step"], r["loss"]) for r in rows if number(r.get("loss")) is not None]
    return _line("Training of the supernet", points, "step", "loss")


def timing(run: Run) -> Figure:
    """Draw how long each stage of a run took.

    Raises:
        InputError: nothing was recorded.
        MissingExtraError: plotly is not installed.
    """
    rows = [r for r in results_of(run)["timing"] if number(r.get("seconds")) is not None]
    if not rows:
        raise InputError("the run has no timing")
    figure = new_figure("Time by stage", "seconds", height=120 + 30 * len(rows))
    figure.add_trace(
        go().Bar(
            x=[r["seconds"] for r in rows],
            y=[r["stage"] for r in rows],
            orientation="h",
            marker={"color": BLUE},
        )
    )
    figure.update_yaxes(autorange="reversed")
    return figure


def importance(
    run: Run, *, metric: str | None = None, by: str = "families", most: int = 15
) -> Figure:
    """Draw the share of a metric's variance that each choice explains alone.

    The line across a bar is what chance reaches in 5 % of shuffles; see
    :mod:`nas.report.importance` for the method.

    Args:
        metric: the task's metric (default), ``latency_ms[DEVICE]``, ``weights_kib`` or ``macs``.
        by: ``families`` (kinds of choice) or ``choices``.
        most: bars.

    Raises:
        InputError: an unknown metric or level, or evaluations without choices.
        MissingExtraError: plotly is not installed.
    """
    if by not in LEVELS:
        raise InputError(f"by={by!r} is not one of {', '.join(LEVELS)}")
    results = results_of(run)
    name, _ = metric_of(results)
    found = importance_rows(results, name, device_names(results))
    metric = name if metric is None else metric
    if metric not in found:
        raise InputError(
            f"no importance for {metric!r} (known for: {', '.join(found) or 'nothing'})"
        )
    rows = found[metric][by][:most]
    if not rows:
        raise InputError("the choices of the evaluations were not recorded")
    figure = new_figure(
        f"What explains {metric}", "share of the variance", height=140 + 24 * len(rows)
    )
    figure.add_trace(
        go().Bar(
            x=[r["explained"] for r in rows],
            y=[r["choice"] for r in rows],
            orientation="h",
            marker={"color": [BLUE if r["explained"] > r["chance"] else GREY for r in rows]},
            text=[
                "<br>".join(f"{level}: {mean:.4g} ({n})" for level, n, mean in r["levels"])
                for r in rows
            ],
            textposition="none",
            hovertemplate="%{y} explains %{x:.1%}<br>mean by level:<br>%{text}<extra></extra>",
            name="explained",
        )
    )
    figure.add_trace(
        go().Scatter(
            x=[r["chance"] for r in rows],
            y=[r["choice"] for r in rows],
            mode="markers",
            marker={"symbol": "line-ns", "size": 16, "line": {"width": 2, "color": ORANGE}},
            hovertemplate="chance reaches %{x:.1%}<extra></extra>",
            name="chance (95 %)",
        )
    )
    figure.update_xaxes(tickformat=".0%", rangemode="tozero")
    figure.update_yaxes(autorange="reversed")
    return figure


def parallel_coordinates(run: Run) -> Figure:
    """Draw every evaluation as a line through its choices, costs and accuracy.

    Drag along an axis to keep only the evaluations of that range.

    Raises:
        InputError: no evaluations, or fewer than two axes that vary.
        MissingExtraError: plotly is not installed.
    """
    results = results_of(run)
    metric, _ = metric_of(results)
    found = evaluation_rows(results, metric, sample_rows(results))
    columns: dict[str, list[Any]] = dict(found["choices"])
    names = ["weight_bits_mean", "activation_bits_mean", "weights_kib"]
    names += [f"latency_ms[{device}]" for device in device_names(results)]
    columns |= {name: found["metrics"][name] for name in names if name in found["metrics"]}
    columns[metric] = found["accuracy"]
    kept = [
        i for i in range(len(found["number"])) if all(number(c[i]) is not None for c in
                                                      columns.values())
    ]  # fmt: skip
    varying = {
        name: [column[i] for i in kept]
        for name, column in columns.items()
        if len({column[i] for i in kept}) > 1
    }
    if len(varying) < 2:
        raise InputError("the evaluations have fewer than two axes that vary")
    axes = [_axis(name, values) for name, values in varying.items()]
    figure = new_figure("All evaluations, axis by axis", height=460)
    figure.add_trace(
        go().Parcoords(
            dimensions=axes,
            line={
                "color": [found["accuracy"][i] for i in kept],
                "colorscale": "Cividis",
                "showscale": True,
                "colorbar": {"title": {"text": metric}},
            },
        )
    )
    figure.update_layout(margin={"l": 60, "r": 40, "t": 96, "b": 40})
    return figure


def _axis(name: str, values: list[float]) -> dict[str, Any]:
    """Return an axis of parallel coordinates, logarithmic for costs that are positive."""
    if not name.startswith(("latency_ms", "weights_kib")) or min(values) <= 0:
        return {"label": name, "values": values}
    logs = [math.log10(v) for v in values]
    low, high = min(logs), max(logs)
    ticks = [low + (high - low) * k / 4 for k in range(5)]
    return {
        "label": name,
        "values": logs,
        "tickvals": ticks,
        "ticktext": [f"{10**tick:.3g}" for tick in ticks],
    }


def _line(title: str, points: list[tuple[float, float]], x: str, y: str) -> Figure:
    if not points:
        raise InputError(f"{title.lower()}: nothing was recorded in this run")
    figure = new_figure(title, x, y)
    figure.add_trace(
        go().Scatter(
            x=[p[0] for p in points],
            y=[p[1] for p in points],
            mode="lines+markers" if len(points) <= 40 else "lines",
            line={"color": BLUE},
            name=y,
        )
    )
    return figure
