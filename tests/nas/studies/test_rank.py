"""Rank correlation agrees with SciPy and pools pairs inside groups."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from nas.studies.rank import kendall

values = st.lists(st.integers(0, 6), min_size=4, max_size=15)


@given(values, st.integers(0, 100))
def test_tau_is_scipys(x, seed):
    y = np.random.default_rng(seed).integers(0, 6, len(x))
    ours = kendall(x, y, resamples=5).tau
    theirs = kendalltau(x, y).statistic
    assert (math.isnan(ours) and math.isnan(theirs)) or ours == pytest.approx(theirs)


def test_groups_leave_out_pairs_between_them():
    x, y = [1, 2, 11, 12], [4, 3, 20, 19]
    assert kendall(x, y).tau > 0
    inside = kendall(x, y, groups=[0, 0, 1, 1])
    assert inside.tau == -1 and inside.pairs == 2


def test_the_interval_holds_the_estimate_and_narrows_with_items():
    rng = np.random.default_rng(0)

    def width(n):
        x = rng.normal(size=n)
        found = kendall(x, x + rng.normal(size=n), resamples=300)
        assert found.low <= found.tau <= found.high
        return found.high - found.low

    assert width(200) < width(15)


def test_an_undefined_tau_is_none_in_json():
    assert kendall([1, 1, 1], [1, 2, 3], resamples=3).as_dict()["tau"] is None
