"""The ``hybrid`` space: convolution stages where maps are large, then lean attention.

LowFormer (Nottebaum et al., WACV 2025) finds from measured latency that attention pays
only at low resolution and with few channels: MBConv stages first, then blocks whose
attention runs on a map that a depthwise convolution has shrunk, with a simple MLP.
SBCFormer (Lu et al., WACV 2024) does the same on single-board computers. Batch norm in
place of layer norm (as in LeViT, Graham et al., ICCV 2021) folds into the layers, so
everything but the softmax runs on integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.parameters import ascending, one_of, round_channels, strided, whole
from search_spaces.plan import Numbers, OperatorPlan
from search_spaces.planned import BlockColumn, OperatorColumn
from search_spaces.space import Choice
from search_spaces.spaces.mobilenet import Stage as MBConvStage
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.staged import Block, BlockStage, StagedSpace
from search_spaces.spaces.staged_parameters import Conditions, Parameters, bit_choices

_ROLES = ("reduce", "qkv", "project", "expand", "contract")


@dataclass(frozen=True)
class AttentionStage(BlockStage):
    """An MBConv block that changes size and width, then blocks of attention and MLP.

    Attributes:
        heads: allowed numbers of heads.
        head_width: width of one head.
        shrinks: allowed strides of the depthwise convolution before the attention.
        mlps: allowed ratios of the MLP's width to the block's.
        activation: ``relu`` or ``hswish``, of the MLP.
        kernels, expands: of the MBConv block; ``None`` takes those of the space.
    """

    heads: tuple[int, ...] = (1, 2, 4)
    head_width: int = 16
    shrinks: tuple[int, ...] = (1, 2)
    mlps: tuple[float, ...] = (1, 2)
    activation: str = "relu"
    kernels: tuple[int, ...] | None = None
    expands: tuple[float, ...] | None = None

    def check(self, place: str, parameters: Parameters) -> None:
        """Raise :class:`InputError` for a value that the stage cannot have."""
        for name in ("heads", "shrinks", "mlps"):
            ascending(f"{place}.{name}", getattr(self, name))
        for name in ("heads", "shrinks"):
            for value in getattr(self, name):
                whole(f"{place}.{name}", value)
        whole(f"{place}.head_width", self.head_width)
        one_of(f"{place}.activation", self.activation, ("relu", "hswish"))
        self._entry.check(place, parameters)

    def choices(
        self, name: str, parameters: Parameters, when: Conditions, first: bool
    ) -> list[Choice]:
        """Return the choices of the block called ``name``, active ``when``."""
        choices = []
        if first:
            choices += self._entry.choices(f"{name}.down", parameters, when, True)
        choices += [
            Choice(f"{name}.heads", self.heads, when),
            # The last option of every choice is the largest.
            Choice(f"{name}.shrink", self.shrinks[::-1], when),
            Choice(f"{name}.mlp", self.mlps, when),
        ]
        return choices + bit_choices(name, parameters, dict.fromkeys(_ROLES, when), when)

    def describe(self, block: Block, first: bool) -> list[BlockColumn]:
        """Describe the block; ``first`` tells whether it is the first of its stage."""
        p, active, out, size = block.parameters, block.active, block.out, block.out_size
        found = []
        if first:
            down = Block(
                f"{block.name}.down", p, block.columns, active, block.channels, out, block.size,
                block.stride,
            )  # fmt: skip
            found += self._entry.describe(down, True)
        heads = block.value("heads").astype(np.int64)
        shrink = block.value("shrink").astype(np.int64)
        inner, side = heads * self.head_width, strided(size, shrink)
        tokens = side**2
        attention: OperatorPlan[Numbers] = OperatorPlan(
            f"{block.name}.heads", "heads", "heads", inner, tokens, heads,
            macs=2 * tokens**2 * inner,
        )  # fmt: skip
        layers = (
            block.layer("reduce", (out, out, 3, shrink, out, size, side), "none", "stream"),
            block.layer("qkv", (out, 3 * inner, 1, 1, 1, side, side), "none", "none"),
            block.layer("project", (inner, out, 1, 1, 1, side, side), "none", "none"),
        )
        # Batch norm gives queries, keys and values one range, so they share a grid.
        points = (("joint", "none"), ("shares", "relu"), ("output", "none"), ("sum", "none"))
        found.append(
            BlockColumn(
                block.name, "lean_attention", layers, active, active, points,
                (OperatorColumn(attention, active),),
            )
        )  # fmt: skip
        wide = round_channels(out * block.value("mlp"), p.divisor)
        mlp = (
            block.layer("expand", (out, wide, 1, 1, 1, size, size), self.activation, "stream"),
            block.layer("contract", (wide, out, 1, 1, 1, size, size), "none", self.activation),
        )
        found.append(
            BlockColumn(
                f"{block.name}.mlp", "mlp", mlp, active, active,
                (("output", "none"), ("sum", "none")),
            )
        )  # fmt: skip
        return found

    @property
    def _entry(self) -> MBConvStage:
        return MBConvStage(
            self.channels, self.stride, (1,), self.kernels, self.expands, self.activation
        )


@dataclass(frozen=True)
class HybridParameters(Parameters):
    """Everything that defines a ``hybrid`` space; a preset is one of these."""

    kernels: tuple[int, ...] = (3, 5)
    expands: tuple[float, ...] = (2, 3, 4)
    weight_bits: tuple[int, ...] = (3, 4, 8)
    activation_bits: tuple[int, ...] = (4, 8)


PRESETS: dict[str, HybridParameters] = {
    "8x8": HybridParameters(
        stages=(MBConvStage(16, 1, (1, 2)),
            AttentionStage(32, 2, (1, 2), heads=(1, 2), shrinks=(1, 2))),
        stem_channels=16, stem_stride=1, head_channels=64, resolutions=(8,), widths=(0.5, 1.0),
        kernels=(3,), expands=(2, 3),
    ),
    "28x28": HybridParameters(
        stages=(MBConvStage(16, 1, (1, 2), kernels=(3,), blocks=("mbconv", "fused")),
            MBConvStage(32, 2, (1, 2), kernels=(3,), blocks=("mbconv", "fused")),
            AttentionStage(48, 1, (1, 2), heads=(1, 2, 3))),
        stem_channels=16, head_channels=128, resolutions=(20, 24, 28), widths=(0.5, 0.75, 1.0),
        expands=(2, 3),
    ),
    "32x32": HybridParameters(
        stages=(MBConvStage(24, 1, (1, 2), blocks=("mbconv", "fused")),
            MBConvStage(48, 2, (1, 2, 3), blocks=("mbconv", "fused")),
            AttentionStage(96, 2, (1, 2, 3))),
        stem_channels=24, stem_stride=1, head_channels=256, resolutions=(24, 28, 32),
        widths=(0.5, 0.75, 1.0),
    ),
    "96x96": HybridParameters(
        stages=(MBConvStage(16, 1, (1, 2), blocks=("mbconv", "fused")),
            MBConvStage(32, 2, (1, 2, 3), blocks=("mbconv", "fused")),
            AttentionStage(64, 2, (1, 2, 3), shrinks=(2,)),
            AttentionStage(128, 2, (1, 2, 3), heads=(2, 4, 8), shrinks=(1,))),
        stem_channels=16, head_channels=256, resolutions=(64, 80, 96), widths=(0.5, 0.75, 1.0),
    ),
    # Sizes of LowFormer-B0: two stages of convolutions, two with attention.
    "224x224": HybridParameters(
        stages=(MBConvStage(16, 2, (1, 2), blocks=("mbconv", "fused")),
            MBConvStage(32, 2, (1, 2), blocks=("mbconv", "fused")),
            AttentionStage(64, 2, (2, 3), heads=(2, 4), shrinks=(2,), activation="hswish"),
            AttentionStage(128, 2, (3, 4, 5), heads=(4, 8), shrinks=(1,), activation="hswish")),
        stem_channels=16, stem_activation="hswish", head_channels=1024, head_activation="hswish",
        resolutions=(128, 160, 192, 224), widths=(0.75, 1.0, 1.25), expands=(3, 4, 6), divisor=8,
    ),
}  # fmt: skip


@SPACES.register("hybrid")
class HybridSpace(StagedSpace):
    """Convolutions, then lean attention.

    Stages are of the kind ``mbconv`` (see :class:`search_spaces.spaces.mobilenet.Stage`) or
    ``attention`` (see :class:`AttentionStage`). Choices of an attention block: ``heads``,
    ``shrink``, ``mlp`` and the bits of its layers ``reduce``, ``qkv``, ``project``, ``expand`` and
    ``contract``; the first of a stage has an MBConv block ``s3.b1.down`` before it.
    """

    NAME = "hybrid"
    PRESETS = PRESETS
    STAGES = {"mbconv": MBConvStage, "attention": AttentionStage}  # noqa: RUF012
    RECTANGLES = False
