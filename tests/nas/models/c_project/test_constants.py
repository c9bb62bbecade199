"""Multipliers and sums in integers are the float32 numbers they stand for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.models.c_project.constants import fixed_sum, multiplier
from search_spaces.errors import InputError


@given(st.floats(2.0**-30, 2.0**20, width=32))
def test_a_multiplier_is_exact(value):
    mantissa, shift = multiplier(np.float32(value), "layer")
    assert mantissa * 2.0**-shift == value
    assert 0 < mantissa < 2**31 and shift <= 63


def test_a_multiplier_that_always_rounds_to_zero_is_zero():
    mantissa, shift = multiplier(np.float32(2.0**-60), "layer")
    assert (mantissa, shift >= 33) == (0, True)
    with pytest.raises(InputError, match=r"layer: a multiplier of -0\.5"):
        multiplier(np.float32(-0.5), "layer")
    with pytest.raises(InputError, match="layer: a multiplier of nan"):
        multiplier(np.float32(np.nan), "layer")


@settings(deadline=None)
@given(
    st.floats(2.0**-10, 8, width=32),
    st.floats(2.0**-10, 8, width=32),
    st.floats(-512, 512, width=32),
)
def test_a_fixed_point_sum_is_off_by_less_than_its_doubt(a, b, constant):
    ra, rb, k = np.float32(a), np.float32(b), np.float32(constant)
    fixed = fixed_sum(ra, rb, k)
    codes = np.arange(0, 256, 5)
    x, y = np.meshgrid(codes, codes)
    exact = x * np.float64(ra) + y * np.float64(rb) + np.float64(k)
    whole = x * fixed["fixed_a"] + y * fixed["fixed_b"] + fixed["fixed_constant"]
    assert np.abs(whole).max() + 2 ** (fixed["point"] - 1) < 2**31
    assert np.abs(whole - exact * 2.0 ** fixed["point"]).max() < fixed["doubt"]
    # float32 itself, where the result is a code.
    inner = (y * np.float64(rb) + np.float64(k)).astype(np.float32)
    v = (x * np.float64(ra) + inner.astype(np.float64)).astype(np.float32)
    near = np.abs(v) < 300
    apart = np.abs(whole - v.astype(np.float64) * 2.0 ** fixed["point"])
    assert (apart[near] < fixed["doubt"]).all()
