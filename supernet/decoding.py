"""A language model one token at a time, with the keys and values of those before it kept.

The keys and values of a block stay what they were when later tokens come, because a token sees only
those before it. A step therefore takes them from a cache, and gives its own to be put there.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.model_files.decoders import decoder_heads
from search_spaces.plan import NetworkPlan
from supernet.language import HIDDEN, CausalAttention, TokenEmbedding, embedded, split_heads
from supernet.plain import PlainBlock, PlainNetwork

TOKEN, FREE = "token", "free"
"""Names of a step's inputs beside the caches: the token, and how many places are still free."""


class CachedStep(nn.Module):
    """One more symbol, from the keys and values that are kept of those before it.

    Args:
        plan: of the network.
        embedding: of the symbols, with as many positions as the caches have places.

    Attributes:
        plan: of the network.
        length: symbols that the network sees at once.
    """

    slots: Tensor

    def __init__(self, plan: NetworkPlan, embedding: TokenEmbedding) -> None:
        super().__init__()
        self.plan, self.embedding = plan, embedding
        self.length = int(embedding.positions.shape[0])
        slots = torch.arange(self.length, dtype=torch.float32)
        self.register_buffer("slots", slots, persistent=False)

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the inputs, without the batch."""
        raise NotImplementedError

    @property
    def _caches(self) -> dict[str, tuple[int, ...]]:
        return {n: shape for n, shape in self.inputs.items() if n.startswith(("keys_", "values_"))}

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of the outputs: values of the next symbol, then keys and values of this one."""
        return ("logits", *(f"new_{name}" for name in self._caches))

    def empty(self, batch: int = 1) -> list[Tensor]:
        """Return empty caches for a batch."""
        return [torch.zeros(batch, *shape) for shape in self._caches.values()]

    def _begun(self, token: Tensor, free: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stream of a symbol, and the mask of the caches, (batch, 1, 1, length)."""
        taken = (self.length - 1 - free.round()).clamp(0, self.length - 1)
        x = embedded(token, self.embedding.table) + embedded(taken, self.embedding.positions)
        # 0 for places before this symbol's, HIDDEN from there on.
        later = (self.slots - taken + 1).clamp(0, 1) * HIDDEN
        return x, later.unsqueeze(1).unsqueeze(1)


class DecodingStep(CachedStep):
    """One more token of a :class:`~supernet.plain.PlainNetwork` of the space ``decoder``.

    The caches have ``length`` places. The token whose ``free`` is ``length - 1`` is the first, and
    sees no place; that of ``free`` 0 is the last that the network has a position for, and sees all
    but the last place. What a step gives as keys and values belongs in place
    ``length - 1 - free``.

    A step counts free places, not taken ones, so that a file that is measured with any small
    numbers is measured with full caches.

    Args:
        network: in evaluation mode; its modules are used, not copied.

    Attributes:
        plan: of the network.
        length: tokens that the network sees at once.

    Raises:
        InputError: the network is no language model.
    """

    def __init__(self, network: PlainNetwork) -> None:
        blocks = [cast("PlainBlock", block) for block in network]
        if [b.block.kind for b in blocks] != [
            "embed_tokens", *["decoder"] * (len(blocks) - 2), "language_head"
        ]:  # fmt: skip
            raise InputError(
                f"{network.plan.space} has no step of decoding: only networks of the space decoder "
                "keep keys and values"
            )
        super().__init__(network.plan, cast("TokenEmbedding", blocks[0].ops["embed"]))
        self.decoders = nn.ModuleList(blocks[1:-1])
        self.head = blocks[-1]

    @property
    def inputs(self) -> dict[str, tuple[int, ...]]:
        """Names and shapes of the inputs, without the batch."""
        named: dict[str, tuple[int, ...]] = {TOKEN: (1,), FREE: (1,)}
        for i, (_, heads, width) in enumerate(decoder_heads(self.plan), start=1):
            # Keys lie as the product with a query reads them.
            named[f"keys_{i}"] = (heads, width, self.length)
            named[f"values_{i}"] = (heads, self.length, width)
        return named

    def forward(self, token: Tensor, free: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """Return the values of the next token, and this token's keys and values.

        Args:
            token: number, (batch, 1), as float.
            free: see above, (batch, 1).
            caches: of each block the keys (batch, heads, width, length) and the values
                (batch, heads, length, width); what is in free places counts for nothing.

        Returns:
            (batch, vocabulary), then of each block (batch, heads, width, 1) and
            (batch, heads, 1, width).
        """
        x, mask = self._begun(token, free)
        new: list[Tensor] = []
        for i, block in enumerate(self.decoders):
            ops: Any = block.ops
            joint = ops["qkv"](ops["norm1"](x))
            heads = cast("CausalAttention", ops["attend"]).heads
            h, key, value = attended_once(joint, heads, caches[2 * i], caches[2 * i + 1], mask)
            new += [key, value]
            x = x + ops["project"](h)
            x = x + ops["contract"](ops["widen"](ops["norm2"](x)))
        return (self.head(x).flatten(1), *new)


def attended_once(
    joint: Tensor, heads: int, keys: Tensor, values: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Return one token's attention over a cache and itself, and its key and value.

    Args:
        joint: (batch, 1, 3 * channels), see :class:`supernet.language.CausalAttention`.
        heads: of equal width.
        keys: (batch, heads, width, length).
        values: (batch, heads, length, width).
        mask: (batch, 1, 1, length), added to the scores of the cache.

    Returns:
        (batch, 1, channels); (batch, heads, width, 1); (batch, heads, 1, width).
    """
    query, key, value = split_heads(joint, heads)
    query, turned = query * query.shape[-1] ** -0.5, key.transpose(-2, -1)
    # Scores beside each other, so that neither cache is copied to be made longer by one.
    scores = torch.cat([query @ keys + mask, query @ turned], -1).softmax(-1)
    past, own = scores.split([keys.shape[-1], 1], -1)
    out = past @ values + own * value
    return out.transpose(1, 2).flatten(2), turned, value
