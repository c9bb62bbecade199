"""The ``vit`` space: vision transformers with elastic heads, MLP ratio, depth and embedding.

What varies is that of AutoFormer (Chen et al., ICCV 2021, section 3.2), which took it from
HAT (Wang et al., ACL 2020): the embedding width of the network, its depth, and for each
block the number of heads (of a fixed width, so that the width of queries, keys and values
follows) and the MLP ratio; here also the resolution and the bits of every layer. The
network is DeiT's (Touvron et al., ICML 2021) with the mean of the tokens in place of a
class token, as AutoFormer has it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import whole
from search_spaces.plan import LayerPlan, Numbers, OperatorPlan
from search_spaces.planned import BlockColumn, LayerColumn, OperatorColumn
from search_spaces.space import Choice
from search_spaces.spaces.presets import PresetSpace
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.staged import Columns
from search_spaces.spaces.staged_parameters import check_common, edges
from search_spaces.spaces.transformer import (
    BlockForm,
    TransformerColumns,
    check_transformer,
    transformer_choices,
)

_POINTS = (("query", "none"), ("key", "none"), ("value", "none"), ("shares", "relu"))
"""Both factors of both products of an attention are quantised."""

_FORM = BlockForm("transformer", "heads", "heads", points=_POINTS)


@dataclass(frozen=True)
class ViTParameters:
    """Everything that defines a ``vit`` space; a preset is one of these.

    Attributes:
        patch: side of the square patches, pixels.
        resolutions: sides of the square input, pixels; multiples of ``patch``.
        embeds: widths of the embedding.
        depths: numbers of blocks.
        heads: numbers of heads of each block.
        head_width: width of one head.
        mlps: ratios of a block's MLP width to the embedding.
        weight_bits, activation_bits: allowed bits of each searchable layer; 32 is float.
        edge_bits: bits of the patch embedding and the classifier, which are not searched.
        granularity: ``layer`` gives ``qkv``, ``project`` and the two layers of the MLP bits of
            their own, ``block`` one pair to a block.
        divisor: MLP widths are rounded to multiples of it.
    """

    patch: int
    resolutions: tuple[int, ...]
    embeds: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    head_width: int = 16
    mlps: tuple[float, ...] = (2, 3, 4)
    weight_bits: tuple[int, ...] = (3, 4, 8)
    activation_bits: tuple[int, ...] = (4, 8)
    edge_bits: int = 8
    granularity: str = "layer"
    divisor: int = 4


PRESETS: dict[str, ViTParameters] = {
    "8x8": ViTParameters(
        patch=2, resolutions=(8,), embeds=(24, 32), depths=(1, 2, 3), heads=(1, 2), mlps=(1, 2)
    ),
    "28x28": ViTParameters(
        patch=4, resolutions=(20, 24, 28), embeds=(48, 64), depths=(2, 3, 4), heads=(2, 3, 4),
        mlps=(1, 2),
    ),
    "32x32": ViTParameters(
        patch=4, resolutions=(24, 28, 32), embeds=(96, 128), depths=(4, 5, 6), heads=(2, 3, 4),
        head_width=32,
    ),
    "96x96": ViTParameters(
        patch=8, resolutions=(64, 80, 96), embeds=(128, 160, 192), depths=(6, 7, 8),
        heads=(2, 3, 4), head_width=48,
    ),
    # AutoFormer's supernet of the tiny size (table 1), its depths and widths.
    "224x224-autoformer-tiny": ViTParameters(
        patch=16, resolutions=(160, 192, 224), embeds=(192, 216, 240), depths=(12, 13, 14),
        heads=(3, 4), head_width=64, mlps=(3.5, 4), divisor=8,
    ),
}  # fmt: skip


@SPACES.register("vit")
class ViTSpace(PresetSpace):
    """Elastic vision transformer: see :class:`ViTParameters` for what may vary.

    Choice names: ``resolution``, ``embed``, ``depth``, and for block ``b`` (from 1) ``b1.heads``,
    ``b1.mlp`` and the bits ``b1.w.LAYER`` and ``b1.a.LAYER`` of its layers ``qkv``, ``project``,
    ``widen`` and ``contract``, or ``b1.w`` and ``b1.a`` with ``granularity="block"``.
    """

    NAME = "vit"
    PRESETS = PRESETS

    def __init__(
        self, parameters: ViTParameters, *, input_channels: int = 3, outputs: int = 10
    ) -> None:
        _check(parameters)
        self.parameters = parameters
        choices = [
            Choice("resolution", parameters.resolutions), *transformer_choices(parameters)
        ]  # fmt: skip
        super().__init__(self.NAME, choices, input_channels=input_channels, outputs=outputs)

    @classmethod
    def from_config(  # inputs are square
        cls, *, preset: str | None = None, input_channels: int = 3, outputs: int = 10, **rest: Any
    ) -> ViTSpace:
        """See :meth:`PresetSpace.from_config`."""
        parameters = cls.parameters_of(preset, rest)
        return cls(parameters, input_channels=input_channels, outputs=outputs)

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Side of the square input image in pixels for gene rows: (n,) int64."""
        return Columns(self, genes).numbers("resolution")

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe every block of the largest network for gene rows (n, choices)."""
        p = self.parameters
        columns = Columns(self, genes)
        every = np.ones(len(columns.genes), dtype=bool)
        size = self.resolution_column(genes)
        side = size // p.patch
        tokens = side**2
        network = TransformerColumns(p, columns, tokens)
        embed = network.embed
        bits = edges(p.weight_bits, p.activation_bits, p.edge_bits)

        patches: LayerPlan[Numbers] = LayerPlan(
            "patches", "patches", self.input_channels, embed, p.patch, p.patch, 1, size, side,
            *bits, "none", "none", "conv", False, padding=0,
        )  # fmt: skip
        positions: OperatorPlan[Numbers] = OperatorPlan(
            "positions", "positions", "positions", embed, tokens, parameters=tokens * embed
        )
        return [
            BlockColumn(
                "patches", "patches", (LayerColumn(patches, every),), every, ~every,
                (("output", "none"),), (OperatorColumn(positions, every),),
            ),
            *network.blocks(_FORM),
            network.head("token_head", self.outputs),
        ]  # fmt: skip


def _check(p: ViTParameters) -> None:
    check_common(p)
    check_transformer(p)
    whole("patch", p.patch)
    for size in p.resolutions:
        if size % p.patch:
            raise InputError(f"resolutions: {size} is no multiple of the patch, {p.patch}")
