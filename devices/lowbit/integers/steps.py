"""A function of a number, rounded to codes, as the places where the code changes.

Whatever a function is made of (exponentials, error functions, divisions), what is left of it after
rounding is a staircase: a few hundred float32 numbers at which another code begins. Finding the
stair of a number is comparing, which integers do as well as floats. So a layer's sums become the
codes of SiLU or GELU without computing either, on every machine with the same result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.lowbit.rounding import to_codes

LARGEST = 1024
"""Stairs that a table may have: 5 KiB of constants. Functions that waver more stay in floats."""

_F = np.float32
_EXPONENTS = (-40, 40)
"""Powers of two within which functions are looked at; sums of layers never lie beyond."""
_MANTISSA = 9
"""Bits of the mantissa that tell samples apart: 512 numbers from one power of two to the next."""


@dataclass(frozen=True)
class Steps:
    """A staircase.

    Attributes:
        places: (n,) float32, ascending: where another code begins.
        codes: (n + 1,) uint8: before the first place, and from each place on.
    """

    places: np.ndarray
    codes: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return the codes, uint8, of float32 numbers of any shape."""
        return self.codes[np.searchsorted(self.places, x, side="right")]


def ordered(x: np.ndarray) -> np.ndarray:
    """Return int32 numbers in the order of float32 numbers; both zeros are 0."""
    bits = np.ascontiguousarray(x, _F).view(np.int32)
    return np.where(bits < 0, -(bits & 0x7FFFFFFF), bits)


def function_steps(
    function: Callable[[np.ndarray], np.ndarray], grid: Mapping[str, Any]
) -> Steps | None:
    """Return the staircase of a function's codes.

    Between two samples, of which there are 512 from one power of two to the next, the function is
    taken to rise or to fall, and each change of the code is found by bisection to the last bit.

    Args:
        function: of an array of any shape; called with float64, so that its own rounding does not
            make stairs.
        grid: of its values.

    Returns:
        None of a function that gives no number somewhere, or that has more than ``LARGEST`` stairs.
    """

    def codes(keys: np.ndarray) -> np.ndarray:
        with np.errstate(all="ignore"):
            values = function(_numbers(keys).astype(np.float64))
            ratio = (values.astype(_F) / _F(grid["scale"])).astype(_F)
        if np.isnan(ratio).any():
            raise _NoNumberError
        return to_codes(ratio, grid["zero_point"], 0, 2 ** grid["bits"] - 1).astype(np.int64)

    low, high = ordered(np.exp2(np.array(_EXPONENTS, _F))).tolist()
    above = np.arange(low, high + 1, 1 << (23 - _MANTISSA), dtype=np.int64)
    keys = np.concatenate([-above[::-1], [0], above])
    try:
        found = codes(keys)
        before, after = found[:-1], found[1:]
        count = np.abs(after - before)
        if count.sum() > LARGEST:
            return None
        cells = np.repeat(np.arange(len(count)), count)
        sign = np.sign(after - before)[cells]
        nth = np.arange(len(cells)) - np.repeat(np.cumsum(count) - count, count) + 1
        target = before[cells] + sign * nth
        left, right = keys[:-1][cells], keys[1:][cells]
        while (open_ := right - left > 1).any():
            middle = (left + right) // 2
            reached = (codes(middle) - target) * sign >= 0
            right = np.where(open_ & reached, middle, right)
            left = np.where(open_ & ~reached, middle, left)
    except _NoNumberError:
        return None
    # Where the code jumps by more than one, the last of equal places has the code from there on.
    last = np.append(right[1:] != right[:-1], True) if len(right) else np.zeros(0, bool)
    all_codes = np.concatenate([found[:1], target[last]]).astype(np.uint8)
    return Steps(_numbers(right[last]), all_codes)


class _NoNumberError(Exception):
    """The function gave no number."""


def _numbers(keys: np.ndarray) -> np.ndarray:
    """Return the float32 numbers of :func:`ordered`."""
    bits = np.where(keys < 0, np.int64(0x80000000) - keys, keys).astype(np.uint32)
    return bits.view(_F)
