"""Bit allocation: which bits each layer got, and what a budget costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.report.charts.palette import series
from nas.report.charts.spec import XY, Axis, Bars, BarSeries, Line, Mark, Points
from nas.report.charts.text import short
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from nas.bits.allocation import Allocation, BitTable


def bit_allocation(
    layers: Sequence[str], allocations: Mapping[str, Sequence[Any]] | Sequence[Any]
) -> Bars:
    """Return the weight bits (and, where they differ, activation bits) of every layer.

    Args:
        layers: names, in the order of the network.
        allocations: of each layer :class:`nas.bits.allocation.Bits`; or name -> such a list, to
            compare methods.

    Raises:
        InputError: a list that does not fit the layers.
    """
    named = allocations if isinstance(allocations, Mapping) else {"allocation": allocations}
    found = []
    for i, (name, options) in enumerate(named.items()):
        if len(options) != len(layers):
            raise InputError(f"{name} has bits for {len(options)} layers, not {len(layers)}")
        varied = len({option.activation_bits for option in options}) > 1
        found.append(
            BarSeries(
                f"{name}, weights",
                series(i),
                tuple(option.weight_bits for option in options),
                texts=tuple(
                    f"{layer}: {option}" for layer, option in zip(layers, options, strict=True)
                ),
                lines=tuple(option.activation_bits for option in options) if varied else (),
                line_name=f"{name}, activations" if varied else "",
                line_role=series(i) if varied else "",
            )
        )
    return Bars(
        title="Bits of each layer",
        description=f"Bits of each layer by {', '.join(named)}.",
        category="layer",
        categories=tuple(layers),
        value=Axis("bits"),
        series=tuple(found),
        upright=True,
    )


def budget_curve(
    table: BitTable, cost: str, *, points: int = 12, marked: Sequence[Allocation] = ()
) -> XY:
    """Return the least sensitivity over a budget on a cost, each point a proven optimum.

    Args:
        table: sensitivities and costs.
        cost: of the table, such as ``weights_kib``.
        points: budgets, evenly from the least to the most.
        marked: allocations to show beside the curve, such as baselines.

    Raises:
        InputError: the table does not have the cost.
    """
    from nas.bits.allocation import budget_curve as curve

    def told(one: Allocation) -> str:
        lines = [
            f"{name}: {option}" for name, option in zip(table.layers, one.options, strict=True)
        ]
        return "\n".join([f"{short(one.costs[cost])}, {short(one.sensitivity)}", *lines])

    found = curve(table, cost, points)
    marks: list[Mark] = [
        Line(
            "integer programme",
            series(0),
            tuple(one.costs[cost] for one in found),
            tuple(one.sensitivity for one in found),
            stepped=True,
            marked=True,
            texts=tuple(map(told, found)),
        )
    ]
    for i, one in enumerate(marked, start=1):
        marks.append(
            Points(
                one.method, series(i), (one.costs[cost],), (one.sensitivity,), texts=(told(one),)
            )
        )
    return XY(
        title="What a budget costs",
        description=f"The least sensitivity over a budget on {cost}.",
        x=Axis(cost),
        y=Axis("sensitivity"),
        marks=tuple(marks),
    )
