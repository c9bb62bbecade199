"""Planes with scales of their own, and signs with value vectors."""

from __future__ import annotations

import numpy as np
import pytest

from supernet.weight_only.planes import hierarchical_planes, signs_with_values
from supernet.weight_only.uniform import round_to_nearest


@pytest.mark.parametrize("planes", [2, 3, 4])
def test_free_scales_lose_less_than_doubled_ones(planes):
    weight = np.random.default_rng(planes).standard_t(4, (16, 256))
    free = np.square(hierarchical_planes(weight, planes, 128).dequantised() - weight).mean()
    uniform = round_to_nearest(weight, planes, 128, symmetric=False)
    assert free < np.square(uniform.dequantised() - weight).mean()


@pytest.mark.parametrize("planes", [2, 3])
def test_planes_of_larger_groups_lose_less_than_codes_of_as_many_stored_bits(planes):
    weight = np.random.default_rng(planes).logistic(0, 1, (16, 512))
    free = hierarchical_planes(weight, planes, 128)
    uniform = round_to_nearest(weight, planes, 64, symmetric=False)
    assert free.nbytes <= uniform.nbytes
    loss, other = (np.square(w.dequantised() - weight).mean() for w in (free, uniform))
    assert loss < other


def test_values_made_of_planes_come_back():
    rng = np.random.default_rng(0)
    bits = rng.integers(0, 2, (2, 8, 64))
    weight = -1.0 + 0.5 * bits[0] + 1.5 * bits[1]
    found = hierarchical_planes(weight, 2, 32)
    np.testing.assert_allclose(found.dequantised(), weight, atol=2e-3)


def test_signs_times_a_matrix_of_rank_one_come_back():
    rng = np.random.default_rng(1)
    size = rng.uniform(0.5, 2, (20, 1)) * rng.uniform(0.5, 2, (1, 33))
    weight = np.where(rng.random(size.shape) < 0.5, -size, size)
    found = signs_with_values(weight)
    np.testing.assert_allclose(found.dequantised(), weight, rtol=2e-3)
    assert found.fields.nbytes == 32 * 64 // 8  # one bit a weight, filled up to whole blocks
