"""Constants of a C project: packed weights, what belongs to each output channel, fixed point."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from nas.models.c_project.program import Operation
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import Encoding, pack_codes

CHANNEL_BYTES = 12
"""Of an output channel: bias, multiplier, shift and factor, as :func:`flash_bytes` counts."""

STORAGES = ("packed", "fields")
"""``packed``: weights at their own bits. ``fields``: in 4 or 8 bits, as ``flash_kib`` counts."""

_POINT = 33
_LAST = 63


@dataclass(frozen=True)
class Weights:
    """Weights as a C array.

    Attributes:
        data: uint8 bytes.
        bits: of a field; 8 is two's complement, otherwise ``low + step * field``.
        low, step: see there.
    """

    data: np.ndarray
    bits: int
    low: int
    step: int


def stored_weights(operation: Operation, storage: str) -> Weights:
    """Return the weights of a layer, (outputs, kernel height, kernel width, inputs) in a row."""
    codes, bits = operation.values["codes"], operation.values["bits"]
    if storage == "fields":
        bits = 4 if bits <= 4 else 8
    if bits >= 8:
        return Weights(codes.astype(np.int8).reshape(-1).view(np.uint8), 8, 0, 1)
    encoding = Encoding.for_codes(codes, bits, name=operation.name)
    return Weights(pack_codes(codes, encoding), bits, encoding.low, encoding.stride)


def multiplier(value: np.float32, name: str) -> tuple[int, int]:
    """Return ``(mantissa, shift)`` with ``mantissa * 2^-shift`` equal to a float32 number.

    The shift is 33 to 63 where that leaves all bits of the mantissa, which kernels then round
    the short way. A number so small that every product rounds to 0 becomes 0.

    Raises:
        InputError: it is negative, infinite or no number.
    """
    exact = float(value)
    if not (math.isfinite(exact) and exact >= 0):
        raise InputError(f"{name}: a multiplier of {exact}; export the model again")
    if exact == 0:
        return 0, _POINT
    fraction, exponent = math.frexp(exact)
    mantissa, shift = int(fraction * 2**24), 24 - exponent
    if shift > _LAST:
        return 0, _POINT
    lift = min(7, max(0, _LAST - shift))
    return mantissa << lift, shift + lift


def channels(operation: Operation) -> list[tuple[int, int, int, int]]:
    """Return bias, mantissa, factor and shift of each output channel."""
    values = operation.values
    rows = []
    for bias, scale, factor in zip(
        values["bias"], values["multiplier"], values["factor"], strict=True
    ):
        if not -(2**31) <= bias < 2**31:
            raise InputError(f"{operation.name}: a bias of {bias} does not fit 32 bits")
        mantissa, shift = multiplier(scale, operation.name)
        rows.append((int(bias), mantissa, int(factor), shift))
    return rows


def float_bits(value: Any) -> int:
    """Return the bits of a number as float32."""
    return int(np.float32(value).view(np.uint32))


def fixed_sum(ratio_a: np.float32, ratio_b: np.float32, constant: np.float32) -> dict[str, int]:
    """Return the fixed-point numbers of a sum of codes, and how far off they may be.

    ``fixed_a * a + fixed_b * b + fixed_constant`` is ``2^point`` times the sum to within
    ``doubt``, which covers the rounding of float32, too; nearer than that to the middle of two
    codes the kernel computes exactly.
    """
    a, b, k = float(ratio_a), float(ratio_b), float(constant)
    largest = 255 * a + 255 * b + abs(k) + 1
    point = 30 - math.ceil(math.log2(largest))
    one = 2.0**point
    inner = 255 * b + abs(k)
    # Half a unit in the last place of each float32 rounding, twice over to be safe.
    rounding = (inner + min(largest, 512.0)) * 2.0**-23
    doubt = 256 + math.ceil(one * rounding) + 1
    if point < 12 or 4 * doubt >= one:
        raise InputError(f"a sum of codes with ratios {a} and {b} has no fixed-point form")
    return {
        "fixed_a": round(a * one),
        "fixed_b": round(b * one),
        "fixed_constant": round(k * one),
        "doubt": doubt,
        "point": point,
    }
