"""Whole numbers stand for what operands are worth, and products of them for products."""

from functools import partial

import numpy as np
import pytest

from devices.lowbit.floats import UNARY
from devices.lowbit.integers.gates import (
    CODES,
    CURVE,
    FLOATS,
    TABLE,
    TOLERANCE,
    of_codes,
    of_floats,
    product_codes,
    reach_of,
    whole_numbers,
)

GRID = {"scale": 0.02, "zero_point": 7, "bits": 8}
SIGMOID = partial(UNARY["Sigmoid"], {})


@pytest.mark.parametrize("name", ["Sigmoid", "Tanh", "HardSigmoid", "Swish", "Mish", "Softplus"])
@pytest.mark.parametrize("bound", [0.7, 9.0, 60.0])
def test_a_curve_is_near_its_function(name, bound):
    function = partial(UNARY[name], {})
    operand = of_floats(bound, function)
    assert operand.kind == CURVE
    x = np.linspace(-bound, bound, 5001).astype(np.float32)
    found = whole_numbers(operand, x) * operand.unit
    exact = function(x.astype(np.float64))
    # Beyond it, half a unit of the floats times the slope.
    off = 2 * TOLERANCE * max(1, np.abs(exact).max()) + 2.0**-operand.point
    assert np.abs(found - exact).max() <= off
    assert np.abs(whole_numbers(operand, x)).max() <= operand.largest


def test_a_function_that_no_table_holds_is_none():
    assert of_floats(9.0, lambda x: np.sin(40 * x)) is None
    assert of_floats(9.0, np.sqrt) is None
    assert of_codes(GRID, np.log) is None


def test_codes_and_floats_are_themselves():
    codes = np.arange(256, dtype=np.uint8)
    plain, table = of_codes(GRID, None), of_codes(GRID, SIGMOID)
    assert (plain.kind, table.kind) == (CODES, TABLE)
    values = (codes.astype(int) - 7) * 0.02
    np.testing.assert_allclose(whole_numbers(plain, codes) * plain.unit, values, atol=1e-7)
    np.testing.assert_allclose(whole_numbers(table, codes) * table.unit, SIGMOID(values), atol=1e-7)
    floats, positive = of_floats(5.0, None), of_floats(5.0, None, positive=True)
    assert floats.kind == FLOATS
    x = np.float32([-5, -0.3, 0, 1e-3, 4.99])
    np.testing.assert_allclose(whole_numbers(floats, x) * floats.unit, x, atol=1e-7)
    np.testing.assert_allclose(
        whole_numbers(positive, x) * positive.unit, np.maximum(x, 0), atol=1e-7
    )


def test_a_product_of_operands_is_the_product_of_their_values():
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 256, (2, 6, 5, 4)).astype(np.uint8)
    x = (rng.standard_normal((2, 6, 1, 1)) * 3).astype(np.float32)
    operands = of_codes(GRID, None), of_floats(20.0, SIGMOID)
    grid = {"scale": 0.021, "zero_point": 30, "bits": 7}
    found = product_codes(operands, (codes, x), grid)
    exact = (codes.astype(int) - 7) * 0.02 * SIGMOID(x.astype(np.float64)) / 0.021 + 30
    assert np.abs(np.clip(exact, 0, 127) - found).max() <= 0.5001
    assert len(np.unique(found)) > 50


@pytest.mark.parametrize(
    ("given", "reach"),
    [
        ((2, 4, 5, 6), (True, True)),
        ((2, 1, 1, 6), (False, True)),
        ((2, 4, 5, 1), (True, False)),
        ((2, 1, 1, 1), (False, False)),
        ((2, 4, 1, 6), None),
        ((1, 4, 5, 6), None),
        ((2, 6), None),
    ],
)
def test_what_pixels_and_channels_share_is_told_from_shapes(given, reach):
    assert reach_of(given, (2, 4, 5, 6)) == reach
