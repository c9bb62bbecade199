"""A staircase gives the codes of its function, up to the float before each stair."""

from functools import partial

import numpy as np
import pytest

from devices.lowbit.floats import UNARY
from devices.lowbit.integers.steps import LARGEST, function_steps, ordered
from devices.lowbit.rounding import to_codes

GRIDS = (
    {"scale": 0.0131, "zero_point": 21, "bits": 8},
    {"scale": 0.3, "zero_point": 3, "bits": 4},
)


def codes_of(function, grid, x):
    values = function(x.astype(np.float64)).astype(np.float32)
    ratio = (values / np.float32(grid["scale"])).astype(np.float32)
    return to_codes(ratio, grid["zero_point"], 0, 2 ** grid["bits"] - 1)


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("name", sorted(UNARY))
def test_it_gives_the_codes_of_the_function(name, grid):
    function = partial(UNARY[name], {})
    steps = function_steps(function, grid)
    rng = np.random.default_rng(0)
    x = np.concatenate([rng.standard_normal(20000) * s for s in (0.1, 2, 40)]).astype(np.float32)
    np.testing.assert_array_equal(steps(x), codes_of(function, grid, x))
    # To the last bit: each stair begins at its place, and not before.
    assert (np.diff(steps.places) > 0).all()
    np.testing.assert_array_equal(codes_of(function, grid, steps.places), steps.codes[1:])
    before = np.nextafter(steps.places, np.float32(-np.inf))
    np.testing.assert_array_equal(codes_of(function, grid, before), steps.codes[:-1])


def test_a_jump_of_several_codes_is_one_stair():
    steps = function_steps(lambda x: np.where(x < 1.5, 0.0, 1.0), GRIDS[0])
    assert steps.places.tolist() == [1.5]
    assert steps.codes.tolist() == [21, 21 + round(1 / 0.0131)]


def test_a_constant_has_no_stair():
    steps = function_steps(np.zeros_like, GRIDS[0])
    assert steps.places.size == 0 and steps(np.float32([-3, 5])).tolist() == [21, 21]


def test_functions_that_waver_or_give_no_number_have_none():
    assert function_steps(lambda x: np.sin(20 * x), GRIDS[0]) is None
    assert function_steps(np.sqrt, GRIDS[0]) is None
    assert LARGEST < 2**16


def test_the_order_of_floats_is_that_of_their_numbers():
    x = np.sort(np.random.default_rng(1).standard_normal(1000).astype(np.float32))
    assert (np.diff(ordered(x)) >= 0).all()
    assert ordered(np.float32([0.0, -0.0])).tolist() == [0, 0]
