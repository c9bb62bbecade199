"""Convolutions: torch's own results, and gradients where torch's own are not to be had."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from supernet.convolution import Conv2d, convolve


@given(
    st.integers(1, 12), st.integers(1, 12), st.integers(1, 3), st.sampled_from([1, 2, 3]),
    st.integers(0, 1), st.integers(5, 9),
)  # fmt: skip
def test_it_is_torchs_convolution(inputs, outputs, stride, kernel, pad, side):
    torch.manual_seed(inputs + 13 * outputs)
    x, weight = torch.randn(2, inputs, side, side), torch.randn(outputs, inputs, kernel, kernel)
    found = convolve(x, weight, None, (stride, stride), (pad, pad), (1, 1), 1)
    torch.testing.assert_close(found, F.conv2d(x, weight, None, stride, pad))


@pytest.mark.parametrize("inputs", range(1, 9))
def test_few_inputs_with_a_stride_have_right_gradients(inputs):
    torch.manual_seed(0)
    for _ in range(5):
        layer = Conv2d(inputs, 8, 1, 2, bias=False).to(memory_format=torch.channels_last)
        x = torch.randn(4, inputs, 8, 8).to(memory_format=torch.channels_last)
        layer(x).square().sum().backward()
        places = x[:, :, ::2, ::2].double()
        weight = layer.weight.detach().double().flatten(1)
        out = torch.einsum("oi,bihw->bohw", weight, places)
        wanted = 2 * torch.einsum("bohw,bihw->oi", out, places)
        torch.testing.assert_close(
            layer.weight.grad.flatten(1).double(), wanted, rtol=1e-4, atol=1e-3
        )
