"""What every kernel computes, in NumPy: the meaning that tests hold them to, bit by bit."""

from __future__ import annotations

import numpy as np

from devices.lowbit.library import ConvSpec
from devices.lowbit.rounding import to_codes


def conv_sums(x: np.ndarray, codes: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """Return the integer sums of a convolution.

    Args:
        x: uint8 codes (batch, height, width, channels).
        codes: int8 weights (outputs, channels / groups, kernel height, kernel width).
        spec: the convolution; padding has the code of zero.

    Returns:
        int64 (batch, out height, out width, outputs): sums of ``(x - zero point) * weight``.
    """
    top, left, bottom, right = spec.pads
    centred = x.astype(np.int64) - spec.zero_point
    centred = np.pad(centred, ((0, 0), (top, bottom), (left, right), (0, 0)))
    height, width = spec.out_size
    inner, outer = spec.channels // spec.groups, spec.outputs // spec.groups
    sums = np.zeros((spec.batch, height, width, spec.groups, outer), np.int64)
    weights = codes.astype(np.int64).reshape(spec.groups, outer, inner, *spec.kernel)
    for i in range(spec.kernel[0]):
        for j in range(spec.kernel[1]):
            y0, x0 = i * spec.dilation[0], j * spec.dilation[1]
            part = centred[:, y0:, x0:][:, :: spec.stride[0], :: spec.stride[1]]
            part = part[:, :height, :width].reshape(spec.batch, height, width, spec.groups, inner)
            sums += np.einsum("bhwgi,goi->bhwgo", part, weights[:, :, :, i, j])
    return sums.reshape(spec.batch, height, width, spec.outputs)


def finish(acc: np.ndarray, multiplier: np.ndarray, spec: ConvSpec) -> np.ndarray:
    """Return the output codes of integer ``acc`` (..., outputs), uint8.

    float32 throughout, each operation rounded; the last rounding is half to even.
    """
    v: np.ndarray = acc.astype(np.int32).astype(np.float32) * multiplier.astype(np.float32)
    if spec.function != "identity":
        v = activate(v, spec.function) / np.float32(spec.scale)
    return to_codes(v, spec.out_zero_point, spec.out_low, spec.out_high)


def activate(v: np.ndarray, function: str) -> np.ndarray:
    """Apply one of the kernels' functions to float32 values."""
    one = np.float32(1)
    gate = np.clip(v * np.float32(1 / 6) + np.float32(0.5), np.float32(0), one)
    if function == "hard_swish":
        return v * gate
    if function == "hard_sigmoid":
        return gate
    with np.errstate(over="ignore"):
        if function == "sigmoid":
            return one / (one + np.exp(-v))
        if function == "silu":
            return v / (one + np.exp(-v))
    return v


def add_codes(
    a: np.ndarray, b: np.ndarray, *, ma: float, mb: float, constant: float, low: int, high: int
) -> np.ndarray:
    """Return the codes of a sum of two tensors of codes: ``fma(a, ma, fma(b, mb, constant))``."""
    return to_codes(fma(a, ma, fma(b, mb, constant)), 0, low, high)


def fma(x: np.ndarray, y: float, z: np.ndarray | float) -> np.ndarray:
    """Return ``x * y + z`` of float32 numbers rounded once (twice in rare cases)."""
    return np.asarray(np.float64(x) * np.float64(np.float32(y)) + np.float64(z), dtype=np.float32)


def multiply_codes(
    a: np.ndarray,
    b: np.ndarray,
    *,
    za: int,
    zb: int,
    m: float,
    zero_point: int,
    low: int = 0,
    high: int = 255,
) -> np.ndarray:
    """Return the codes of a product; ``b`` broadcasts over the pixels of ``a``."""
    product = (a.astype(np.int32) - za) * (b.astype(np.int32) - zb)
    return to_codes(product.astype(np.float32) * np.float32(m), zero_point, low, high)


def mean_codes(
    x: np.ndarray, *, zero_point_in: int, m: float, zero_point: int, low: int = 0, high: int = 255
) -> np.ndarray:
    """Return the codes (batch, channels) of the mean over the pixels of (batch, pixels, channels).

    ``m`` is the ratio of steps over the number of pixels.
    """
    sums = x.astype(np.int32).sum(1) - x.shape[1] * zero_point_in
    return to_codes(sums.astype(np.float32) * np.float32(m), zero_point, low, high)
