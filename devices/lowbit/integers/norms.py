"""Instance and group norms of a layer's floats, with their sums in whole numbers.

Mean and variance are sums of whole numbers, so they do not depend on the order of adding; the root
is that of a whole number. What is left for each value are one product and one sum of float32, which
rounding defines. So a norm has the same bits wherever it runs, with floating point or without.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from devices.lowbit.integers.gates import shortened

_BITS = 29
_ROOM = 62
"""Bits that a sum of squares may take."""

_F = np.float32


@dataclass(frozen=True)
class Norm:
    """A norm of images of a known size.

    Attributes:
        groups: of channels, each with a mean and a variance.
        point: floats become whole numbers of ``2 ** -point``...
        low, limit: ...and are kept within these: ``-limit``, or 0 where negative ones count as 0.
        shift: bits that they lose, rounded, before they are squared.
        epsilon: added to the sum of squares.
        gain: float32 (channels,), times the root of how many values a group has, and 2 ** -shift.
        bias: float32 (channels,).
    """

    groups: int
    point: int
    low: int
    limit: int
    shift: int
    epsilon: int
    gain: np.ndarray
    bias: np.ndarray


def norm_numbers(
    bound: float,
    groups: int,
    epsilon: float,
    gain: np.ndarray,
    bias: np.ndarray,
    pixels: int,
    *,
    positive: bool = False,
) -> Norm:
    """Return a norm for images of so many pixels.

    Args:
        bound: that no float exceeds in size.
        groups: of channels.
        epsilon: added to the variance.
        gain, bias: (channels,).
        pixels: of an image.
        positive: whether negative floats count as 0.
    """
    count = pixels * len(gain) // groups
    point = _BITS - math.ceil(math.log2(max(bound, 2.0**-60)))
    # Less their mean, numbers have a bit more.
    shift = max(0, math.ceil((2 * (_BITS + 1) + math.log2(count) - _ROOM) / 2))
    small = max(1, round(math.ldexp(epsilon * count, 2 * (point - shift))))
    factor = math.ldexp(math.sqrt(count), -shift)
    return Norm(
        groups, point, 0 if positive else -(1 << _BITS), 1 << _BITS, shift,
        min(small, 1 << _ROOM), (gain * factor).astype(_F), bias.astype(_F),
    )  # fmt: skip


def normalised(norm: Norm, x: np.ndarray) -> np.ndarray:
    """Return what a norm gives, float32, as kernels compute it.

    Args:
        norm: for images of this size.
        x: float32 (batch, channels, height, width).
    """
    scaled = np.rint(np.ldexp(x.astype(np.float64), norm.point))
    whole = np.clip(scaled, norm.low, norm.limit).astype(np.int64)
    grouped = whole.reshape(len(x), norm.groups, -1)
    count = grouped.shape[2]
    # Halves up, of sums of either sign.
    mean = (2 * grouped.sum(2, keepdims=True) + count) // (2 * count)
    centred = grouped - mean
    squares = np.square(shortened(centred, norm.shift)).sum(2) + norm.epsilon
    roots = np.array([_root(int(s)) for s in squares.ravel()], _F).reshape(len(x), -1)
    each = x.shape[1] // norm.groups
    factor = (norm.gain / np.repeat(roots, each, 1)).astype(_F)[:, :, None, None]
    product = (centred.reshape(x.shape).astype(_F) * factor).astype(_F)
    return (product + norm.bias.reshape(-1, 1, 1)).astype(_F)


def _root(square: int) -> np.float32:
    """Return the root of a positive whole number below 2^64: 31 bits of it, then float32."""
    shift = (64 - square.bit_length()) // 2
    root = math.isqrt(square << (2 * shift))
    return _F(math.ldexp(float(_F(root >> 1)), 1 - shift))
