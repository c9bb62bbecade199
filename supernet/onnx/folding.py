"""Batch norm folded into integer weights, and codes that integer kernels can take."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

from search_spaces.errors import InputError
from supernet.plain import PlainLayer
from supernet.quantizers.lsq import weight_range

LARGEST_CODE = 127
"""Largest size of a weight code that integer kernels get."""

REDUCED_CODE = 64
"""The same where pairs of products with 8-bit inputs are summed in 16 bits: 2 x 255 x 64 fits."""

_LARGEST_BIAS = 2**30
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class FoldedLayer:
    """A layer with its batch norm folded in.

    Attributes:
        codes: weight codes in the weights' shape, int8, or int16 beyond 8 bits; ``None`` where
            weights are float.
        scale: positive float32 scale of each output channel, (out,).
        weight: float32 weights, where they are float.
        bias: float64 bias, (out,).
        gain: what each output channel was multiplied by, float64 (out,).
    """

    codes: np.ndarray | None
    scale: np.ndarray | None
    weight: np.ndarray | None
    bias: np.ndarray
    gain: np.ndarray


@torch.no_grad()
def fold(layer: PlainLayer) -> FoldedLayer:
    """Fold the batch norm of ``layer`` into scales (or float weights) and bias.

    Raises:
        InputError: a code does not fit its bits once its scale is made positive.
    """
    out = layer.op.weight.shape[0]
    bias = np.zeros(out) if layer.op.bias is None else _array(layer.op.bias)
    gain = np.ones(out)
    norm = layer.norm
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None and norm.running_var is not None
        gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        bias = _array(norm.bias) + (bias - _array(norm.running_mean)) * gain
    elif not isinstance(norm, nn.Identity):
        raise InputError(f"{layer.layer.name}: cannot fold a {type(norm).__name__}")
    if layer.weight_step is None:
        weight = _array(layer.op.weight) * column(gain, layer.op.weight.dim())
        return FoldedLayer(None, None, weight.astype(np.float32), bias, gain)
    scale = np.broadcast_to(_array(layer.weight_step), (out,)) * gain
    weight = _array(layer.op.weight)
    codes = np.round(weight / column(_array(layer.weight_step), weight.ndim)).astype(np.int64)
    codes = codes * column(np.where(scale < 0, -1, np.where(scale == 0, 0, 1)), codes.ndim)
    low, high = layer.code_range
    if codes.size and (codes.min() < low or codes.max() > high):
        raise InputError(
            f"{layer.layer.name}: folding the batch norm turns codes to "
            f"{codes.min()}..{codes.max()}, beyond {layer.layer.weight_bits} bits; give "
            "weight_step the sign of the batch norm's scale"
        )
    scale = np.maximum(np.abs(scale), _SMALLEST_SCALE)
    kind = np.int8 if layer.layer.weight_bits <= 8 else np.int16
    return FoldedLayer(codes.astype(kind), scale.astype(np.float32), None, bias, gain)


def reduce_codes(codes: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve the codes of the output channels that exceed 7 bits.

    Pairs of products with 8-bit activations are summed in 16 bits by processors without
    dot-product instructions; two times 255 x 64 fits, larger codes saturate.

    Returns:
        Codes within -64..64, and scales to match.
    """
    size = np.abs(codes.astype(np.int16)).reshape(len(codes), -1).max(1)
    large = size > REDUCED_CODE
    halved = np.round(codes / 2).astype(np.int8)
    return (
        np.where(column(large, codes.ndim), halved, codes),
        np.where(large, scale * 2, scale).astype(np.float32),
    )


def room_for_bias(
    codes: np.ndarray, scale: np.ndarray, bias: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Widen the scale of channels whose weights are so small that the bias overflows int32.

    The scale of channels without weights is free, and as fine as the bias allows.
    """
    without = ~codes.reshape(len(codes), -1).any(1)
    scale = np.where(without, _SMALLEST_SCALE, scale)
    # Spreading the codes later makes the scale finer again.
    least = np.abs(bias) * LARGEST_CODE / (step * _LARGEST_BIAS)
    small = scale < least
    ratio = np.where(small, scale / np.maximum(least, _SMALLEST_SCALE), 1.0)
    return (
        np.round(codes * column(ratio, codes.ndim)).astype(np.int8),
        np.where(small, least, scale).astype(np.float32),
    )


def stored_bits(codes: np.ndarray) -> int:
    """Return the bits of the smallest ONNX integer that holds ``codes``: 2, 4 or 8."""
    for bits in (2, 4):
        low, high = weight_range(bits)
        if not codes.size or (low <= codes.min() and codes.max() <= high):
            return bits
    return 8


def column(values: np.ndarray, rank: int) -> np.ndarray:
    """Return one value for each output channel of weights of ``rank`` dimensions."""
    return values.reshape(-1, *[1] * (rank - 1))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()
