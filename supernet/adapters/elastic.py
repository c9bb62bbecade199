"""Low-rank updates of frozen layers, elastic in rank and in the channels that are kept.

LoRA (Hu et al., ICLR 2022) adds ``up @ down`` to a frozen matrix. Here the first ranks of one pair
serve every smaller rank, as in NLS (Shears, Muñoz et al., NAACL 2024), and the channels of an MLP
are in the order of their importance, so that fewer are a prefix of more (LoNAS).
"""

from __future__ import annotations

import copy
import math
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from search_spaces.space import Arch
from search_spaces.spaces.adapters import AdaptedSizes, AdapterSpace
from supernet.checkpoints.decoder import CheckpointDecoder, DecoderBlock

ATTENTION = ("query", "key", "value", "output")


class AdaptedLinear(nn.Module):
    """A frozen linear layer with a low-rank update.

    Args:
        base: the layer; its weights are frozen.
        rank: the largest.

    Attributes:
        rank, outputs, inputs: that are used, see :meth:`AdaptedDecoder.configure`.
    """

    def __init__(self, base: nn.Linear, rank: int) -> None:
        super().__init__()
        self.base = base.requires_grad_(False)
        outputs, inputs = base.weight.shape
        self.down = nn.Parameter(torch.empty(rank, inputs))
        self.up = nn.Parameter(torch.zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))
        self.rank, self.outputs, self.inputs = rank, outputs, inputs

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (..., inputs) -> (..., outputs)."""
        n, m, r = self.outputs, self.inputs, self.rank
        bias = None if self.base.bias is None else self.base.bias[:n]
        y = F.linear(x, self.base.weight[:n, :m], bias)
        # Twice the update, whatever the rank: LoRA's alpha of twice the rank.
        return y + 2.0 * F.linear(F.linear(x, self.down[:r, :m]), self.up[:n, :r])

    @torch.no_grad()
    def merged(self) -> nn.Linear:
        """Return the slice in use as a layer of its own, the update added to its weights."""
        n, m, r = self.outputs, self.inputs, self.rank
        layer = nn.Linear(m, n, bias=self.base.bias is not None)
        layer.weight.copy_(self.base.weight[:n, :m] + 2.0 * self.up[:n, :r] @ self.down[:r, :m])
        if self.base.bias is not None:
            layer.bias.copy_(self.base.bias[:n])
        return layer


class AdaptedDecoder(nn.Module):
    """A frozen decoder with adapters in all layers of its blocks.

    Args:
        model: copied; its MLPs' channels are put into the order of their importance, which
            changes nothing that it computes.
        space: the sub-adapters.

    Attributes:
        model: the copy, its layers adapted.
    """

    def __init__(self, model: CheckpointDecoder, space: AdapterSpace) -> None:
        super().__init__()
        self.space = space
        self.model = copy.deepcopy(model).requires_grad_(False)
        rank = max(int(r) for r in space.choices[space.index["b1.rank"]].options)
        for block in self._blocks():
            _by_importance(block)
            for name in (*ATTENTION, *_mlp(block)):
                setattr(block, name, AdaptedLinear(getattr(block, name), rank))
        self.configure(space.largest())

    def forward(self, tokens: Tensor) -> Tensor:
        """Run the sub-adapter in use; see :class:`CheckpointDecoder`."""
        values: Tensor = self.model(tokens)
        return values

    def configure(self, arch: Arch) -> None:
        """Use a sub-adapter from now on."""
        for b, block in enumerate(self._blocks(), start=1):
            rank, inner = int(arch[f"b{b}.rank"]), int(arch[f"b{b}.inner"])
            for name in (*ATTENTION, *_mlp(block)):
                layer = cast("AdaptedLinear", getattr(block, name))
                layer.rank = rank
                if name in ("up", "gate"):
                    layer.outputs = inner
                elif name == "down":
                    layer.inputs = inner

    def adapters(self) -> list[nn.Parameter]:
        """Return what is trained."""
        return [p for p in self.parameters() if p.requires_grad]

    def merged(self) -> CheckpointDecoder:
        """Return the sub-adapter in use as a plain decoder that computes the same.

        Its weights are float: updates leave the grid of a quantised base, so it is quantised
        anew where it is to have few bits, or base and update stay apart.
        """
        model = copy.deepcopy(self.model)
        for block in model.blocks:
            for name, part in list(block.named_children()):
                if isinstance(part, AdaptedLinear):
                    setattr(block, name, part.merged())
        return model

    def _blocks(self) -> list[DecoderBlock]:
        return [cast("DecoderBlock", block) for block in self.model.blocks]


def adapted_sizes(model: CheckpointDecoder) -> AdaptedSizes:
    """Return the sizes of a decoder, for :class:`AdapterSpace`."""
    config = model.config
    return AdaptedSizes(
        width=config.width,
        inner=config.inner,
        queries=config.heads * config.head_width,
        keys=config.key_heads * config.head_width,
        blocks=config.layers,
        vocabulary=config.vocabulary,
        gated=config.family == "llama",
    )


def _mlp(block: DecoderBlock) -> tuple[str, ...]:
    return ("up", "down") if block.gate is None else ("gate", "up", "down")


@torch.no_grad()
def _by_importance(block: DecoderBlock) -> None:
    """Order an MLP's channels by the norms of what goes into them and comes out of them."""
    size = block.up.weight.norm(dim=1) * block.down.weight.norm(dim=0)
    if block.gate is not None:
        size = size * block.gate.weight.norm(dim=1)
    order = size.argsort(descending=True, stable=True)
    for layer in (block.up, block.gate):
        if layer is not None:
            layer.weight.copy_(layer.weight[order].clone())
            if layer.bias is not None:
                layer.bias.copy_(layer.bias[order].clone())
    block.down.weight.copy_(block.down.weight[:, order].clone())
