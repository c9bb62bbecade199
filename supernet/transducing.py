"""An encoder-decoder as two files: one reads the source, one gives a symbol more of the target.

What a decoder layer attends to of the encoder does not change with the target, so its keys and
values are made once, by the first file; those of the target's past are kept as a language model's.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan, OperatorPlan
from supernet.decoding import FREE, TOKEN, CachedStep, attended_once
from supernet.language import CausalAttention, TokenEmbedding
from supernet.plain import PlainBlock, PlainNetwork
from supernet.sequences import (
    MOST_ATTENDED,
    SequencePair,
    attended_to,
    encoded,
    mask_of,
    split_memory,
)

SOURCE, MASK = "source", "mask"
"""Names: of the input of the first file, and of the source's mask, which it gives to the second."""


def _blocks_of(network: PlainNetwork) -> dict[str, list[PlainBlock]]:
    """Return the blocks of an encoder-decoder by kind.

    Raises:
        InputError: the network is none.
    """
    found: dict[str, list[PlainBlock]] = {}
    for block in network:
        plain = cast("PlainBlock", block)
        found.setdefault(plain.block.kind, []).append(plain)
    kinds = ["embed_source", "encoder", "embed_target", "cross_decoder", "sequence_head"]
    if list(found) != kinds:
        raise InputError(
            f"{network.plan.space} has no source to be read apart: only networks of the space "
            "encoder_decoder are encoder and decoder"
        )
    return found


def _operator(block: PlainBlock, role: str) -> OperatorPlan:
    return next(item for item in block.block.operators if item.role == role)


def _memory_names(count: int) -> list[str]:
    return [f"memory_{kind}_{i}" for i in range(1, count + 1) for kind in ("keys", "values")]


class EncodingStep(nn.Module):
    """The encoder of a :class:`~supernet.plain.PlainNetwork` of the space ``encoder_decoder``.

    With it goes of each decoder layer what makes keys and values of the encoder's outputs.

    Args:
        network: in evaluation mode; its modules are used, not copied.

    Attributes:
        plan: of the network.
        length: symbols of a source.

    Raises:
        InputError: the network is of another space.
    """

    def __init__(self, network: PlainNetwork) -> None:
        super().__init__()
        blocks = _blocks_of(network)
        first = blocks["embed_source"][0]
        self.plan: NetworkPlan = network.plan
        self.length = cast("SequencePair", first.ops["pair"]).length
        self.embedding = first.ops["embed"]
        self.encoders = nn.ModuleList(blocks["encoder"])
        self.decoders = nn.ModuleList(blocks["cross_decoder"])

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the inputs, without the batch."""
        return {SOURCE: (1, 1, self.length)}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs: the mask, then keys and values of each decoder layer."""
        return (MASK, *_memory_names(len(self.decoders)))

    def forward(self, source: Tensor) -> tuple[Tensor, ...]:
        """Return the source's mask, and keys and values of each decoder layer.

        Args:
            source: numbers of symbols, 0 after the last, (batch, 1, 1, length), as floats.

        Returns:
            (batch, length), then of each decoder layer (batch, heads, width, n) and
            (batch, heads, n, width), where n is the length times the encoder layers it attends to.
        """
        numbers = source.flatten(1)
        mask = mask_of(numbers)
        x = self.embedding(numbers)
        memories: list[Tensor] = []
        for block in self.encoders:
            x = encoded(x, block.ops, mask)
            memories = [x, *memories][:MOST_ATTENDED]
        made: list[Tensor] = [mask.flatten(1)]
        for block in self.decoders:
            ops: Any = block.ops
            joined, _ = ops["gather"](mask, *memories)
            made += split_memory(ops["memory"](joined), ops["cross"].heads)
        return tuple(made)


class TransducingStep(CachedStep):
    """One more symbol of the target, from a source that :class:`EncodingStep` read.

    Caches, ``free`` and places are those of :class:`supernet.decoding.DecodingStep`.

    Args:
        network: of the space ``encoder_decoder``, in evaluation mode; its modules are used.

    Attributes:
        plan: of the network.
        length: symbols of a target, its end among them.

    Raises:
        InputError: the network is of another space.
    """

    def __init__(self, network: PlainNetwork) -> None:
        blocks = _blocks_of(network)
        embedding = cast("TokenEmbedding", blocks["embed_target"][0].ops["embed"])
        super().__init__(network.plan, embedding)
        self.decoders = nn.ModuleList(blocks["cross_decoder"])
        self.head = blocks["sequence_head"][0]
        self._source = cast("SequencePair", blocks["embed_source"][0].ops["pair"]).length
        self._layers = [_operator(block, "gather").entries for block in blocks["cross_decoder"]]
        self._memories = [_operator(block, "cross") for block in blocks["cross_decoder"]]
        self._own = [_operator(block, "attend") for block in blocks["cross_decoder"]]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the inputs, without the batch."""
        named: dict[str, tuple[int, ...]] = {TOKEN: (1,), FREE: (1,), MASK: (self._source,)}
        for i, cross in enumerate(self._memories, start=1):
            width = cross.channels // cross.heads
            named[f"memory_keys_{i}"] = (cross.heads, width, cross.tokens)
            named[f"memory_values_{i}"] = (cross.heads, cross.tokens, width)
        for i, own in enumerate(self._own, start=1):
            width = own.channels // own.heads
            named[f"keys_{i}"] = (own.heads, width, self.length)
            named[f"values_{i}"] = (own.heads, self.length, width)
        return named

    def forward(
        self, token: Tensor, free: Tensor, mask: Tensor, *kept: Tensor
    ) -> tuple[Tensor, ...]:
        """Return the values of the next symbol, and this symbol's keys and values.

        Args:
            token: number, (batch, 1), as float; 0 begins a target.
            free: places after this symbol's, (batch, 1).
            mask: of the source, (batch, source).
            kept: the encoder's keys and values of each layer, then the caches of each layer, keys
                (batch, heads, width, n) before values (batch, heads, n, width).

        Returns:
            (batch, outputs), then of each layer (batch, heads, width, 1) and
            (batch, heads, 1, width).
        """
        count = len(self._layers)
        x, past = self._begun(token, free)
        hidden = mask.unsqueeze(1).unsqueeze(1)
        new: list[Tensor] = []
        for i, block in enumerate(self.decoders):
            ops: Any = block.ops
            joint = ops["qkv"](ops["norm1"](x))
            heads = cast("CausalAttention", ops["attend"]).heads
            keys, values = kept[2 * (count + i)], kept[2 * (count + i) + 1]
            h, key, value = attended_once(joint, heads, keys, values, past)
            new += [key, value]
            x = x + ops["project"](h)
            layers = self._layers[i]
            away = hidden if layers == 1 else torch.cat([hidden] * layers, 3)
            query = ops["query"](ops["norm2"](x))
            x = x + ops["combine"](attended_to(query, kept[2 * i], kept[2 * i + 1], away))
            x = x + ops["contract"](ops["widen"](ops["norm3"](x)))
        logits = self.head.ops["classifier"](self.head.ops["norm"](x))
        return (logits.flatten(1), *new)
