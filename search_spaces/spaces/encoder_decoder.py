"""The ``encoder_decoder`` space: one sequence into another, elastic as in HAT.

What varies is what HAT varies (Wang et al., ACL 2020, section 3.1): the widths of both embeddings,
the numbers of encoder and decoder layers, and for each layer heads and the ratio of the MLP; each
decoder layer attends to as many of the last encoder layers as it likes, whose outputs lie one after
another as keys and values of one attention ("arbitrary encoder-decoder attention"); here also the
bits of every layer. Heads have a fixed width, so that the width of queries, keys and values follows
from their number. Norms come before attention and MLP, positions are learned.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from search_spaces.errors import InputError
from search_spaces.parameters import ascending, whole
from search_spaces.plan import FLOAT_BITS, Numbers, OperatorPlan
from search_spaces.planned import BlockColumn, OperatorColumn
from search_spaces.space import Choice, Condition
from search_spaces.spaces.decoder import DecoderParameters
from search_spaces.spaces.registry import SPACES
from search_spaces.spaces.staged import Columns
from search_spaces.spaces.staged_parameters import bit_choices, check_searched_bits
from search_spaces.spaces.transformer import (
    BlockForm,
    SequenceSpace,
    Stack,
    TransformerColumns,
    check_transformer,
    reached,
    transformer_choices,
)

ENCODER, DECODER = Stack("encoder.", "e"), Stack("decoder.", "d")
"""Names of the choices of both stacks."""

MOST_ATTENDED = 3
"""Encoder layers that a decoder layer attends to at most, as in HAT."""

_ENCODER_FORM = BlockForm("encoder", "masked_attention", "attend", bits=FLOAT_BITS)
_ROLES = ("qkv", "project", "query", "memory", "combine", "widen", "contract")


@dataclass(frozen=True)
class EncoderDecoderParameters:
    """Everything that defines an ``encoder_decoder`` space; a preset is one of these.

    Attributes:
        encoder_embeds, decoder_embeds: widths of the embeddings.
        encoder_depths, decoder_depths: numbers of layers.
        heads: numbers of heads of each layer's attention to its own stack.
        cross_heads: the same of a decoder layer's attention to the encoder.
        head_width: width of one head.
        mlps: ratios of a layer's MLP width to the embedding.
        attends: how many of the last encoder layers a decoder layer attends to, from 1 to 3; an
            encoder of fewer layers leaves the numbers that it has.
        source_length, target_length: symbols of either side where no data says so.
        source_vocabulary: symbols of the source where no data says so, the empty one among them.
        weight_bits, activation_bits: allowed bits of each searchable layer; 32 is float.
        edge_bits: bits of the layer to the vocabulary, which is not searched. Embeddings and
            positions are float.
        granularity: ``layer`` gives every linear layer bits of its own, ``block`` one pair to the
            layers of a block.
        divisor: MLP widths are rounded to multiples of it.
    """

    encoder_embeds: tuple[int, ...]
    decoder_embeds: tuple[int, ...]
    encoder_depths: tuple[int, ...]
    decoder_depths: tuple[int, ...]
    heads: tuple[int, ...]
    cross_heads: tuple[int, ...]
    head_width: int = 16
    mlps: tuple[float, ...] = (1, 2, 3)
    attends: tuple[int, ...] = (1, 2, 3)
    source_length: int = 24
    target_length: int = 24
    source_vocabulary: int = 64
    weight_bits: tuple[int, ...] = (2, 4, 8)
    activation_bits: tuple[int, ...] = (8,)
    edge_bits: int = 8
    granularity: str = "layer"
    divisor: int = 8


PRESETS: dict[str, EncoderDecoderParameters] = {
    # Named by the most parameters of a network on a hundred symbols, about.
    "100k": EncoderDecoderParameters(
        encoder_embeds=(32, 48), decoder_embeds=(32, 48), encoder_depths=(1, 2),
        decoder_depths=(1, 2), heads=(1, 2), cross_heads=(1, 2), mlps=(1, 2), attends=(1, 2),
    ),
    "700k": EncoderDecoderParameters(
        encoder_embeds=(64, 96), decoder_embeds=(64, 96), encoder_depths=(1, 2, 3),
        decoder_depths=(1, 2, 3), heads=(2, 4), cross_heads=(2, 4), head_width=24,
    ),
    "2m": EncoderDecoderParameters(
        encoder_embeds=(96, 128, 160), decoder_embeds=(96, 128, 160), encoder_depths=(2, 3, 4),
        decoder_depths=(1, 2, 3), heads=(2, 4), cross_heads=(2, 4), head_width=32,
    ),
}  # fmt: skip


@SPACES.register("encoder_decoder")
class EncoderDecoderSpace(SequenceSpace):
    """Elastic encoder-decoders: see :class:`EncoderDecoderParameters` for what may vary.

    Choice names: ``encoder.embed``, ``encoder.depth``, and for encoder layer ``e1`` ``e1.heads``,
    ``e1.mlp`` and its bits; ``decoder.embed``, ``decoder.depth``, and for decoder layer ``d1``
    ``d1.heads``, ``d1.cross``, ``d1.mlp``, ``d1.attends`` and its bits. Where the encoder has fewer
    layers than ``d1.attends`` could name, ``d1.attends2`` takes its place (with two layers; with
    one there is nothing to choose). Bits are ``d1.w.LAYER`` and ``d1.a.LAYER`` of the layers
    ``qkv``, ``project``, ``widen``, ``contract``, and in the decoder ``query``, ``memory`` (keys
    and values of the encoder's outputs) and ``combine``; or ``d1.w`` and ``d1.a`` with
    ``granularity="block"``.

    Inputs are numbers of symbols, (1, 1, source + target): the source, filled up with 0, then what
    the decoder is given. Networks answer with a value for each symbol of the target after each of
    those, (target, outputs).

    Raises:
        InputError: data that are no pairs of sequences, or a value that a parameter cannot take.
    """

    NAME = "encoder_decoder"
    PRESETS = PRESETS
    PRESET = "100k"
    ANSWERS = "sequences"

    def __init__(
        self,
        parameters: EncoderDecoderParameters,
        *,
        input_channels: int = 1,
        outputs: int = 64,
        input_size: tuple[int, int] | None = None,
    ) -> None:
        _check(parameters)
        p = parameters
        size = (1, p.source_length + p.target_length) if input_size is None else input_size
        if input_channels != 1 or size[0] != 1 or size[1] <= p.source_length:
            raise InputError(
                f"the space encoder_decoder turns one sequence into another, whose inputs are a "
                f"source of {p.source_length} symbols and a target after it, and the data is "
                f"{input_channels} x {size[0]} x {size[1]}; use the data source text_pairs"
            )
        self.length = size[1]
        self.source_length, self.target_length = p.source_length, size[1] - p.source_length
        self.parameters = replace(p, target_length=self.target_length)
        encoder, decoder = _stack_of(p, "encoder"), _stack_of(p, "decoder")
        choices = transformer_choices(encoder, ENCODER)
        choices += [
            Choice("decoder.embed", decoder.embeds),
            Choice("decoder.depth", decoder.depths),
        ]
        for d in range(1, decoder.depths[-1] + 1):
            choices += _decoder_choices(p, d)
        super().__init__(self.NAME, choices, input_channels=input_channels, outputs=outputs)

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe every block of the largest network for gene rows (n, choices)."""
        p = self.parameters
        columns = Columns(self, genes)
        every = np.ones(len(columns.genes), dtype=bool)
        encoder = TransformerColumns(_stack_of(p, "encoder"), columns, self.source_length, ENCODER)
        decoder = TransformerColumns(_stack_of(p, "decoder"), columns, self.target_length, DECODER)
        pair: OperatorPlan[Numbers] = OperatorPlan(
            "source.pair", "pair", "sequence_pair", 1, self.source_length
        )
        source = (OperatorColumn(pair, every), encoder.table("source.embed", p.source_vocabulary))
        target = (decoder.table("target.embed", self.outputs),)
        depth = p.decoder_depths[-1]
        return [
            BlockColumn("source", "embed_source", (), every, ~every, (), source),
            *encoder.blocks(_ENCODER_FORM),
            BlockColumn("target", "embed_target", (), every, ~every, (), target),
            *(self._decoder_block(d, encoder, decoder) for d in range(1, depth + 1)),
            decoder.head("sequence_head", self.outputs, self.target_length),
        ]

    def _decoder_block(
        self, d: int, encoder: TransformerColumns, decoder: TransformerColumns
    ) -> BlockColumn:
        p, name, columns = self.parameters, f"d{d}", decoder.columns
        active = decoder.depth >= d
        heads, cross = columns.numbers(f"{name}.heads"), columns.numbers(f"{name}.cross")
        inner, outer = heads * p.head_width, cross * p.head_width
        attended = _attended(p, name, columns, encoder.depth)
        memory = attended * self.source_length
        own: OperatorPlan[Numbers] = OperatorPlan(
            f"{name}.attend", "attend", "causal_attention", inner, self.target_length, heads,
            macs=2 * self.target_length**2 * inner, bits=FLOAT_BITS,
        )  # fmt: skip
        gather: OperatorPlan[Numbers] = OperatorPlan(
            f"{name}.gather", "gather", "joined_memory", encoder.embed, memory,
            parameters=2 * encoder.embed, entries=attended,
        )  # fmt: skip
        other: OperatorPlan[Numbers] = OperatorPlan(
            f"{name}.cross", "cross", "cross_attention", outer, memory, cross,
            macs=2 * self.target_length * memory * outer, bits=FLOAT_BITS,
        )  # fmt: skip
        return BlockColumn(
            name,
            "cross_decoder",
            (
                decoder.layer(name, "qkv", decoder.embed, 3 * inner, active),
                decoder.layer(name, "project", inner, decoder.embed, active),
                decoder.layer(name, "query", decoder.embed, outer, active),
                decoder.layer(name, "memory", encoder.embed, 2 * outer, active, tokens=memory),
                decoder.layer(name, "combine", outer, decoder.embed, active),
                *decoder.mlp(name, active),
            ),
            active,
            active,
            (),
            (
                decoder.norm(f"{name}.norm1", "norm1", active),
                OperatorColumn(own, active),
                decoder.norm(f"{name}.norm2", "norm2", active),
                OperatorColumn(gather, active),
                OperatorColumn(other, active),
                decoder.norm(f"{name}.norm3", "norm3", active),
            ),
        )


def _stack_of(p: EncoderDecoderParameters, name: str) -> DecoderParameters:
    """Return what the blocks of one stack follow from, as a decoder alone has it."""
    return DecoderParameters(
        getattr(p, f"{name}_embeds"), getattr(p, f"{name}_depths"), p.heads, p.head_width, p.mlps,
        weight_bits=p.weight_bits, activation_bits=p.activation_bits, edge_bits=p.edge_bits,
        granularity=p.granularity, divisor=p.divisor,
    )  # fmt: skip


def _decoder_choices(p: EncoderDecoderParameters, d: int) -> list[Choice]:
    name, when = f"d{d}", reached(p.decoder_depths, d, DECODER)
    choices = [
        Choice(f"{name}.heads", p.heads, when),
        Choice(f"{name}.cross", p.cross_heads, when),
        Choice(f"{name}.mlp", p.mlps, when),
    ]
    for choice, options, depths in _attend_choices(p, name):
        always = len(depths) == len(p.encoder_depths)
        deep = () if always else (Condition("encoder.depth", frozenset(depths)),)
        choices.append(Choice(choice, options, (*deep, *when)))
    return choices + bit_choices(name, p, dict.fromkeys(_ROLES, when), when)


def _attend_choices(
    p: EncoderDecoderParameters, name: str
) -> list[tuple[str, tuple[int, ...], tuple[int, ...]]]:
    """Return name, options and encoder depths of each choice of how many layers are attended to."""
    found = []
    for least in sorted({min(depth, p.attends[-1]) for depth in p.encoder_depths}, reverse=True):
        options = tuple(n for n in p.attends if n <= least)
        depths = tuple(d for d in p.encoder_depths if min(d, p.attends[-1]) == least)
        full = least == p.attends[-1]
        found.append((f"{name}.attends" if full else f"{name}.attends{least}", options, depths))
    # What leaves one number is no choice.
    return [each for each in found if len(each[1]) > 1]


def _attended(
    p: EncoderDecoderParameters, name: str, columns: Columns, depth: np.ndarray
) -> np.ndarray:
    """Return how many encoder layers a decoder layer attends to, (n,) int64."""
    found = np.full(len(columns.genes), p.attends[0], np.int64)
    for choice, _, depths in _attend_choices(p, name):
        found = np.where(np.isin(depth, depths), columns.numbers(choice), found)
    return found


def _check(p: EncoderDecoderParameters) -> None:
    check_searched_bits(p)
    for name in ("encoder", "decoder"):
        for kind in ("embeds", "depths"):
            ascending(f"{name}_{kind}", getattr(p, f"{name}_{kind}"))
            for value in getattr(p, f"{name}_{kind}"):
                whole(f"{name}_{kind}", value)
        check_transformer(_stack_of(p, name))
    for name in ("cross_heads", "attends"):
        ascending(name, getattr(p, name))
        for value in getattr(p, name):
            whole(name, value)
    whole("divisor", p.divisor)
    for name in ("source_length", "target_length", "source_vocabulary"):
        whole(name, getattr(p, name), least=2)
    if p.attends[-1] > MOST_ATTENDED:
        raise InputError(
            f"attends={list(p.attends)}: a decoder layer attends to the last {MOST_ATTENDED} "
            "encoder layers at most"
        )
    if p.attends[0] > p.encoder_depths[0]:
        raise InputError(
            f"attends={list(p.attends)} and encoder_depths={list(p.encoder_depths)}: an encoder of "
            f"{p.encoder_depths[0]} layers has no {p.attends[0]} to attend to; begin attends with "
            "1, or make the encoder deeper"
        )
