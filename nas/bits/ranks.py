"""Rank and bits of each layer of a trained network, chosen together by the integer programme.

Every layer stays one layer at some bits, or becomes two thin ones of some rank, each with bits of
its own (as low-rank factors in LittleBit, Lee et al., 2025, and mixed decompositions in Mixed-TD,
Yu and Bouganis, 2023). What an option hurts is measured with the layer so changed and everything
else in float.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.bits.allocation import Allocation, Bits, BitTable, allocate
from nas.bits.changed_layers import changed_table, compared, rounded
from nas.bits.search import (
    STEPS,
    BitsResult,
    LayerSize,
    layer_options,
    layer_sizes,
    resolve_budgets,
)
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from supernet.ptq.graph import FloatGraph
    from supernet.ptq.rank import Factors

BUDGETS = ("weights_kib", "bops", "macs")
"""Costs that a budget may be put on."""


@dataclass(frozen=True)
class RankOption:
    """One option of a layer.

    Attributes:
        bits: of the layer, or of the factor ``up``.
        rank: of the two layers; 0 for one layer.
        down: bits of the factor ``down``, whose input is the layer's own.
    """

    bits: Bits
    rank: int = 0
    down: Bits | None = None

    def to_json(self) -> dict[str, Any]:
        """Return the option as JSON-compatible data."""
        down = self.down
        two = {} if down is None else {"rank": self.rank, "down_weight_bits": down.weight}
        return self.bits.to_json() | two

    def __str__(self) -> str:
        return f"rank {self.rank}, {self.down} then {self.bits}" if self.rank else str(self.bits)


@dataclass(frozen=True, kw_only=True)
class RankResult(BitsResult):
    """What :func:`allocate_ranks` found: a network in which some layers are two.

    Attributes:
        module: the network in float, to be trained on.
        layer_bits: bits of each layer of ``module``, for quantising it again.
    """

    module: nn.Module
    layer_bits: dict[str, tuple[int | str, int | str]]


def allocate_ranks(
    module: nn.Module,
    calibration: Iterable[Tensor],
    budgets: Mapping[str, float | str],
    *,
    shares: Sequence[float] = (0.125, 0.25, 0.5, 0.75),
    weight_bits: Sequence[int] = (4, 8),
    activation_bits: int = 8,
    edge_bits: int | None = 8,
    metric: str = "kl",
    seed: int = 0,
) -> RankResult:
    """Find rank and bits of every layer, and quantise the network to them.

    Args:
        module: a trained float network that ``torch.export`` can capture; left as it is.
        calibration: batches of images (batch, channels, height, width), not augmented.
        budgets: cost of :data:`BUDGETS` -> largest total, a number or a share such as "60%".
        shares: ranks, as shares of the largest at which two layers are smaller than one.
        weight_bits: of layers and factors.
        activation_bits: of all their inputs.
        edge_bits: bits of the first and the last layer, which stay single; None lets them vary.
        metric: of :data:`supernet.ptq.sensitivity.METRICS`, what an option hurts.
        seed: of quantisation.

    Raises:
        InfeasibleError: the budgets cannot be met; the message says what the cheapest needs.
        InputError: a share outside 0 to 1, or a network that cannot be traced.
    """
    from supernet.ptq.quantize import quantize_post_training
    from supernet.ptq.rank import layer_factors, traced

    for share in shares:
        if not 0 < share <= 1:
            raise InputError(f"a rank of {share:g} of the useful ones; give shares above 0, to 1")
    images = list(calibration)
    graph = traced(module, images)
    factors = layer_factors(graph, images)
    sizes = layer_sizes(module, images[0])

    def own(size: LayerSize) -> list[RankOption]:
        found = [RankOption(Bits(w, activation_bits)) for w in weight_bits]
        if size.name in factors:
            ranks = _ranks(graph, size.name, shares)
            for rank, down, up in itertools.product(ranks, weight_bits, weight_bits):
                pair = Bits(down, activation_bits), Bits(up, activation_bits)
                found.append(RankOption(pair[1], rank, pair[0]))
        return found

    table = changed_table(
        graph, sizes,
        layer_options(sizes, edge_bits, lambda *bits: RankOption(Bits(*bits)), own), images,
        lambda name, option: _weight(graph, factors, name, option),
        lambda size, option: _costs(graph, size, option), metric,
    )  # fmt: skip
    limits = resolve_budgets(table, budgets)
    best = allocate(table, limits)
    ranked, bits = _applied(graph, factors, table, best, images)
    network = quantize_post_training(ranked, images, bits, steps=STEPS, seed=seed)
    others = compared(table, limits, "without ranks", lambda option: not option.rank)
    return RankResult(table, limits, best, others, network, metric, module=ranked, layer_bits=bits)


def _ranks(graph: FloatGraph, name: str, shares: Sequence[float]) -> list[int]:
    from supernet.ptq.rank import most_useful_rank

    outputs, inputs = graph.layer(name).weight.flatten(1).shape
    largest = min(most_useful_rank(outputs, inputs), outputs, inputs)
    return sorted({max(1, round(share * largest)) for share in shares})


def _weight(
    graph: FloatGraph, factors: Mapping[str, Factors], name: str, option: RankOption
) -> Tensor:
    """Return the weights that a layer has in effect with an option."""
    weight = graph.layer(name).weight.detach()
    if not option.rank or option.down is None:
        return rounded(weight, option.bits.weight, "ranks are")
    down, up = factors[name].cut(option.rank)
    product = rounded(up, option.bits.weight, "ranks are") @ rounded(
        down, option.down.weight, "ranks are"
    )
    return product.reshape(weight.shape)


def _costs(graph: FloatGraph, size: LayerSize, option: RankOption) -> dict[str, float]:
    outputs, inputs = graph.layer(size.name).weight.flatten(1).shape
    positions = size.macs // max(1, size.weights)
    parts = [(size.weights, outputs, option.bits)]
    if option.rank and option.down is not None:
        parts = [
            (option.rank * inputs, option.rank, option.down),
            (outputs * option.rank, outputs, option.bits),
        ]
    found = dict.fromkeys(BUDGETS, 0.0)
    for weights, rows, bits in parts:
        macs = weights * positions
        found["weights_kib"] += LayerSize("", weights, rows, macs).packed_kib(bits.weight)
        found["bops"] += float(macs * bits.weight_bits * bits.activation_bits)
        found["macs"] += float(macs)
    return found


def _applied(
    graph: FloatGraph,
    factors: Mapping[str, Factors],
    table: BitTable,
    allocation: Allocation,
    images: Sequence[Tensor],
) -> tuple[nn.Module, dict[str, tuple[int | str, int | str]]]:
    """Return the network with its ranks, and the bits of each of its layers by name."""
    from supernet.ptq.rank import traced, with_ranks

    chosen: dict[str, RankOption] = dict(zip(table.layers, allocation.options, strict=True))
    module = with_ranks(
        graph, factors, {name: one.rank for name, one in chosen.items() if one.rank}
    )
    pairs = [
        bits
        for option in chosen.values()
        for bits in (option.down, option.bits)
        if bits is not None
    ]
    # In order of execution, as the table is: a layer's two stand in its place.
    names = list(traced(module, images).layers)
    found = zip(names, pairs, strict=True)
    return module, {name: (bits.weight, bits.activation) for name, bits in found}
