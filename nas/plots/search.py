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
from nas.record.result_types import Results
from nas.report.payload import evaluation_rows, importance_rows, sample_rows
from nas.report.results import device_names, metric_of, number
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

LEVELS = ("families", "choices")


def hypervolume(runs: Run | Mapping[str, Run]) -> Figure:
    """Draw the volume that the front dominates, over real evaluations.

    Args:
        runs: one run, whose recorded volumes are drawn; or name -> run, whose volumes are
            computed again against one reference point, the worst of all runs' evaluations.

    Raises:
        InputError: nothing was recorded, or the runs have different objectives.
        MissingExtraError: plotly is not installed.
    """
    if isinstance(runs, Mapping) and not {"front", "evaluations"} & set(runs):
        curves = _common_volumes({str(name): results_of(run) for name, run in runs.items()})
    else:
        found = results_of(runs).get("hypervolume") or {}
        values = [v for v in found.get("values") or [] if number(v.get("value")) is not None]
        curves = {"": [(v["evaluations"], v["value"]) for v in values]}
    if not any(curves.values()):
        raise InputError("no hypervolume was recorded")
    figure = new_figure("Hypervolume over evaluations", "real evaluations", "hypervolume")
    for i, (name, points) in enumerate(curves.items()):
        colour, _ = SERIES[i % len(SERIES)]
        figure.add_trace(
            go().Scatter(
                x=[p[0] for p in points],
                y=[p[1] for p in points],
                mode="lines",
                line={"color": colour, "shape": "hv", "dash": ("solid", "dash", "dot")[i % 3]},
                name=name or "hypervolume",
                showlegend=bool(name),
            )
        )
    return figure


def _common_volumes(named: Mapping[str, Results]) -> dict[str, list[tuple[int, float]]]:
    """Volumes of the feasible evaluations of every run, against one reference point."""
    import numpy as np

    from nas.fronts.pareto import hypervolume as volume
    from nas.fronts.pareto import reference_point
    from nas.report.comparison import maximised

    goals = {name: [str(goal) for goal in results["goals"]] for name, results in named.items()}
    if not goals or len({tuple(given) for given in goals.values()}) > 1:
        told = "; ".join(f"{name}: {', '.join(given)}" for name, given in goals.items())
        raise InputError(f"volumes compare only for the same objectives ({told or 'no runs'})")
    points: dict[str, list[tuple[int, list[float]]]] = {}
    for name, results in named.items():
        metric, higher = metric_of(results)
        signs = [(goal, -1.0 if maximised(goal, metric, higher) else 1.0) for goal in goals[name]]
        points[name] = [
            (count, [sign * row["metrics"][goal] for goal, sign in signs])
            for count, row in enumerate(results["evaluations"], start=1)
            if row.get("feasible")
            and all(number((row.get("metrics") or {}).get(goal)) is not None for goal, _ in signs)
        ]
    if not any(points.values()):
        raise InputError("no run has a feasible evaluation with every objective")
    reference = reference_point(
        np.array([values for rows in points.values() for _, values in rows])
    ).tolist()
    curves = {}
    for name, rows in points.items():
        step = max(1, len(rows) // 60)
        kept = [*range(step, len(rows), step), len(rows)] if rows else []
        curves[name] = [
            (rows[k - 1][0], volume(np.array([values for _, values in rows[:k]]), reference))
            for k in kept
        ]
    return curves


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
            labelangle=-20,
            line={
                "color": [found["accuracy"][i] for i in kept],
                "colorscale": "Cividis",
                "showscale": True,
                "colorbar": {"title": {"text": metric}},
            },
        )
    )
    figure.update_layout(margin={"l": 60, "r": 40, "t": 120, "b": 40})
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
