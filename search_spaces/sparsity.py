"""Zeros among the weights of a layer: which patterns there are, and what storing them would take.

``50%`` lets zeros lie anywhere (magnitude pruning; Han et al., NeurIPS 2015). ``2:4`` keeps at most
2 of every 4 weights that follow each other along a layer's inputs, as sparse tensor cores read them
(Mishra et al., Accelerating Sparse Deep Neural Networks, 2021). Files and runtimes here store
zeros like any other code, so sizes of sparse storage are estimates: what the weights that are left,
and the places where they belong, would take.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from search_spaces.errors import InputError
from search_spaces.layers import LayerPlan
from search_spaces.number_formats import number_format

DENSE = "dense"
"""The pattern of a layer that is left as it is."""

MOST_OF = 32
"""Largest M of N:M; more are no pattern that hardware has."""


@dataclass(frozen=True)
class Sparsity:
    """Which weights of a layer are zero.

    Attributes:
        share: of the weights that are zero, 0 to 1 (exclusive).
        kept, of: N and M of the pattern N:M; 0 where zeros lie anywhere.

    Raises:
        InputError: a pattern that makes no sense.
    """

    share: float
    kept: int = 0
    of: int = 0

    def __post_init__(self) -> None:
        if (self.of or self.kept) and not (1 <= self.kept < self.of <= MOST_OF):
            raise InputError(
                f"the pattern {self.kept}:{self.of} keeps no part of its weights; give N:M with N "
                f"below M and M up to {MOST_OF}, such as 2:4"
            )
        if not 0 <= self.share < 1:
            raise InputError(f"{self.share:g} of the weights zero; give a share from 0 to below 1")

    def __str__(self) -> str:
        if self.of:
            return f"{self.kept}:{self.of}"
        return f"{100 * self.share:g}%" if self.share else DENSE

    @property
    def dense(self) -> bool:
        """Whether nothing is zero by it."""
        return self.share == 0

    def zeros(self, weights: int) -> int:
        """Return how many of ``weights`` are zero."""
        return round(self.share * weights)

    def stored_bits(self, weights: int, bits: int) -> int:
        """Return the bits that sparse storage of a layer's weights would take: an estimate.

        N:M has the place of each weight that is left among its M, ``ceil(log2 M)`` bits; zeros
        anywhere have a map of one bit a weight. No file or runtime here stores weights so.

        Args:
            weights: of the layer, zeros included.
            bits: of a weight.
        """
        if self.dense:
            return weights * bits
        left = weights - self.zeros(weights)
        place = left * math.ceil(math.log2(self.of)) if self.of else weights
        return left * bits + place


NO_SPARSITY = Sparsity(0.0)


def parse_sparsity(text: str) -> Sparsity:
    """Return the pattern that ``text`` names: ``dense``, ``50%``, ``0.5`` or ``2:4``.

    Raises:
        InputError: it names none.
    """
    text = str(text).strip()
    if text == DENSE:
        return NO_SPARSITY
    if found := re.fullmatch(r"(\d+):(\d+)", text):
        kept, of = int(found[1]), int(found[2])
        return Sparsity(1 - kept / of if of else 0.0, kept, of)
    try:
        value = float(text.removesuffix("%"))
    except ValueError:
        raise InputError(
            f"no sparsity {text!r}; give dense, a share of zeros such as 50%, or N:M such as 2:4"
        ) from None
    return Sparsity(value / 100 if text.endswith("%") else value)


def refusal(
    sparsity: Sparsity, *, inputs: int, weight_bits: int, weight_format: str = ""
) -> str | None:
    """Return why a layer cannot have a pattern, None where it can.

    Args:
        sparsity: the pattern.
        inputs: channels that one output reads: in a group, of a convolution with groups.
        weight_bits: of its weights.
        weight_format: number format of its weights; empty for integers and floats.
    """
    if sparsity.dense:
        return None
    if sparsity.of and inputs % sparsity.of:
        each = "1 input channel" if inputs == 1 else f"{inputs} input channels"
        return f"an output reads {each}, which are no whole number of groups of {sparsity.of}"
    if weight_format and not all(0.0 in table for table in number_format(weight_format).tables):
        return f"the number format {weight_format} has no zero"
    if weight_bits == 1:
        return "weights of 1 bit have no zero"
    return None


def layer_sparsity(
    layers: Sequence[LayerPlan[int]],
    default: Sparsity = NO_SPARSITY,
    named: Mapping[str, Sparsity] | None = None,
    *,
    formats: Mapping[str, str] | None = None,
    strict: bool = True,
) -> dict[str, Sparsity]:
    """Return the pattern of each layer, by name.

    Args:
        layers: of a network, in order of execution.
        default: of every layer but the first and the last; those that cannot take it stay dense.
        named: by a layer's name, or by its role for all layers of the role that this network has.
        formats: number formats of weights by layer; others are integers or floats.
        strict: otherwise what is named may be missing, and a layer that cannot have its pattern
            stays dense: of an architecture of a space, which has not all of its layers and widths.

    Raises:
        InputError: a name of no layer, or a layer that cannot have the pattern it is given by name.
    """
    named = dict(named or {})
    known = {layer.name for layer in layers} | {layer.role for layer in layers}
    for name in named:
        if strict and name not in known:
            raise InputError(
                f"no layer and no role is called {name!r}; roles here: "
                f"{', '.join(sorted({layer.role for layer in layers}))}"
            )
    found = {}
    for place, layer in enumerate(layers):
        edge = place in (0, len(layers) - 1)
        own = named.get(layer.name, named.get(layer.role))
        chosen = own if own is not None else (NO_SPARSITY if edge else default)
        why = refusal(
            chosen,
            inputs=layer.in_channels // layer.groups,
            weight_bits=layer.weight_bits,
            weight_format=(formats or {}).get(layer.name, ""),
        )
        if strict and why is not None and own is not None:
            raise InputError(f"{layer.name} cannot have the sparsity {chosen}: {why}")
        found[layer.name] = NO_SPARSITY if why is not None else chosen
    return found


def sparse_kib(layers: Sequence[LayerPlan[int]], patterns: Mapping[str, Sparsity]) -> float:
    """Return KiB of weights, scales and biases if zeros were not stored: an estimate.

    Where the places of what is left would take more than the zeros save, a layer counts as dense.
    """
    total = 0
    for layer in layers:
        dense = layer.packed_bytes
        pattern = patterns.get(layer.name, NO_SPARSITY)
        saved = layer.weight_count * layer.weight_bits - pattern.stored_bits(
            layer.weight_count, layer.weight_bits
        )
        total += dense - max(0, saved // 8)
    return total / 1024
