"""What ranks and sparsity beside bits share: layers that are measured as what they become."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from nas.bits.allocation import (
    Allocation,
    BitTable,
    allocate,
    allocate_greedily,
    allocations_within,
)
from nas.bits.search import LayerSize
from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.ptq.graph import FloatGraph


def changed_table(
    graph: FloatGraph,
    sizes: Sequence[LayerSize],
    options: Sequence[Sequence[Any]],
    images: Sequence[Tensor],
    weight: Callable[[str, Any], Tensor],
    costs: Callable[[LayerSize, Any], dict[str, float]],
    metric: str,
) -> BitTable:
    """Return what each option hurts, measured with one layer changed, and costs.

    Args:
        graph: of the network.
        sizes, options: of its layers.
        images: batches for calibration.
        weight: (layer, option) -> the weights that the layer has in effect.
        costs: (layer, option) -> what it takes, by name.
        metric: of :data:`supernet.ptq.sensitivity.METRICS`, what hurting is.
    """
    from supernet.ptq.rank import rank_sensitivity

    rows = list(zip(sizes, options, strict=True))
    names = [size.name for size in sizes]
    versions = {size.name: [weight(size.name, one) for one in own] for size, own in rows}
    hurt = rank_sensitivity(graph, images, versions, metric)
    found = [[costs(size, one) for one in own] for size, own in rows]
    return BitTable.of(
        names,
        options,
        [hurt[name] for name in names],
        {cost: [[one[cost] for one in own] for own in found] for cost in found[0][0]},
        dict.fromkeys(("weights_kib", "sparse_kib"), graph.beside_kib())
        | graph.products(images[0]),
    )


def rounded(weight: Tensor, number: int | str, what: str) -> Tensor:
    """Return weights at some bits of integers; ``what`` is searched, for the message.

    Raises:
        InputError: a number format.
    """
    from supernet.ptq.ranges import quantize_weight, weight_steps

    if not isinstance(number, int):
        raise InputError(f"{what} searched with bits of integers, not {number}")
    if number >= FLOAT_BITS:
        return weight
    return quantize_weight(weight, weight_steps(weight, number), number)


def compared(
    table: BitTable, limits: Mapping[str, float], name: str, unchanged: Callable[[Any], bool]
) -> list[Allocation]:
    """Return the optimum of options that change no layer, called ``name``, and greedy descent."""
    keep = [[k for k, one in enumerate(own) if unchanged(one)] for own in table.options]
    return allocations_within(
        {
            name: lambda: allocate(table.only(keep), limits),
            "greedy": lambda: allocate_greedily(table, limits),
        }
    )
