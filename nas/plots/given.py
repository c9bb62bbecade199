"""Figures of what the caller gives, which belongs to no run."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.plots.figure import figure
from nas.report.charts import bits, latency

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from nas.bits.allocation import Allocation, BitTable


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
        title: of the figure.

    Raises:
        InputError: lengths that differ, or a value that is not positive.
        MissingExtraError: plotly is not installed.
    """
    chart = latency.prediction(
        measured_ms, predicted_ms, low_ms=low_ms, high_ms=high_ms, names=names, title=title
    )
    return figure(chart)


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
    return figure(latency.device_map(names, points, highlighted=highlighted))


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
    return figure(bits.bit_allocation(layers, allocations))


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
    return figure(bits.budget_curve(table, cost, points=points, marked=marked))
