"""Bit allocation: which bits each layer got, and what a budget costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.plots.style import SERIES, go, new_figure
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nas.bits.allocation import Allocation, BitTable


def bit_allocation(
    layers: Sequence[str], allocations: Mapping[str, Sequence[Any]] | Sequence[Any]
) -> Figure:
    """Draw the weight bits (and, where they differ, activation bits) of every layer.

    Args:
        layers: names, in the order of the network.
        allocations: of each layer :class:`nas.bits.allocation.Bits`; or name -> such a list, to
            compare methods.

    Raises:
        InputError: a list that does not fit the layers.
        MissingExtraError: plotly is not installed.
    """
    named = allocations if isinstance(allocations, Mapping) else {"allocation": allocations}
    figure = new_figure("Bits of each layer", "layer", "bits")
    for i, (name, options) in enumerate(named.items()):
        if len(options) != len(layers):
            raise InputError(f"{name} has bits for {len(options)} layers, not {len(layers)}")
        colour, _ = SERIES[i % len(SERIES)]
        figure.add_trace(
            go().Bar(
                x=list(layers),
                y=[option.weight_bits for option in options],
                name=f"{name}, weights",
                marker={"color": colour},
                text=[str(option) for option in options],
                hovertemplate="%{x}: %{text}<extra></extra>",
            )
        )
        if len({option.activation_bits for option in options}) > 1:
            figure.add_trace(
                go().Scatter(
                    x=list(layers),
                    y=[option.activation_bits for option in options],
                    mode="markers",
                    name=f"{name}, activations",
                    marker={"symbol": "line-ew", "size": 14,
                            "line": {"width": 3, "color": colour}},
                )
            )  # fmt: skip
    figure.update_layout(barmode="group")
    figure.update_yaxes(rangemode="tozero")
    return figure


def budget_curve(
    table: BitTable, cost: str, *, points: int = 12, marked: Sequence[Allocation] = ()
) -> Figure:
    """Draw the least sensitivity over a budget on a cost, each point a proven optimum.

    Args:
        table: sensitivities and costs.
        cost: of the table, such as ``weights_kib``.
        points: budgets, evenly from the least to the most.
        marked: allocations to show beside the curve, such as baselines.

    Raises:
        InputError: the table does not have the cost.
        MissingExtraError: plotly is not installed.
    """
    from nas.bits.allocation import budget_curve as curve

    found = curve(table, cost, points)
    figure = new_figure("What a budget costs", cost, "sensitivity")
    colour, symbol = SERIES[0]
    figure.add_trace(
        go().Scatter(
            x=[a.costs[cost] for a in found],
            y=[a.sensitivity for a in found],
            mode="lines+markers",
            line={"color": colour, "shape": "hv"},
            marker={"symbol": symbol},
            text=["<br>".join(f"{n}: {o}" for n, o in zip(table.layers, a.options, strict=True))
                  for a in found],
            hovertemplate="%{x:.4g}, %{y:.4g}<br>%{text}<extra></extra>",
            name="integer programme",
        )
    )  # fmt: skip
    for i, allocation in enumerate(marked, start=1):
        colour, symbol = SERIES[i % len(SERIES)]
        figure.add_trace(
            go().Scatter(
                x=[allocation.costs[cost]],
                y=[allocation.sensitivity],
                mode="markers",
                marker={"color": colour, "symbol": symbol, "size": 11},
                name=allocation.method,
            )
        )
    return figure
