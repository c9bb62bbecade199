"""The network of a checkpoint: GPT-2's blocks or Llama's, in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.checkpoints.config import DecoderConfig


class CheckpointDecoder(nn.Module):
    """A decoder with the weights of a checkpoint.

    GPT-2 (Radford et al., 2019) has layer norms and learned positions; Llama (Touvron et al., 2023)
    root mean square norms, rotary positions (Su et al., 2021), keys and values shared by groups of
    queries (Ainslie et al., 2023) and a gated MLP.

    Args:
        config: sizes and forms.

    Attributes:
        blocks: of :class:`DecoderBlock`.
        head: the layer to the vocabulary, without a bias.
    """

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocabulary, config.width)
        self.positions = None if config.theta else nn.Embedding(config.length, config.width)
        self.blocks = nn.ModuleList(DecoderBlock(config) for _ in range(config.layers))
        self.norm = norm_of(config)
        self.head = nn.Linear(config.width, config.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return a value for each token of the vocabulary after each token.

        ``tokens``: (batch, n) int64, n up to ``config.length``; or floats (batch, 1, 1, n), as the
        framework's networks take them. Returns (batch, n, vocabulary).
        """
        if tokens.is_floating_point():
            tokens = tokens.flatten(1).round().long()
        x = self.embedding(tokens)
        places = torch.arange(tokens.shape[1], device=tokens.device)
        if self.positions is not None:
            x = x + self.positions(places)
        turns = None if self.positions is not None else _turns(places, self.config)
        for block in self.blocks:
            x = block(x, turns)
        return self.head(self.norm(x))


class DecoderBlock(nn.Module):
    """Attention and MLP, each after a norm and beside a residual."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.config = config
        own, shared = config.heads * config.head_width, config.key_heads * config.head_width
        bias = config.attention_bias
        self.norm1, self.norm2 = norm_of(config), norm_of(config)
        self.query = nn.Linear(config.width, own, bias=bias)
        self.key = nn.Linear(config.width, shared, bias=bias)
        self.value = nn.Linear(config.width, shared, bias=bias)
        self.output = nn.Linear(own, config.width, bias=bias)
        gated = config.family == "llama"
        self.gate = nn.Linear(config.width, config.inner, bias=config.mlp_bias) if gated else None
        self.up = nn.Linear(config.width, config.inner, bias=config.mlp_bias)
        self.down = nn.Linear(config.inner, config.width, bias=config.mlp_bias)

    def forward(self, x: Tensor, turns: tuple[Tensor, Tensor] | None) -> Tensor:
        """``x``: (batch, n, width); ``turns``: cosines and sines (n, head width) of places."""
        h = self.norm1(x)
        query, key, value = (
            layer(h).unflatten(2, (-1, self.config.head_width)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        if turns is not None:
            query, key = _turned(query, *turns), _turned(key, *turns)
        groups = self.config.heads // self.config.key_heads
        if groups > 1:
            key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        h = F.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.output(h.transpose(1, 2).flatten(2))
        h = self.norm2(x)
        inner = self.up(h)
        if self.gate is not None:
            inner = inner * activated(self.gate(h), self.config.activation)
        else:
            inner = activated(inner, self.config.activation)
        return x + self.down(inner)


def norm_of(config: DecoderConfig) -> nn.Module:
    """Return the norm of a family, with the width and epsilon of ``config``."""
    if config.family == "llama":
        return nn.RMSNorm(config.width, eps=config.epsilon)
    return nn.LayerNorm(config.width, eps=config.epsilon)


def activated(x: Tensor, name: str) -> Tensor:
    """Apply an activation of :data:`supernet.checkpoints.config.ACTIVATIONS` to any shape."""
    if name.startswith("gelu"):
        return F.gelu(x, approximate="tanh" if name == "gelu_tanh" else "none")
    return F.relu(x) if name == "relu" else F.silu(x)


def _turns(places: Tensor, config: DecoderConfig) -> tuple[Tensor, Tensor]:
    """Return cosines and sines (n, head width) of rotary positions."""
    even = torch.arange(0, config.head_width, 2, device=places.device).float()
    angles = places.float()[:, None] / config.theta ** (even / config.head_width)
    both = torch.cat([angles, angles], -1)
    return both.cos(), both.sin()


def _turned(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn pairs of channels, half a head apart, by the angles of their places."""
    first, second = x.chunk(2, -1)
    return x * cosines + torch.cat([-second, first], -1) * sines
