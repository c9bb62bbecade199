"""The ``decoder`` space: language models with elastic embedding, depth, heads and MLP ratio.

What varies is what HAT varies in its decoder (Wang et al., ACL 2020, section 3.1): the width of the
embedding, the number of layers, and for each layer the number of heads (of a fixed width, so that
the width of queries, keys and values follows) and the ratio of the MLP; here also the bits of every
layer. The network is GPT-2's (Radford et al., 2019): layer norms before attention and MLP, learned
positions, a last norm and a linear layer to the vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import whole
from search_spaces.plan import FLOAT_BITS
from search_spaces.planned import BlockColumn
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.staged import Columns
from search_spaces.spaces.staged_parameters import check_searched_bits
from search_spaces.spaces.transformer import (
    BlockForm,
    SequenceSpace,
    TransformerColumns,
    check_groups,
    check_transformer,
    transformer_choices,
)

_FORM = BlockForm("decoder", "causal_attention", "attend", bits=FLOAT_BITS)


@dataclass(frozen=True)
class DecoderParameters:
    """Everything that defines a ``decoder`` space; a preset is one of these.

    Attributes:
        embeds: widths of the embedding.
        depths: numbers of blocks.
        heads: numbers of heads of each block.
        head_width: width of one head.
        mlps: ratios of a block's MLP width to the embedding.
        length: tokens that a network sees at once where no data says so.
        weight_bits, activation_bits: allowed bits of each searchable layer; 32 is float.
        edge_bits: bits of the layer to the vocabulary, which is not searched. Embeddings and
            positions are float.
        granularity: ``layer`` gives ``qkv``, ``project`` and the two layers of the MLP bits of
            their own, ``block`` one pair to a block.
        divisor: MLP widths are rounded to multiples of it.
        groups: input channels of a searchable layer whose weights share a scale, 0 for all of them;
            others than 0 are of weights alone, with ``activation_bits`` 32.
    """

    embeds: tuple[int, ...]
    depths: tuple[int, ...]
    heads: tuple[int, ...]
    head_width: int = 16
    mlps: tuple[float, ...] = (1, 2, 3, 4)
    length: int = 64
    weight_bits: tuple[int, ...] = (2, 4, 8)
    activation_bits: tuple[int, ...] = (8,)
    edge_bits: int = 8
    granularity: str = "layer"
    divisor: int = 8
    groups: tuple[int, ...] = (0,)


PRESETS: dict[str, DecoderParameters] = {
    # Named by the most parameters of a network on bytes, about.
    "60k": DecoderParameters(embeds=(32, 48), depths=(1, 2), heads=(1, 2), mlps=(1, 2), length=32),
    "500k": DecoderParameters(
        embeds=(64, 96, 128), depths=(1, 2, 3), heads=(1, 2, 4), head_width=32, mlps=(1, 2, 3),
        length=128,
    ),
    "2m": DecoderParameters(
        embeds=(96, 128, 160, 192), depths=(2, 3, 4), heads=(2, 4, 6), head_width=32,
        length=128,
    ),
}  # fmt: skip


@SPACES.register("decoder")
class DecoderSpace(SequenceSpace):
    """Elastic language models: see :class:`DecoderParameters` for what may vary.

    Choice names: ``embed``, ``depth``, and for block ``b`` (from 1) ``b1.heads``, ``b1.mlp`` and
    the bits ``b1.w.LAYER`` and ``b1.a.LAYER`` of its layers ``qkv``, ``project``, ``widen`` and
    ``contract``, or ``b1.w`` and ``b1.a`` with ``granularity="block"``. With several ``groups``
    there is ``b1.g.LAYER`` (or ``b1.g``) beside them, where weights are quantised.

    Inputs are numbers of tokens, (1, 1, length); networks answer with a value for each token of the
    vocabulary after each of them, (length, vocabulary).

    Raises:
        InputError: data that are no rows of tokens, or a value that a parameter cannot take.
    """

    NAME = "decoder"
    PRESETS = PRESETS
    PRESET = "60k"
    ANSWERS = "tokens"

    def __init__(
        self,
        parameters: DecoderParameters,
        *,
        input_channels: int = 1,
        outputs: int = 256,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        _check(parameters)
        size = (1, parameters.length) if input_size is None else input_size
        if input_channels != 1 or size[0] != 1:
            raise InputError(
                f"the space decoder builds language models, whose inputs are rows of tokens, and "
                f"the data is {input_channels} x {size[0]} x {size[1]}; use the data source text"
            )
        self.parameters = parameters
        self.length = size[1]
        choices = transformer_choices(parameters)
        super().__init__(self.NAME, choices, input_channels=input_channels, outputs=outputs)

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe every block of the largest network for gene rows (n, choices)."""
        every = np.ones(len(genes), dtype=bool)
        network = TransformerColumns(self.parameters, Columns(self, genes), self.length)
        table = (network.table("embed", self.outputs),)
        return [
            BlockColumn("embed", "embed_tokens", (), every, ~every, (), table),
            *network.blocks(_FORM),
            network.head("language_head", self.outputs, self.length),
        ]


def _check(p: DecoderParameters) -> None:
    check_searched_bits(p)
    check_transformer(p)
    check_groups(p)
    whole("divisor", p.divisor)
    whole("length", p.length, least=2)
