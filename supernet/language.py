"""What a language model has beside its layers: the embedding of tokens, and causal attention."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.plan import OperatorPlan
from supernet.operators import OPERATORS, ElasticOperator

HIDDEN = -1e4
"""What is added to the score of a later token; its share is then 0 in float32."""

FUSED = 64
"""Tokens from which on training runs attention as one operation, which takes two thirds of the time
of its parts with 128 tokens, and more with 24. What is extracted spells the parts out, for files.
"""


class TokenEmbedding(nn.Module):
    """Adds the embeddings of tokens and of their positions.

    Inputs are numbers of tokens as floats, as everything is that a network is given; they are
    rounded, and numbers beyond the vocabulary are taken for its ends, so that a file answers
    whatever it is measured with.

    Args:
        table: (vocabulary, channels).
        positions: (length, channels).
    """

    def __init__(self, table: Tensor, positions: Tensor) -> None:
        super().__init__()
        self.table, self.positions = nn.Parameter(table), nn.Parameter(positions)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (batch, 1, 1, tokens) -> (batch, tokens, channels)."""
        return embedded(x.flatten(1), self.table) + self.positions


def embedded(tokens: Tensor, table: Tensor) -> Tensor:
    """Return the rows of ``table`` (vocabulary, channels) for tokens (batch, n), as floats."""
    numbers = tokens.round().clamp(0, table.shape[0] - 1).long()
    return F.embedding(numbers, table)


@OPERATORS.register("token_embedding")
class ElasticTokenEmbedding(ElasticOperator):
    """:class:`TokenEmbedding`; a narrow network uses a prefix of the channels."""

    def __init__(self, largest: OperatorPlan) -> None:
        super().__init__(largest)
        self.table = nn.Parameter(torch.empty(largest.entries, largest.channels))
        self.positions = nn.Parameter(torch.empty(largest.tokens, largest.channels))
        # The larger, the longer a token stays itself among what branches add to it.
        nn.init.normal_(self.table, std=0.2)
        nn.init.normal_(self.positions, std=0.02)

    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor:
        """``x``: (batch, 1, 1, tokens) -> (batch, tokens, channels)."""
        n = operator.channels
        return embedded(x.flatten(1), self.table[:, :n]) + self.positions[:, :n]

    @torch.no_grad()
    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`TokenEmbedding`."""
        n = operator.channels
        return TokenEmbedding(self.table[:, :n].clone(), self.positions[:, :n].clone())


class CausalAttention(nn.Module):
    """Multi-head attention in which a token sees itself and those before it.

    The channels of the joint projection are ordered (head, query | key | value, width), so that
    fewer heads are a prefix of more.

    Args:
        heads: of equal width.
        tokens: of an input.
    """

    mask: Tensor

    def __init__(self, heads: int, tokens: int) -> None:
        super().__init__()
        self.heads, self.tokens = heads, tokens
        self.register_buffer("mask", later_hidden(tokens), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (batch, tokens, 3 * channels) -> (batch, tokens, channels)."""
        return attended(x, self.heads, self.mask)


def later_hidden(tokens: int) -> Tensor:
    """Return what is added to scores, (tokens, tokens): :data:`HIDDEN` for later tokens."""
    return torch.full((tokens, tokens), HIDDEN).triu(1)


def attended(joint: Tensor, heads: int, mask: Tensor) -> Tensor:
    """Return the attention's output (batch, tokens, channels); products and softmax are float.

    ``joint``: (batch, tokens, 3 * channels); ``mask``: (tokens, tokens).
    """
    query, key, value = split_heads(joint, heads)
    scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-2, -1) + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).flatten(2)


def split_heads(joint: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return queries, keys and values (batch, heads, tokens, width).

    ``joint``: (batch, tokens, 3 * channels), see :class:`CausalAttention`.
    """
    query, key, value = joint.unflatten(2, (heads, -1)).transpose(1, 2).chunk(3, dim=-1)
    return query, key, value


@OPERATORS.register("causal_attention")
class ElasticCausalAttention(ElasticOperator):
    """:class:`CausalAttention` of an elastic number of heads."""

    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor:
        """``x``: (batch, tokens, 3 * channels) -> (batch, tokens, channels)."""
        if x.shape[1] < FUSED:
            return attended(x, operator.heads, later_hidden(x.shape[1]).to(x.device))
        query, key, value = split_heads(x, operator.heads)
        out = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        return out.transpose(1, 2).flatten(2)

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`CausalAttention`."""
        return CausalAttention(operator.heads, operator.tokens)
