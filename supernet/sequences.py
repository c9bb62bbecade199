"""What an encoder-decoder has beside its layers, and how tensors run through its blocks.

Between blocks tensors are ``(current, *kept)``: with the encoder's current output go the mask of
the source, the numbers of the target's symbols and the outputs of the last encoder layers, the
latest first.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.plan import OperatorPlan
from search_spaces.spaces.encoder_decoder import MOST_ATTENDED
from supernet.dataflow import Operation
from supernet.language import HIDDEN, attended
from supernet.operators import OPERATORS, ElasticLayerNorm, ElasticOperator

Alive = tuple[Tensor, ...]


def embed_source(x: Alive, ops: Mapping[str, Operation], residual: bool) -> Alive:
    """Divide an input in source and target, and embed the source.

    ``x``: (batch, 1, 1, source + target); returns (batch, source, channels), the mask
    (batch, 1, 1, source) and the target's numbers (batch, target).
    """
    source, target, mask = ops["pair"](x[0])
    return ops["embed"](source), mask, target


def encoder(x: Alive, ops: Mapping[str, Operation], residual: bool) -> Alive:
    """Pre-norm encoder layer (Vaswani et al., 2017, section 3.1): attention, then MLP.

    ``x``: as above, the current tensor (batch, source, channels), float.
    """
    current, mask, target, *memories = x
    current = encoded(current, ops, mask)
    return current, mask, target, *[current, *memories][:MOST_ATTENDED]


def encoded(x: Tensor, ops: Any, mask: Tensor) -> Tensor:
    """Return an encoder layer's output. ``x``: (batch, n, channels); ``mask``: (batch, 1, 1, n)."""
    x = x + ops["project"](ops["attend"](ops["qkv"](ops["norm1"](x)), mask))
    return x + ops["contract"](ops["widen"](ops["norm2"](x)))


def embed_target(x: Alive, ops: Mapping[str, Operation], residual: bool) -> Alive:
    """Embed what the decoder is given: the current tensor becomes (batch, target, channels)."""
    _, mask, target, *memories = x
    return ops["embed"](target), mask, *memories


def cross_decoder(x: Alive, ops: Mapping[str, Operation], residual: bool) -> Alive:
    """Pre-norm decoder layer: causal attention, attention to encoder layers, MLP.

    The outputs of the last encoder layers, as many as the layer attends to, lie one after another
    (HAT: Wang et al., ACL 2020, section 3.1).
    """
    current, mask, *memories = x
    current = current + ops["project"](ops["attend"](ops["qkv"](ops["norm1"](current))))
    memory, hidden = ops["gather"](mask, *memories)
    h = ops["cross"](ops["query"](ops["norm2"](current)), ops["memory"](memory), hidden)
    current = current + ops["combine"](h)
    current = current + ops["contract"](ops["widen"](ops["norm3"](current)))
    return current, mask, *memories


def sequence_head(x: Alive, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Layer norm and a value for each symbol: returns (batch, target, outputs)."""
    return ops["classifier"](ops["norm"](x[0]))


class SequencePair(nn.Module):
    """Divides an input: its first ``length`` numbers are the source, 0 where there is nothing."""

    def __init__(self, length: int) -> None:
        super().__init__()
        self.length = length

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x``: (batch, 1, 1, source + target) -> source, target, mask; see above."""
        numbers = x.flatten(1)
        source, target = numbers.split([self.length, numbers.shape[1] - self.length], 1)
        return source, target, mask_of(source)


def mask_of(source: Tensor) -> Tensor:
    """Return what is added to scores, (batch, 1, 1, n): :data:`HIDDEN` where nothing is.

    ``source``: numbers of symbols (batch, n), as floats.
    """
    nothing = (source.round().clamp(0, 1) - 1) * -HIDDEN
    return nothing.unsqueeze(1).unsqueeze(1)


@OPERATORS.register("sequence_pair")
class ElasticSequencePair(ElasticOperator):
    """:class:`SequencePair`; it has nothing to learn."""

    def forward(self, x: Tensor, operator: OperatorPlan) -> tuple[Tensor, ...]:
        """``x``: (batch, 1, 1, source + target) -> source, target, mask."""
        return self.extract(operator)(x)

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`SequencePair`."""
        return SequencePair(operator.tokens)


class MaskedAttention(nn.Module):
    """Multi-head attention among all tokens that are there.

    The channels of the joint projection are ordered as in
    :class:`supernet.language.CausalAttention`.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        """``x``: (batch, n, 3 * channels); ``mask``: (batch, 1, 1, n) -> (batch, n, channels)."""
        return attended(x, self.heads, mask)


@OPERATORS.register("masked_attention")
class ElasticMaskedAttention(ElasticOperator):
    """:class:`MaskedAttention` of an elastic number of heads."""

    def forward(  # type: ignore[override]
        self, x: Tensor, mask: Tensor, operator: OperatorPlan
    ) -> Tensor:
        """``x``: (batch, n, 3 * channels); ``mask``: (batch, 1, 1, n) -> (batch, n, channels)."""
        return attended(x, operator.heads, mask)

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`MaskedAttention`."""
        return MaskedAttention(operator.heads)


class JoinedMemory(nn.Module):
    """Outputs of the last encoder layers one after another, normalised.

    Args:
        layers: how many of them.
        norm: of their channels.
    """

    def __init__(self, layers: int, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.layers, self.norm = layers, norm

    def forward(self, mask: Tensor, *memories: Tensor) -> tuple[Tensor, Tensor]:
        """Return (batch, layers * n, channels) and its mask (batch, 1, 1, layers * n).

        ``mask``: (batch, 1, 1, n); ``memories``: each (batch, n, channels), the latest first.
        """
        x, hidden = joined(self.layers, mask, memories)
        return self.norm(x), hidden


def joined(layers: int, mask: Tensor, memories: tuple[Tensor, ...]) -> tuple[Tensor, Tensor]:
    """Return the first ``layers`` of ``memories`` one after another, and the mask of them."""
    if layers == 1:
        return memories[0], mask
    return torch.cat(list(memories[:layers]), 1), torch.cat([mask] * layers, 3)


@OPERATORS.register("joined_memory")
class ElasticJoinedMemory(ElasticLayerNorm):
    """:class:`JoinedMemory` of an elastic number of layers; their norm is one for all of them."""

    def forward(  # type: ignore[override]
        self, mask: Tensor, *memories: Tensor, operator: OperatorPlan
    ) -> tuple[Tensor, Tensor]:
        """See :meth:`JoinedMemory.forward`."""
        x, hidden = joined(operator.entries, mask, memories)
        return super().forward(x, operator), hidden

    def extract(self, operator: OperatorPlan) -> nn.Module:  # type: ignore[override]
        """Return :class:`JoinedMemory`."""
        return JoinedMemory(operator.entries, super().extract(operator))


class CrossAttention(nn.Module):
    """Attention of the decoder to the encoder's outputs.

    The channels of their joint projection are ordered (head, key | value, width), so that fewer
    heads are a prefix of more.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, query: Tensor, joint: Tensor, mask: Tensor) -> Tensor:
        """Return (batch, target, channels).

        ``query``: (batch, target, channels); ``joint``: (batch, n, 2 * channels); ``mask``:
        (batch, 1, 1, n).
        """
        return attended_to(query, *split_memory(joint, self.heads), mask)


def split_memory(joint: Tensor, heads: int) -> tuple[Tensor, Tensor]:
    """Return keys (batch, heads, width, n), as products read them, and values with n before width.

    ``joint``: (batch, n, 2 * channels), see :class:`CrossAttention`.
    """
    key, value = joint.unflatten(2, (heads, -1)).transpose(1, 2).chunk(2, dim=-1)
    return key.transpose(-2, -1), value


def attended_to(query: Tensor, keys: Tensor, values: Tensor, mask: Tensor) -> Tensor:
    """Return the attention's output (batch, m, channels); products and softmax are float.

    ``query``: (batch, m, channels); ``keys``: (batch, heads, width, n); ``values``: (batch, heads,
    n, width); ``mask``: (batch, 1, 1, n).
    """
    split = query.unflatten(2, (-1, keys.shape[2])).transpose(1, 2)
    scores = (split * split.shape[-1] ** -0.5) @ keys + mask
    return (scores.softmax(-1) @ values).transpose(1, 2).flatten(2)


@OPERATORS.register("cross_attention")
class ElasticCrossAttention(ElasticOperator):
    """:class:`CrossAttention` of an elastic number of heads."""

    def forward(  # type: ignore[override]
        self, query: Tensor, joint: Tensor, mask: Tensor, operator: OperatorPlan
    ) -> Tensor:
        """See :meth:`CrossAttention.forward`."""
        return attended_to(query, *split_memory(joint, operator.heads), mask)

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`CrossAttention`."""
        return CrossAttention(operator.heads)
