"""Sparsity and bits of each layer of a trained network, chosen together by the integer programme.

Every layer stays dense or has a pattern of zeros, and has bits. What an option hurts is measured
with the layer so pruned and quantised and everything else in float. No runtime here is faster for
zeros and no file smaller, so what they buy is told as an estimate of sparse storage
(:class:`search_spaces.sparsity.Sparsity`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from nas.bits.allocation import Allocation, Bits, BitTable, allocate, allocate_greedily
from nas.bits.search import STEPS, LayerSize, layer_sizes, resolve_budgets
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.plan import FLOAT_BITS
from search_spaces.sparsity import NO_SPARSITY, Sparsity

if TYPE_CHECKING:
    from torch import Tensor, nn

    from supernet.plain import PlainNetwork
    from supernet.ptq.graph import FloatGraph

BUDGETS = ("sparse_kib", "weights_kib", "bops")
"""Costs that a budget may be put on. ``sparse_kib`` is what sparse storage would take, an estimate;
``weights_kib`` what files here take, zeros stored like any other code."""


@dataclass(frozen=True)
class SparseOption:
    """One option of a layer: its bits and which of its weights are zero."""

    bits: Bits
    sparsity: Sparsity = NO_SPARSITY

    def __str__(self) -> str:
        return f"{self.bits}, {self.sparsity}"


@dataclass(frozen=True)
class SparseResult:
    """What :func:`allocate_sparsity` found.

    Attributes:
        table: sensitivities and costs.
        budgets: in units.
        best: the proven optimum.
        others: what greedy descent and the optimum of dense layers give, where they meet the
            budgets.
        network: quantised; written by :func:`nas.bits.search.write_bits`.
        patterns: of each layer, for quantising it again after training on.
        refused: by layer, why it cannot have the patterns that were asked for.
    """

    table: BitTable
    budgets: dict[str, float]
    best: Allocation
    others: list[Allocation]
    network: PlainNetwork
    patterns: dict[str, Sparsity]
    refused: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as JSON-compatible data."""
        layers = self.table.layers
        return {
            "metric": "kl",
            "budgets": self.budgets,
            "best": self.best.to_json(layers, _option_json),
            "baselines": [other.to_json(layers, _option_json) for other in self.others],
            "estimated": ["sparse_kib"],
            "cannot_be_sparse": self.refused,
        }


def _option_json(option: SparseOption) -> dict[str, Any]:
    return {
        "weight_bits": option.bits.weight,
        "activation_bits": option.bits.activation,
        "sparsity": str(option.sparsity),
    }


def allocate_sparsity(
    module: nn.Module,
    calibration: Iterable[Tensor],
    budgets: Mapping[str, float | str],
    *,
    patterns: Sequence[Sparsity],
    weight_bits: Sequence[int] = (4, 8),
    activation_bits: int = 8,
    edge_bits: int | None = 8,
    seed: int = 0,
) -> SparseResult:
    """Find sparsity and bits of every layer, and quantise the network to them.

    Args:
        module: a trained float network that ``torch.export`` can capture; left as it is.
        calibration: batches of images (batch, channels, height, width), not augmented.
        budgets: cost of :data:`BUDGETS` -> largest total, a number or a share such as "60%" of
            what dense layers of the largest bits cost.
        patterns: that a layer may have; dense is always among them.
        weight_bits: of layers.
        activation_bits: of all their inputs.
        edge_bits: bits of the first and the last layer, which stay dense; None lets them vary.
        seed: of quantisation.

    Raises:
        InfeasibleError: the budgets cannot be met; the message says what the cheapest needs.
        InputError: no layer can have any of the patterns, or a network that cannot be traced.
    """
    from supernet.ptq.quantize import quantize_post_training
    from supernet.ptq.rank import traced
    from supernet.sparsity.masks import layer_refusal

    images = list(calibration)
    graph = traced(module, images)
    sizes = layer_sizes(module, images[0])
    wanted = [pattern for pattern in dict.fromkeys(patterns) if not pattern.dense]
    edges = set() if edge_bits is None else {sizes[0].name, sizes[-1].name}
    options: list[list[SparseOption]] = []
    refused: dict[str, str] = {}
    for size in sizes:
        if size.name in edges and edge_bits is not None:
            options.append([SparseOption(Bits(edge_bits, edge_bits))])
            continue
        own = [NO_SPARSITY]
        for pattern in wanted:
            why = layer_refusal(graph.layer(size.name), pattern)
            if why is None:
                own.append(pattern)
            else:
                refused[size.name] = f"{pattern}: {why}"
        options.append(
            [
                SparseOption(Bits(w, activation_bits), pattern)
                for pattern, w in itertools.product(own, weight_bits)
            ]
        )
    if all(option.sparsity.dense for own in options for option in own):
        told = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise InputError(
            f"no layer can have the sparsity {', '.join(map(str, wanted)) or 'asked for'}"
            + (f" ({told})" if told else "; give patterns such as 50%,2:4")
        )
    table = _table(graph, sizes, options, images)
    limits = resolve_budgets(table, budgets)
    best = allocate(table, limits)
    chosen = {
        name: option.sparsity for name, option in zip(table.layers, best.options, strict=True)
    }
    bits = {
        name: (option.bits.weight, option.bits.activation)
        for name, option in zip(table.layers, best.options, strict=True)
    }
    network = quantize_post_training(module, images, bits, steps=STEPS, seed=seed, sparsity=chosen)
    return SparseResult(table, limits, best, _others(table, limits), network, chosen, refused)


def _table(
    graph: FloatGraph,
    sizes: Sequence[LayerSize],
    options: Sequence[Sequence[SparseOption]],
    images: Sequence[Tensor],
) -> BitTable:
    from supernet.ptq.rank import rank_sensitivity

    versions = {
        size.name: [_weight(graph, size.name, option) for option in own]
        for size, own in zip(sizes, options, strict=True)
    }
    hurt = rank_sensitivity(graph, images, versions)
    costs = [[_costs(size, option) for option in own]
             for size, own in zip(sizes, options, strict=True)]  # fmt: skip
    return BitTable.of(
        [size.name for size in sizes],
        options,
        [hurt[size.name] for size in sizes],
        {name: [[one[name] for one in row] for row in costs] for name in BUDGETS},
    )


def _weight(graph: FloatGraph, name: str, option: SparseOption) -> Tensor:
    """Return the weights that a layer has in effect with an option."""
    from supernet.ptq.ranges import quantize_weight, weight_steps
    from supernet.sparsity.masks import magnitude_mask

    weight = graph.layer(name).weight.detach()
    weight = weight * magnitude_mask(weight, option.sparsity)
    number = option.bits.weight
    if not isinstance(number, int):
        raise InputError(f"sparsity is searched with bits of integers, not {number}")
    if number >= FLOAT_BITS:
        return weight
    return quantize_weight(weight, weight_steps(weight, number), number)


def _costs(size: LayerSize, option: SparseOption) -> dict[str, float]:
    dense = size.packed_kib(option.bits.weight)
    bits = option.bits.weight_bits
    saved = size.weights * bits - option.sparsity.stored_bits(size.weights, bits)
    return {
        # Where places take more than zeros save, a layer would be stored dense.
        "sparse_kib": dense - max(0, saved) / 8 / 1024,
        "weights_kib": dense,
        "bops": float(size.macs * bits * option.bits.activation_bits),
    }


def _others(table: BitTable, limits: Mapping[str, float]) -> list[Allocation]:
    dense = [[k for k, o in enumerate(own) if o.sparsity.dense] for own in table.options]
    plain = BitTable(
        table.layers,
        tuple(tuple(own[k] for k in keep) for own, keep in zip(table.options, dense, strict=True)),
        tuple(s[keep] for s, keep in zip(table.sensitivity, dense, strict=True)),
        {
            name: tuple(c[keep] for c, keep in zip(column, dense, strict=True))
            for name, column in table.costs.items()
        },
        table.fixed,
    )
    found = []
    for name, method in (
        ("dense", lambda: allocate(plain, limits)),
        ("greedy", lambda: allocate_greedily(table, limits)),
    ):
        try:
            found.append(replace(method(), method=name))
        except InfeasibleError:
            continue
    return found
