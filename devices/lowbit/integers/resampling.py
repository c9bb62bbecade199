"""Images enlarged or shrunk by a weighted mean of neighbours, on integers.

Exporters write bilinear and bicubic interpolation as two products with matrices, one along the rows
and one along the columns. Each row of such a matrix has a few numbers beside each other; they
become whole numbers of ``2 ** -20``, and what they weigh whole numbers as of one side of a product
(:mod:`devices.lowbit.integers.gates`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.lowbit.integers.gates import CODES, Operand, shortened, whole_numbers
from devices.lowbit.rounding import to_codes
from search_spaces.errors import InputError

WEIGHT_BITS = 20
MOST_TAPS = 4
"""Numbers beside each other: two of bilinear, four of bicubic interpolation."""

_ONE = 1 << WEIGHT_BITS
_LIFTED = 27
_F = np.float32


@dataclass(frozen=True)
class Taps:
    """What one axis of an image becomes.

    Attributes:
        first: (out,) int32: the first of the neighbours.
        weights: (out, taps) int32, of each neighbour, in ``2 ** -20``.
        size: of the axis before.
    """

    first: np.ndarray
    weights: np.ndarray
    size: int


def image_taps(axes: Sequence[Taps | None], sides: Sequence[int], name: str) -> tuple[Taps, Taps]:
    """Return rows and columns of a resampled image.

    Args:
        axes: rows and columns, None where they stay.
        sides: (height, width) of the image before.
        name: of what it becomes, for errors.

    Raises:
        InputError: the matrices are of another size.
    """
    rows, columns = (
        Taps(np.arange(side, dtype=np.int32), np.full((side, 1), _ONE, np.int32), side)
        if taps is None
        else taps
        for taps, side in zip(axes, sides, strict=True)
    )
    if (rows.size, columns.size) != tuple(sides):
        raise InputError(f"{name}: matrices that resize another image than one of {tuple(sides)}")
    return rows, columns


def matrix_taps(matrix: np.ndarray) -> Taps | None:
    """Return a matrix (out, in) as weights of neighbours.

    Returns:
        None of a matrix that mixes more than ``MOST_TAPS`` neighbours, or that is no mean.
    """
    used = matrix != 0
    if not used.any(1).all() or np.abs(matrix.sum(1) - 1).max() > 1e-4 or np.abs(matrix).max() > 2:
        return None
    size = matrix.shape[1]
    first, last = used.argmax(1), size - 1 - used[:, ::-1].argmax(1)
    taps = int((last - first).max()) + 1
    if taps > MOST_TAPS:
        return None
    first = np.minimum(first, size - taps)
    weights = np.take_along_axis(matrix, first[:, None] + np.arange(taps), 1)
    scaled = np.rint(np.ldexp(weights.astype(np.float64), WEIGHT_BITS)).astype(np.int32)
    return Taps(first.astype(np.int32), scaled, size)


def resample_numbers(operand: Operand, grid: Mapping[str, Any]) -> tuple[int, np.float32]:
    """Return the bits by which whole numbers are lengthened first, and the factor of the result.

    Args:
        operand: of the image.
        grid: of the result.
    """
    lift = _LIFTED - operand.largest.bit_length() if operand.kind == CODES else 0
    return lift, _F(operand.unit / 2**lift / float(_F(grid["scale"])))


def resampled(
    operand: Operand,
    given: np.ndarray,
    rows: Taps,
    columns: Taps,
    grid: Mapping[str, Any],
    *,
    positive: bool = False,
) -> np.ndarray:
    """Return the codes of a resampled image, as kernels compute them.

    Args:
        operand: of the image.
        given: codes uint8 or floats float32, (batch, channels, height, width).
        rows, columns: of its axes.
        grid: of the result.
        positive: whether negative results become 0.

    Returns:
        uint8 (batch, channels, out height, out width).
    """
    lift, multiplier = resample_numbers(operand, grid)
    whole = whole_numbers(operand, given) << lift
    for axis, taps in ((3, columns), (2, rows)):
        shape = [-1 if i == axis else 1 for i in range(4)]
        sums = sum(
            whole.take(taps.first + j, axis) * taps.weights[:, j].astype(np.int64).reshape(shape)
            for j in range(taps.weights.shape[1])
        )
        whole = shortened(np.asarray(sums), WEIGHT_BITS)
    zero = grid["zero_point"]
    low = zero if positive else 0
    return to_codes(whole.astype(_F) * multiplier, zero, low, 2 ** grid["bits"] - 1)
