"""Operations beside the layers: layer norm, attention heads, position embeddings.

Each kind is a module that holds the parameters of the largest architecture, runs the
slice an :class:`~search_spaces.plan.OperatorPlan` names, and extracts that slice as a
plain module. Their parameters stay float.
"""

from __future__ import annotations

import math
from abc import abstractmethod

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.plan import OperatorPlan
from search_spaces.registry import Registry


class ElasticOperator(nn.Module):
    """An operation whose parameters are elastic.

    Args:
        largest: the operator of the largest architecture.
    """

    def __init__(self, largest: OperatorPlan) -> None:
        super().__init__()
        self.name = largest.name

    @abstractmethod
    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor | tuple[Tensor, ...]:
        """Run the slice of ``operator`` on ``x``, in the shape that the kind asks for."""

    @abstractmethod
    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return the slice as a module of its own that computes the same."""


OPERATORS: Registry[type[ElasticOperator]] = Registry(
    "operator kind", group="nas.operators", modules=("supernet.language", "supernet.sequences")
)


@OPERATORS.register("layer_norm")
class ElasticLayerNorm(ElasticOperator):
    """Layer norm over the last dimension; a narrow network uses a prefix of scale and shift.

    As in AutoFormer (Chen et al., ICCV 2021, section 3.3). Moments are of the slice itself, so
    nothing is recalibrated.
    """

    def __init__(self, largest: OperatorPlan) -> None:
        super().__init__(largest)
        # Not called weight: weights are decayed in training, scales are not.
        self.scale = nn.Parameter(torch.ones(largest.channels))
        self.shift = nn.Parameter(torch.zeros(largest.channels))
        self.epsilon = 1e-5

    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor:
        """Normalise ``x`` (batch, tokens, channels)."""
        n = operator.channels
        return F.layer_norm(x, (n,), self.scale[:n], self.shift[:n], self.epsilon)

    @torch.no_grad()
    def extract(self, operator: OperatorPlan) -> nn.LayerNorm:
        """Return an ``nn.LayerNorm``."""
        n = operator.channels
        norm = nn.LayerNorm(n, eps=self.epsilon)
        norm.weight.copy_(self.scale[:n])
        norm.bias.copy_(self.shift[:n])
        return norm


@OPERATORS.register("group_norm")
class ElasticGroupNorm(ElasticOperator):
    """Group norm of images or signals (Wu & He, ECCV 2018); a narrow network has fewer groups.

    Channels of a group are kept together, so the moments of those that are left are what they were.
    One group of all channels has the moments of those that are left.

    Attributes:
        unit: channels of a group; 0 for one group of all.
    """

    def __init__(self, largest: OperatorPlan) -> None:
        super().__init__(largest)
        self.scale = nn.Parameter(torch.ones(largest.channels))
        self.shift = nn.Parameter(torch.zeros(largest.channels))
        self.epsilon, self.unit = 1e-5, 0

    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor:
        """Normalise ``x`` (batch, channels, ...)."""
        n = operator.channels
        return F.group_norm(x, self._groups(n), self.scale[:n], self.shift[:n], self.epsilon)

    @torch.no_grad()
    def extract(self, operator: OperatorPlan) -> nn.GroupNorm:
        """Return an ``nn.GroupNorm``."""
        n = operator.channels
        norm = nn.GroupNorm(self._groups(n), n, eps=self.epsilon)
        norm.weight.copy_(self.scale[:n])
        norm.bias.copy_(self.shift[:n])
        return norm

    def _groups(self, channels: int) -> int:
        return channels // self.unit if self.unit else 1


class Heads(nn.Module):
    """Splits the joint projection of an attention into queries, keys and values of its heads.

    The channels are ordered (head, query | key | value, width), so that fewer heads are a
    prefix of more.
    """

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads = heads

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """``x``: (batch, tokens, 3 * channels) -> three of (batch, heads, tokens, width)."""
        joint = x.unflatten(2, (self.heads, -1)).transpose(1, 2)
        query, key, value = joint.chunk(3, dim=-1)
        return query, key, value


@OPERATORS.register("heads")
class ElasticHeads(ElasticOperator):
    """:class:`Heads` of an elastic number; its costs are the two products of the attention."""

    def forward(self, x: Tensor, operator: OperatorPlan) -> tuple[Tensor, Tensor, Tensor]:
        """``x``: (batch, tokens, 3 * channels) -> three of (batch, heads, tokens, width)."""
        return self.extract(operator)(x)

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`Heads`."""
        return Heads(operator.heads)


class Positions(nn.Module):
    """Adds a learned embedding of each position."""

    def __init__(self, table: Tensor) -> None:
        super().__init__()
        self.table = nn.Parameter(table)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (batch, tokens, channels)."""
        return x + self.table


@OPERATORS.register("positions")
class ElasticPositions(ElasticOperator):
    """Position embeddings of a square grid of tokens.

    A smaller grid takes the table of the largest, resized bilinearly (as Dosovitskiy et al.,
    ICLR 2021, section 3.2, do for other resolutions); a narrower network takes a prefix of its
    channels.
    """

    def __init__(self, largest: OperatorPlan) -> None:
        super().__init__(largest)
        self.side = math.isqrt(largest.tokens)
        self.table = nn.Parameter(torch.empty(largest.tokens, largest.channels))
        nn.init.trunc_normal_(self.table, std=0.02)

    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor:
        """``x``: (batch, tokens, channels)."""
        return x + self._slice(operator)

    @torch.no_grad()
    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`Positions`."""
        return Positions(self._slice(operator).clone())

    def _slice(self, operator: OperatorPlan) -> Tensor:
        table = self.table[:, : operator.channels]
        side = math.isqrt(operator.tokens)
        if side == self.side:
            return table
        grid = table.T.unflatten(1, (self.side, self.side))[None]
        grid = F.interpolate(grid, (side, side), mode="bilinear", antialias=True)
        return grid[0].flatten(1).T


class Value(nn.Module):
    """A learned tensor, or one that is the same for ever: a mask, or what weights were made to."""

    def __init__(self, value: Tensor, *, learned: bool = True) -> None:
        super().__init__()
        self.value = nn.Parameter(value, requires_grad=learned)

    def forward(self) -> Tensor:
        """Return the tensor."""
        return self.value


@OPERATORS.register("value")
class ElasticValue(ElasticOperator):
    """A parameter of a user's module, the same for every architecture."""

    def __init__(self, largest: OperatorPlan) -> None:
        super().__init__(largest)
        self.value = nn.Parameter(torch.zeros(largest.channels))

    def set(self, value: Tensor) -> None:
        """Take the shape and content of ``value``."""
        self.value = nn.Parameter(value.clone(), requires_grad=value.is_floating_point())

    def forward(self, *, operator: OperatorPlan) -> Tensor:  # type: ignore[override]
        """Return the tensor."""
        return self.value

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`Value`."""
        # Attention computes with another kernel, of other roundings, where its mask is learned.
        return Value(self.value.detach().clone(), learned=self.value.requires_grad)


@OPERATORS.register("channels")
class ElasticChannels(ElasticValue):
    """A parameter of a user's module with a number for each channel, of which the first are kept.

    Attributes:
        axis: of the channels.
    """

    axis = 0

    def forward(self, *, operator: OperatorPlan) -> Tensor:  # type: ignore[override]
        """Return the tensor, with as many channels as the plan has."""
        return self.value.narrow(self.axis, 0, operator.channels)

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return :class:`Value`."""
        value = self(operator=operator).detach().clone()
        return Value(value, learned=self.value.requires_grad)


@OPERATORS.register("product")
class ElasticProduct(ElasticOperator):
    """Products of activations in a user's module: costs, and nothing to run or to learn."""

    def forward(self, x: Tensor, operator: OperatorPlan) -> Tensor:
        """Return ``x`` of any shape; the product itself is an operation of the graph."""
        return x

    def extract(self, operator: OperatorPlan) -> nn.Module:
        """Return a module without weights."""
        return nn.Identity()
