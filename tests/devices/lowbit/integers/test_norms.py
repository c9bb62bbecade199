"""Norms with sums in whole numbers are PyTorch's."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from devices.lowbit.integers.norms import norm_numbers, normalised


@pytest.mark.parametrize("groups", [1, 3, 6])
@pytest.mark.parametrize("sides", [(1, 1), (3, 5), (40, 33)])
def test_it_is_what_pytorch_computes(groups, sides):
    rng = np.random.default_rng(0)
    x = (rng.standard_normal((2, 6, *sides)) * 2 + 1).astype(np.float32)
    gain, bias = (rng.standard_normal(6).astype(np.float32) for _ in range(2))
    norm = norm_numbers(30.0, groups, 1e-5, gain, bias, sides[0] * sides[1])
    found = normalised(norm, x)
    exact = F.group_norm(
        torch.from_numpy(x).double(), groups, torch.from_numpy(gain).double(),
        torch.from_numpy(bias).double(), 1e-5,
    ).numpy()  # fmt: skip
    np.testing.assert_allclose(found, exact, atol=3e-6, rtol=1e-5)


def test_negative_floats_count_as_nothing_where_a_relu_comes_before():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 4, 5, 5)).astype(np.float32)
    ones, zeros = np.ones(4, np.float32), np.zeros(4, np.float32)
    norms = [norm_numbers(6.0, 2, 1e-5, ones, zeros, 25, positive=p) for p in (True, False)]
    np.testing.assert_array_equal(normalised(norms[0], x), normalised(norms[1], np.maximum(x, 0)))


def test_a_map_of_one_value_is_its_bias():
    bias = np.float32([0.5, -2])
    norm = norm_numbers(8.0, 2, 1e-5, np.ones(2, np.float32), bias, 9)
    found = normalised(norm, np.full((1, 2, 3, 3), 3.25, np.float32))
    np.testing.assert_array_equal(found, np.broadcast_to(bias.reshape(1, 2, 1, 1), found.shape))
