"""The network of a checkpoint of BERT's shape, in plain PyTorch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.checkpoints.decoder import activated
from supernet.checkpoints.encoder_config import EncoderConfig

Head = Literal["masked", "classes", "none"]
"""What an encoder has after its last layer: the words of masked places, classes, or nothing."""


class CheckpointEncoder(nn.Module):
    """An encoder with the weights of a checkpoint (BERT: Devlin et al., NAACL 2019).

    Args:
        config: sizes and forms.
        head: what comes after the last layer.
        pooled: whether there is a layer on the first token, which a classifier reads.

    Attributes:
        blocks: of :class:`EncoderBlock`.
    """

    def __init__(
        self,
        config: EncoderConfig,
        *,
        head: Head = "none",
        pooled: bool = False,
    ) -> None:
        super().__init__()
        self.config, self.head = config, head
        width = config.width
        self.embedding = nn.Embedding(config.vocabulary, width)
        self.positions = nn.Embedding(config.length, width)
        self.types = nn.Embedding(config.types, width)
        self.norm = nn.LayerNorm(width, eps=config.epsilon)
        self.blocks = nn.ModuleList(EncoderBlock(config) for _ in range(config.layers))
        self.pool = nn.Linear(width, width) if pooled else None
        self.classifier = nn.Linear(width, len(config.labels)) if head == "classes" else None
        self.transform = nn.Linear(width, width) if head == "masked" else None
        self.transform_norm = nn.LayerNorm(width, eps=config.epsilon) if head == "masked" else None
        self.words = nn.Linear(width, config.vocabulary) if head == "masked" else None

    def hidden(
        self, tokens: Tensor, there: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """Return the last layer's outputs, (batch, n, width).

        Args:
            tokens: (batch, n) int64, n up to ``config.length``.
            there: (batch, n) bool, False for what fills a text up; None where nothing does.
            types: of the segments, (batch, n) int64; None for the first alone.
        """
        places = torch.arange(tokens.shape[1], device=tokens.device)
        kinds = torch.zeros_like(tokens) if types is None else types
        x = self.norm(self.embedding(tokens) + self.positions(places) + self.types(kinds))
        mask = None if there is None else there[:, None, None]
        for block in self.blocks:
            x = block(x, mask)
        return x

    def forward(
        self, tokens: Tensor, there: Tensor | None = None, types: Tensor | None = None
    ) -> Tensor:
        """Return what the head says; arguments as of :meth:`hidden`.

        Returns:
            of ``masked`` a value for each word at each place, (batch, n, vocabulary); of
            ``classes`` (batch, classes); of ``none`` the last layer's outputs.
        """
        return self.told(self.hidden(tokens, there, types))

    def told(self, hidden: Tensor) -> Tensor:
        """Return what the head says of the last layer's outputs; see :meth:`forward`.

        ``hidden``: (batch, n, width); of ``masked`` any number of places, (..., width).
        """
        if self.words is not None:
            assert self.transform is not None and self.transform_norm is not None
            x = activated(self.transform(hidden), self.config.activation)
            return self.words(self.transform_norm(x))
        if self.classifier is not None:
            return self.classifier(self.pooled(hidden))
        return hidden

    def pooled(self, hidden: Tensor) -> Tensor:
        """Return the layer on the first token, (batch, width). ``hidden``: (batch, n, width)."""
        assert self.pool is not None, "an encoder with a classifier has this layer"
        return self.pool(hidden[:, 0]).tanh()


class EncoderBlock(nn.Module):
    """Attention and MLP, each with a norm after its residual."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.output = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, config.inner), nn.Linear(config.inner, width)
        self.norm1 = nn.LayerNorm(width, eps=config.epsilon)
        self.norm2 = nn.LayerNorm(width, eps=config.epsilon)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """``x``: (batch, n, width); ``mask``: (batch, 1, 1, n) bool, True for what is there."""
        query, key, value = (
            layer(x).unflatten(2, (self.config.heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        h = F.scaled_dot_product_attention(query, key, value, mask)
        x = self.norm1(x + self.output(h.transpose(1, 2).flatten(2)))
        return self.norm2(x + self.down(activated(self.up(x), self.config.activation)))
