"""Products of two tensors, of which one or both are functions of a layer's floats, on integers.

A gate multiplies codes by the sigmoid of what a layer gives, say. The layer's floats become whole
numbers of a power of two, and a smooth function of these is a cubic polynomial in each of some
hundred cells of equal width, evaluated in whole numbers of a power of two as well; the product of
two whole numbers is scaled once. How far a function is off is measured when its table is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from devices.lowbit.rounding import to_codes

CODES, TABLE, FLOATS, CURVE = 0, 1, 2, 3
"""What an operand is: codes, a table of codes, floats, or a curve over floats."""

TOLERANCE = 2.0**-22
"""Largest error of a curve in parts of its largest value: a few units of float32."""

_CELLS = (32, 64, 128, 256, 512)
_WIDEST = 1024.0
"""Floats beyond are taken for this, where a function has ended by then."""
_VALUE_BITS, _FLOAT_BITS, _PRODUCT_BITS = 27, 29, 30

Function = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Operand:
    """One side of a product, as whole numbers.

    Attributes:
        kind: ``CODES``, ``TABLE``, ``FLOATS`` or ``CURVE``.
        unit: value of the whole number 1.
        largest: that no whole number exceeds in size.
        zero_point: of ``CODES``, taken off.
        point: of floats: they are rounded to whole numbers of ``2 ** -point``...
        low, high: ...and kept within these.
        cell_bits: of a curve: a cell is so many bits wide.
        table: int32, of ``TABLE`` (256,), of ``CURVE`` (cells, 4): the number at the cell's
            beginning, and the factors of the place in the cell, its square and its cube.
    """

    kind: int
    unit: float
    largest: int
    zero_point: int = 0
    point: int = 0
    low: int = 0
    high: int = 0
    cell_bits: int = 0
    table: np.ndarray | None = None


def of_codes(grid: Mapping[str, Any], function: Function | None) -> Operand | None:
    """Return codes, or a function of them, as an operand; None where it gives no number."""
    zero, count = grid["zero_point"], 2 ** grid["bits"]
    if function is None:
        largest = max(zero, count - 1 - zero, 1)
        return Operand(CODES, float(np.float32(grid["scale"])), largest, zero_point=zero)
    places = (np.arange(256) - zero) * float(np.float32(grid["scale"]))
    with np.errstate(all="ignore"):
        values = np.asarray(function(places), np.float64)
    if not np.isfinite(values).all():
        return None
    point = _VALUE_BITS - _magnitude(np.abs(values).max())
    table = np.rint(np.ldexp(values, point)).astype(np.int32)
    return Operand(TABLE, 2.0**-point, 1 << _VALUE_BITS, table=table)


def of_floats(bound: float, function: Function | None, *, positive: bool = False) -> Operand | None:
    """Return a layer's floats, or a function of them, as an operand.

    Args:
        bound: that no float exceeds in size.
        function: of float64 arrays; itself where None.
        positive: of no function: negative floats count as 0.

    Returns:
        None of a function that no table of 512 cells gives to within ``TOLERANCE``.
    """
    if function is None:
        point = _FLOAT_BITS - _magnitude(bound)
        end = 1 << _FLOAT_BITS
        return Operand(
            FLOATS, 2.0**-point, end, point=point, low=0 if positive else -end, high=end - 1
        )
    reach = 2.0 ** min(_magnitude(bound), _magnitude(_WIDEST))
    with np.errstate(all="ignore"):
        while reach > 1 and _ended(function, reach / 2, bound):
            reach /= 2
        if reach < bound and not _ended(function, reach, bound):
            return None
        for cells in _CELLS:
            if (found := _curve(function, reach, cells)) is not None:
                return found
    return None


def product_numbers(operands: Sequence[Operand], grid: Mapping[str, Any]) -> tuple[int, np.float32]:
    """Return the bits that a product is shortened by, rounding, and the factor of what is left.

    Args:
        operands: both.
        grid: of the product.
    """
    a, b = operands
    size = a.largest.bit_length() + b.largest.bit_length()
    shift = max(0, size - _PRODUCT_BITS)
    unit = math.ldexp(a.unit * b.unit, shift)
    return shift, np.float32(unit / float(np.float32(grid["scale"])))


def _magnitude(value: float) -> int:
    """Return the smallest power of two that is not below a number."""
    return math.ceil(math.log2(max(float(value), 2.0**-60)))


def _ended(function: Function, reach: float, bound: float) -> bool:
    """Whether a function is constant from ``reach`` on to both sides."""
    beyond = np.linspace(reach, max(bound, 2 * reach), 65)
    values = [function(beyond), function(-beyond)]
    size = max(1e-30, float(np.abs(values).max()))
    return all(np.abs(v - v[0]).max() <= TOLERANCE * size for v in values)


def _curve(function: Function, reach: float, cells: int) -> Operand | None:
    """Return a curve of so many cells from ``-reach`` to ``reach``; None of one that is off."""
    width = 2 * reach / cells
    begins = -reach + width * np.arange(cells)
    # Through four places of each cell, its ends among them, so that cells meet.
    places = np.array([0, 1, 2, 3]) / 3
    values = function(begins[:, None] + width * places)
    if not np.isfinite(values).all():
        return None
    factors = values @ np.linalg.inv(np.vander(places, 4, increasing=True)).T
    point = _VALUE_BITS - _magnitude(np.abs(values).max())
    scaled = np.rint(np.ldexp(factors, point))
    if np.abs(scaled).max() >= 2**30:
        return None
    cell_bits = 20
    steps = cell_bits - round(math.log2(width))
    end = round(math.ldexp(reach, steps))
    if end > 1 << _FLOAT_BITS:
        return None
    made = Operand(
        CURVE, 2.0**-point, 1 << (_VALUE_BITS + 1), point=steps, low=-end, high=end - 1,
        cell_bits=cell_bits, table=scaled.astype(np.int32),
    )  # fmt: skip
    between = begins[:, None] + width * (np.arange(16) + 0.5) / 16
    off = curve_values(made, np.rint(np.ldexp(between, steps)).astype(np.int64)) * made.unit
    size = np.abs(values).max()
    return made if np.abs(off - function(between)).max() <= TOLERANCE * size else None


def reach_of(given: Sequence[int], product: Sequence[int]) -> tuple[bool, bool] | None:
    """Return whether each pixel and each channel of a product has its own number of an operand.

    Args:
        given, product: shapes (batch, ..., channels) of the operand and of the product.

    Returns:
        None where only some axes of pixels are shared, which kernels have not.
    """
    if len(given) != len(product) or len(given) < 2 or given[0] != product[0]:
        return None
    inside = list(given[1:-1])
    by_pixel = inside == list(product[1:-1])
    if not by_pixel and any(side != 1 for side in inside):
        return None
    return by_pixel, given[-1] == product[-1]


def whole_numbers(operand: Operand, given: np.ndarray) -> np.ndarray:
    """Return an operand's whole numbers, int64, as kernels compute them.

    Args:
        operand: what it is.
        given: codes uint8, or floats float32, of any shape.
    """
    if operand.kind == CODES:
        return given.astype(np.int64) - operand.zero_point
    if operand.kind == TABLE:
        assert operand.table is not None
        return operand.table.astype(np.int64)[given]
    scaled = np.rint(np.ldexp(given.astype(np.float64), operand.point))
    whole = np.clip(scaled, operand.low, operand.high).astype(np.int64)
    return whole if operand.kind == FLOATS else curve_values(operand, whole)


def product_codes(
    operands: Sequence[Operand], given: Sequence[np.ndarray], grid: Mapping[str, Any]
) -> np.ndarray:
    """Return the codes of a product, uint8, as kernels compute them.

    Args:
        operands: both.
        given: codes uint8, or floats float32, of shapes that broadcast.
        grid: of the product.
    """
    a, b = (whole_numbers(o, x) for o, x in zip(operands, given, strict=True))
    shift, multiplier = product_numbers(operands, grid)
    scaled = shortened(a * b, shift).astype(np.float32) * multiplier
    return to_codes(scaled, grid["zero_point"], 0, 2 ** grid["bits"] - 1)


def shortened(product: np.ndarray, shift: int) -> np.ndarray:
    """Return whole numbers without their last ``shift`` bits, halves rounded up."""
    return (product + (1 << shift >> 1)) >> shift


def curve_values(operand: Operand, whole: np.ndarray) -> np.ndarray:
    """Return what a curve gives for whole numbers of its floats, int64, as kernels compute it."""
    assert operand.table is not None
    at, bits = whole - operand.low, operand.cell_bits
    rest, row = at & ((1 << bits) - 1), operand.table.astype(np.int64)[at >> bits]
    y = row[..., 3]
    for power in (2, 1, 0):
        y = row[..., power] + ((rest * y) >> bits)
    return y
