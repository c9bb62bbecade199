"""How tensors run through each kind of block, written once.

A dataflow gets its layers and quantisation points as callables by name. In the supernet
they are elastic layers bound to an architecture, in an extracted network plain
modules; both therefore compute the same thing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.nn import functional as F

from search_spaces.block_kinds import BLOCK_KINDS, on_alive, on_current
from search_spaces.errors import InputError
from search_spaces.registry import Registry

Operation = Callable[..., Any]
Dataflow = Callable[[Tensor, Mapping[str, Operation], bool], Tensor]

DATAFLOWS: Registry[Dataflow] = Registry("dataflow", group="nas.dataflows")
"""Dataflows of kinds that are not in :data:`~search_spaces.block_kinds.BLOCK_KINDS`."""


def dataflow_of(kind: str) -> Dataflow:
    """Return how tensors run through blocks of ``kind``.

    Raises:
        InputError: the kind is registered nowhere; the message lists those that are.
    """
    if kind in DATAFLOWS and kind not in BLOCK_KINDS:
        return on_current(DATAFLOWS.get(kind), 0)
    record = BLOCK_KINDS.get(kind)
    return (on_alive if record.kept else on_current)(record.load_dataflow(), 0)


def activate(x: Tensor, name: str) -> Tensor:
    """Apply the non-linearity ``name`` to ``x`` of any shape.

    Raises:
        InputError: the name is none of ``relu, hswish, hsigmoid, gelu, none, stream``.
    """
    if name == "relu":
        return F.relu(x)
    if name == "hswish":
        return F.hardswish(x)
    if name == "hsigmoid":
        return F.hardsigmoid(x)
    if name == "gelu":
        return F.gelu(x)
    if name in ("none", "stream"):
        return x
    raise InputError(f"unknown activation {name!r} (available: relu, hswish, hsigmoid, gelu, none)")


def stem(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """First convolution: (batch, channels, height, width) images to features."""
    return ops["output"](ops["stem"](x))


def pooled_stem(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """First convolution and max pooling (He et al., CVPR 2016, table 1)."""
    return F.max_pool2d(stem(x, ops, residual), 3, 2, 1)


def mbconv(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Inverted residual block (Sandler et al., CVPR 2018), optionally with squeeze-and-excite.

    ``x``: (batch, channels, height, width), quantised as a stream.
    """
    h = ops["expand"](x) if "expand" in ops else x
    # One convolution in place of expansion and depthwise convolution.
    h = ops["fused"](x) if "fused" in ops else h
    # A fused block has no depthwise convolution.
    h = ops["depthwise"](h) if "depthwise" in ops else h
    if "squeeze" in ops:
        h = ops["gate"](h)
        gate = ops["squeeze"](h.mean((2, 3), keepdim=True))
        h = h * ops["scale"](ops["excite"](gate))
    h = ops["output"](ops["project"](h))
    return ops["sum"](x + h) if residual else h


def attend(tokens: Tensor, ops: Mapping[str, Operation]) -> Tensor:
    """Multi-head attention between projections (Vaswani et al., 2017, section 3.2.2).

    ``tokens``: (batch, tokens, 3 * channels), see :class:`supernet.operators.Heads`; returns
    (batch, tokens, channels). Both products are of quantised tensors; softmax is float. The
    factors have points of their own, unless ``tokens`` is quantised.
    """
    query, key, value = ops["heads"](tokens)
    scale = query.shape[-1] ** -0.5
    if "query" in ops:
        query, key, value = ops["query"](query * scale), ops["key"](key), ops["value"](value)
        scores = query @ key.transpose(-2, -1)
    else:
        scores = query @ key.transpose(-2, -1) * scale
    shares = ops["shares"](scores.softmax(-1))
    return (shares @ value).transpose(1, 2).flatten(2)


def patches(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Patch embedding (Dosovitskiy et al., ICLR 2021, section 3.1).

    ``x``: (batch, channels, height, width) images; returns (batch, tokens, channels).
    """
    tokens = ops["output"](ops["patches"](x)).flatten(2).transpose(1, 2)
    return ops["positions"](tokens)


def transformer(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Pre-norm transformer block: attention, then MLP. ``x``: (batch, tokens, channels), float."""
    x = x + ops["project"](attend(ops["qkv"](ops["norm1"](x)), ops))
    return x + ops["contract"](ops["widen"](ops["norm2"](x)))


def token_head(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Layer norm, mean over tokens and classifier. ``x``: (batch, tokens, channels)."""
    return ops["classifier"](ops["norm"](x).mean(1))


def embed_tokens(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Embedding of tokens and their positions.

    ``x``: (batch, 1, 1, tokens), whole numbers; returns (batch, tokens, channels).
    """
    return ops["embed"](x)


def decoder(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Pre-norm block of a language model (Radford et al., 2019): causal attention, then MLP.

    ``x``: (batch, tokens, channels), float; so are the products of the attention.
    """
    x = x + ops["project"](ops["attend"](ops["qkv"](ops["norm1"](x))))
    return x + ops["contract"](ops["widen"](ops["norm2"](x)))


def language_head(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Layer norm and a value for each token of the vocabulary.

    ``x``: (batch, tokens, channels); returns (batch, tokens, vocabulary).
    """
    return ops["classifier"](ops["norm"](x))


def lean_attention(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Attention at a lower resolution than its input (Nottebaum et al., LowFormer, WACV 2025).

    ``x``: (batch, channels, height, width), quantised as a stream.
    """
    h = ops["joint"](ops["qkv"](ops["reduce"](x)))
    tokens = attend(h.flatten(2).transpose(1, 2), ops)
    h = tokens.transpose(1, 2).unflatten(2, h.shape[-2:])
    h = ops["output"](ops["project"](h))
    return ops["sum"](x + F.interpolate(h, size=x.shape[-2:], mode="nearest"))


def mlp(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Two 1x1 convolutions beside a residual. ``x``: (batch, channels, height, width), a stream."""
    return ops["sum"](x + ops["output"](ops["contract"](ops["expand"](x))))


def residual_block(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Basic or bottleneck residual block (He et al., CVPR 2016, section 3.3).

    ``x``: (batch, channels, height, width), quantised as a stream.
    """
    short = ops["short"](ops["shortcut"](x)) if "shortcut" in ops else x
    h = x
    for role in ("reduce", "conv1", "conv", "conv2", "restore"):
        h = ops[role](h) if role in ops else h
    return ops["sum"](short + ops["output"](h))


def head(x: Tensor, ops: Mapping[str, Operation], residual: bool) -> Tensor:
    """Last convolution, global average pooling and classifier: returns (batch, outputs)."""
    h = ops["pool"](ops["head"](x)) if "head" in ops else x
    h = h.mean((2, 3))
    if "feature" in ops:
        h = ops["feature"](h)
    return ops["classifier"](h)
