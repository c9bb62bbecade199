"""Sparsity and bits of each layer of a trained network, chosen together by the integer programme.

Every layer stays dense or has a pattern of zeros, and has bits. What an option hurts is measured
with the layer so pruned and quantised and everything else in float. No runtime here is faster for
zeros and no file smaller, so what they buy is told as an estimate of sparse storage
(:class:`search_spaces.sparsity.Sparsity`).
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nas.bits.allocation import Bits, allocate
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
from search_spaces.sparsity import NO_SPARSITY, Sparsity

if TYPE_CHECKING:
    from torch import Tensor, nn

    from supernet.ptq.graph import FloatGraph

BUDGETS = ("sparse_kib", "weights_kib", "bops")
"""Costs that a budget may be put on. ``sparse_kib`` is what sparse storage would take, an estimate;
``weights_kib`` what files here take, zeros stored like any other code."""


@dataclass(frozen=True)
class SparseOption:
    """One option of a layer: its bits and which of its weights are zero."""

    bits: Bits
    sparsity: Sparsity = NO_SPARSITY

    def to_json(self) -> dict[str, Any]:
        """Return the option as JSON-compatible data."""
        return self.bits.to_json() | {"sparsity": str(self.sparsity)}

    def __str__(self) -> str:
        return f"{self.bits}, {self.sparsity}"


@dataclass(frozen=True, kw_only=True)
class SparseResult(BitsResult):
    """What :func:`allocate_sparsity` found.

    Attributes:
        patterns: of each layer, for quantising it again after training on.
        refused: by layer, why it cannot have the patterns that were asked for.
    """

    patterns: dict[str, Sparsity]
    refused: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        """Return everything but the network as JSON-compatible data."""
        beside = {"estimated": ["sparse_kib"], "cannot_be_sparse": self.refused}
        return super().to_json() | beside


def allocate_sparsity(
    module: nn.Module,
    calibration: Iterable[Tensor],
    budgets: Mapping[str, float | str],
    *,
    patterns: Sequence[Sparsity],
    weight_bits: Sequence[int] = (4, 8),
    activation_bits: int = 8,
    edge_bits: int | None = 8,
    metric: str = "kl",
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
        metric: of :data:`supernet.ptq.sensitivity.METRICS`, what an option hurts.
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
    refused: dict[str, str] = {}

    def own(size: LayerSize) -> list[SparseOption]:
        possible = [NO_SPARSITY]
        for pattern in wanted:
            why = layer_refusal(graph.layer(size.name), pattern)
            if why is None:
                possible.append(pattern)
            else:
                refused[size.name] = f"{pattern}: {why}"
        return [
            SparseOption(Bits(w, activation_bits), pattern)
            for pattern, w in itertools.product(possible, weight_bits)
        ]

    options = layer_options(sizes, edge_bits, lambda *bits: SparseOption(Bits(*bits)), own)
    if all(option.sparsity.dense for own in options for option in own):
        told = "; ".join(f"{name}: {why}" for name, why in refused.items())
        raise InputError(
            f"no layer can have the sparsity {', '.join(map(str, wanted)) or 'asked for'}"
            + (f" ({told})" if told else "; give patterns such as 50%,2:4")
        )
    table = changed_table(
        graph, sizes, options, images, lambda name, option: _weight(graph, name, option), _costs,
        metric,
    )  # fmt: skip
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
    others = compared(table, limits, "dense", lambda option: option.sparsity.dense)
    return SparseResult(
        table, limits, best, others, network, metric, patterns=chosen, refused=refused
    )


def _weight(graph: FloatGraph, name: str, option: SparseOption) -> Tensor:
    """Return the weights that a layer has in effect with an option."""
    from supernet.sparsity.masks import magnitude_mask

    weight = graph.layer(name).weight.detach()
    weight = weight * magnitude_mask(weight, option.sparsity)
    return rounded(weight, option.bits.weight, "sparsity is")


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
