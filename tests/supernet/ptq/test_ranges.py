"""Ranges of weights and activations."""

from __future__ import annotations

import pytest
import torch

from search_spaces.errors import InputError
from supernet.ptq.ranges import RangeObserver, quantize_weight, weight_steps
from supernet.quantizers.lsq import ActivationQuantizer


def test_values_of_every_column_count():
    # The only large values lie in one column, as in images with blank borders.
    x = torch.zeros(64, 8, 8, 8)
    x[..., 4] = torch.rand(64, 8, 8)
    observer = RangeObserver("mse", sample=4096)
    observer.see(x)
    grid = observer.grid(8)
    assert (grid(x) - x).abs().max() < 0.02


@pytest.mark.parametrize("bits", [2, 3, 4, 8])
def test_least_error_is_no_worse_than_the_whole_range(bits):
    x = torch.randn(8, 500, generator=torch.Generator().manual_seed(0))
    errors = {}
    for method in ("max", "mse"):
        observer = RangeObserver(method)
        observer.see(x)
        errors[method] = (observer.grid(bits)(x) - x).square().mean()
    assert errors["mse"] <= errors["max"]
    weight = {
        method: (quantize_weight(x, weight_steps(x, bits, method=method), bits) - x).square().sum()
        for method in ("max", "mse")
    }
    assert weight["mse"] <= weight["max"]


def test_zero_is_a_value_of_every_grid():
    observer = RangeObserver()
    observer.see(torch.rand(100) + 5)
    for bits in (2, 8):
        assert observer.grid(bits)(torch.zeros(1)).item() == 0
        assert observer.grid(bits).zero_point == 0


def test_unknown_methods_are_refused():
    with pytest.raises(InputError, match="'median' is none of max, mse"):
        RangeObserver("median")


def test_what_a_max_pool_is_padded_with_is_no_part_of_the_range():
    observer = RangeObserver()
    values = torch.linspace(-1, 2, 100)
    observer.see(torch.cat([torch.full((5,), -torch.inf), values]))
    grid = observer.grid(8)
    assert torch.isfinite(grid(values)).all() and grid(torch.tensor(-torch.inf)) >= -1.1
    quantizer = ActivationQuantizer((8,), signed=True)
    found = quantizer(torch.cat([values, torch.tensor([-torch.inf])])[None], 8)
    assert torch.isfinite(found).all() and found[0, -1] == found.min()
