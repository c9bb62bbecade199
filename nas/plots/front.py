"""Fronts: accuracy against a cost, with intervals and budgets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from nas.plots.style import (
    AMBER,
    BLUE,
    GREY,
    ORANGE,
    SERIES,
    Run,
    device_of,
    go,
    new_figure,
    results_of,
    spread,
)
from nas.record.result_types import Results
from nas.report.payload import (
    budgets,
    evaluation_rows,
    model_rows,
    sample_rows,
    test_images,
)
from nas.report.results import device_names, is_accuracy, metric_of
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

SPLITS = ("test", "validation")


def front(
    run: Run,
    *,
    cost: str | None = None,
    split: str = "test",
    evaluations: bool = True,
) -> Figure:
    """Draw the front of a run: accuracy against a cost, 95 % intervals, budgets, the knee.

    Args:
        run: folder or results.
        cost: ``latency_ms[DEVICE]``, ``size_kib`` or a cost such as ``weights_kib`` or ``macs``;
            by default the latency on the first device.
        split: ``test``, or ``validation``, which guided the search.
        evaluations: draw the evaluations of the search as small dots too.

    Raises:
        InputError: an unknown split, or a cost that no verified model has.
        MissingExtraError: plotly is not installed.
    """
    results = results_of(run)
    cost = _cost(results, cost)
    metric, higher = metric_of(results)
    models = _models(results, cost, split)
    figure = new_figure(f"Front of {results.get('name', 'run')}", _label(cost), f"{split} {metric}")
    found = evaluation_rows(results, metric, sample_rows(results))
    if evaluations and cost in found["metrics"]:
        figure.add_trace(
            go().Scatter(
                x=found["metrics"][cost],
                y=found["accuracy"],
                mode="markers",
                marker={"size": 4, "color": GREY, "opacity": 0.5},
                text=found["id"],
                hovertemplate="%{text}<br>%{x}<br>%{y}<extra>evaluation</extra>",
                name=f"search evaluation (validation {metric})",
            )
        )
    rejected = [m for m in models if m["kind"] == "rejected"]
    members = [m for m in models if m["kind"] == "front"]
    if rejected:
        _points(figure, rejected, cost, split, "verified and rejected", ORANGE, "circle-open")
    standing = [m for m in members if m["pareto"]]
    beaten = [m for m in members if not m["pareto"]]
    _line(figure, standing, cost, split, BLUE, higher=higher)
    _points(figure, standing, cost, split, "on the front", BLUE, "circle")
    if beaten:
        _points(figure, beaten, cost, split, "beaten by the final figures", BLUE, "circle-open")
    knee = [m for m in members if m["knee"]]
    if knee:
        _points(figure, knee, cost, split, "knee", AMBER, "diamond", bars=False)
    scale = spread([_value(m, cost) for m in models])
    figure.update_xaxes(type=scale)
    _budgets(figure, results, cost, metric, scale)
    return figure


def fronts(
    runs: Mapping[str, Run], *, cost: str | None = None, split: str = "test", budget: bool = True
) -> Figure:
    """Draw the fronts of several runs in one figure.

    Args:
        runs: name -> folder or results; the runs may be of other devices or budgets.
        cost: as for :func:`front`; by default the latency on the first device of the first run.
        split: ``test`` or ``validation``.
        budget: draw each run's budget on the cost, in the colour of the run.

    Raises:
        InputError: no runs, an unknown split, or a cost that a run's front does not have.
        MissingExtraError: plotly is not installed.
    """
    if not runs:
        raise InputError("give at least one run to draw")
    all_results = {name: results_of(run) for name, run in runs.items()}
    first = next(iter(all_results.values()))
    cost = _cost(first, cost)
    metric, higher = metric_of(first)
    figure = new_figure("Fronts", _label(cost), f"{split} {metric}")
    values: list[float] = []
    for i, (name, results) in enumerate(all_results.items()):
        colour, symbol = SERIES[i % len(SERIES)]
        members = [m for m in _models(results, cost, split) if m["kind"] == "front"]
        values += [_value(m, cost) for m in members]
        _line(figure, [m for m in members if m["pareto"]], cost, split, colour, higher=higher)
        _points(figure, members, cost, split, name, colour, symbol)
    scale = spread(values)
    figure.update_xaxes(type=scale)
    for i, (name, results) in enumerate(all_results.items() if budget else ()):
        colour, _ = SERIES[i % len(SERIES)]
        _budgets(figure, results, cost, metric, scale, colour=colour, of=f" of {name}", row=i)
    return figure


def devices(run: Run, *, split: str = "test") -> Figure:
    """Draw the front of one run against its latency on each of its devices, one series each.

    Raises:
        InputError: an unknown split, or a run without a device.
        MissingExtraError: plotly is not installed.
    """
    results = results_of(run)
    device_of(results, None)
    metric, _ = metric_of(results)
    figure = new_figure("The front on each device", "latency, ms", f"{split} {metric}")
    values: list[float] = []
    for i, device in enumerate(device_names(results)):
        colour, symbol = SERIES[i % len(SERIES)]
        cost = f"latency_ms[{device}]"
        members = [m for m in _models(results, cost, split) if m["kind"] == "front"]
        values += [_value(m, cost) for m in members]
        source = next((m["devices"][device]["source"] for m in members), "measured")
        _points(figure, members, cost, split, f"{device} ({source})", colour, symbol)
    figure.update_xaxes(type=spread(values))
    return figure


def _cost(results: Results, cost: str | None) -> str:
    if cost is not None:
        return cost
    return f"latency_ms[{device_of(results, None)}]" if device_names(results) else "weights_kib"


def _label(cost: str) -> str:
    if cost.startswith("latency_ms["):
        return f"latency on {cost[11:-1]}, ms"
    units = {"weights_kib": "packed weights, KiB", "size_kib": "model file, KiB"}
    return units.get(cost, cost)


def _device(cost: str) -> str | None:
    return cost[11:-1] if cost.startswith("latency_ms[") and cost.endswith("]") else None


def _value(model: Mapping[str, Any], cost: str) -> Any:
    device = _device(cost)
    if device is not None:
        return (model["devices"].get(device) or {}).get("ms")
    return model["size_kib"] if cost == "size_kib" else model["costs"].get(cost)


def _accuracy(model: Mapping[str, Any], split: str) -> Any:
    # A rejected model never saw the test images; it keeps the figure that rejected it.
    return model["test"] if split == "test" and model["kind"] == "front" else model["validation"]


def _models(results: Results, cost: str, split: str) -> list[dict[str, Any]]:
    if split not in SPLITS:
        raise InputError(f"split {split!r} is not one of {', '.join(SPLITS)}")
    metric, _ = metric_of(results)
    images = test_images(results) if is_accuracy(results) else None
    models = [
        m
        for m in model_rows(results, images)
        if _value(m, cost) is not None and _accuracy(m, split) is not None
    ]
    if not models:
        known = [f"latency_ms[{name}]" for name in device_names(results)] + ["size_kib"]
        known += sorted({name for e in results["front"] for name in e.get("costs") or {}})
        raise InputError(
            f"no verified model has both a {split} {metric} and {cost!r} "
            f"(costs of this run: {', '.join(known)})"
        )
    return sorted(models, key=lambda m: _value(m, cost))


def _points(
    figure: Figure,
    models: list[dict[str, Any]],
    cost: str,
    split: str,
    name: str,
    colour: str,
    symbol: str,
    *,
    bars: bool = True,
) -> None:
    x, y = [_value(m, cost) for m in models], [_accuracy(m, split) for m in models]
    error: dict[str, Any] = {}
    device = _device(cost)
    if bars and device is not None:
        found = [m["devices"][device] for m in models]
        error["error_x"] = _error(x, [d["low"] for d in found], [d["high"] for d in found], colour)
    if bars and split == "test":
        error["error_y"] = _error(
            y, [m["test_low"] for m in models], [m["test_high"] for m in models], colour
        )
    figure.add_trace(
        go().Scatter(
            x=x,
            y=y,
            mode="markers",
            marker={"size": 9, "symbol": symbol, "color": colour},
            text=[_told(m) for m in models],
            customdata=[m["id"] for m in models],
            hovertemplate="%{text}<extra></extra>",
            name=name,
            **error,
        )
    )


def _line(
    figure: Figure,
    models: list[dict[str, Any]],
    cost: str,
    split: str,
    colour: str,
    *,
    higher: bool,
) -> None:
    """Join the models that nothing beats in the two quantities drawn.

    With three objectives others are on the front too; a line through all would zigzag.
    """
    sign = 1 if higher else -1
    kept: list[dict[str, Any]] = []
    for m in sorted(models, key=lambda m: (_value(m, cost), -sign * _accuracy(m, split))):
        if not kept or sign * (_accuracy(m, split) - _accuracy(kept[-1], split)) > 0:
            kept.append(m)
    figure.add_trace(
        go().Scatter(
            x=[_value(m, cost) for m in kept],
            y=[_accuracy(m, split) for m in kept],
            mode="lines",
            line={"color": colour, "width": 1},
            hoverinfo="skip",
            showlegend=False,
        )
    )


def _error(middle: list[float], low: list[Any], high: list[Any], colour: str) -> dict[str, Any]:
    """Return plotly's error bars; a point without an interval gets none."""
    return {
        "type": "data",
        "symmetric": False,
        "array": [0 if h is None else h - m for m, h in zip(middle, high, strict=True)],
        "arrayminus": [0 if lo is None else m - lo for m, lo in zip(middle, low, strict=True)],
        "color": colour,
        "thickness": 1,
        "width": 3,
    }


def _told(model: Mapping[str, Any]) -> str:
    lines = [f"{model['id']}{' (knee)' if model['knee'] else ''}"]
    if model["kind"] == "rejected":
        lines.append(f"rejected: {model['why'] or 'reason not recorded'}")
    for split in ("test", "validation"):
        if model[split] is not None:
            lines.append(f"{split} {model[split]:.4g}")
    for device, found in model["devices"].items():
        if found["ms"] is not None:
            text = f"{found['source']} {found['ms']:.4g} ms on {device}"
            if found["low"] is not None and found["high"] is not None:
                text += f" ({found['low']:.4g} to {found['high']:.4g})"
            if found["valid"] is False:
                text += ", invalid: " + ("; ".join(found["reasons"]) or "reason not recorded")
            lines.append(text)
    if model["costs"].get("weights_kib") is not None:
        lines.append(f"{model['costs']['weights_kib']:.4g} KiB of weights")
    return "<br>".join(lines)


def _budgets(
    figure: Figure,
    results: Results,
    cost: str,
    metric: str,
    scale: str,
    *,
    colour: str = ORANGE,
    of: str = "",
    row: int = 0,
) -> None:
    line = {"color": colour, "dash": "dash", "width": 1.5}
    for budget in budgets(results):
        if budget["bound"] is None or (scale == "log" and budget["bound"] <= 0):
            continue
        text = f"budget{of} {'≤' if budget['upper'] else '≥'} {budget['bound']:g}"
        if budget["metric"] == cost:
            figure.add_vline(x=budget["bound"], line=line)
            # Unlike a line, an annotation on a logarithmic axis is placed by the logarithm.
            at = math.log10(budget["bound"]) if scale == "log" else budget["bound"]
            figure.add_annotation(
                x=at, y=0.02 + 0.07 * row, yref="paper", text=text, showarrow=False,
                xanchor="right", font={"color": colour},
            )  # fmt: skip
        elif budget["name"] == metric:
            figure.add_hline(y=budget["bound"], line=line, annotation_text=text)
