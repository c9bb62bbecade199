"""Fake quantisers against a plain autograd reading of the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.quantizers.lsq import (
    ActivationQuantizer,
    WeightQuantizer,
    activation_range,
    quantize_dequantize,
    weight_range,
)

seeds = st.integers(0, 2**31)
bit_widths = st.sampled_from([2, 3, 4, 5, 8])


def round_straight_through(x: Tensor) -> Tensor:
    return x + (x.round() - x).detach()


def scale_gradient(x: Tensor, scale: float) -> Tensor:
    return x * scale + (x - x * scale).detach()


def reference_activation(x, log_step, offset, bits: int) -> Tensor:
    """LSQ+ (Bhalgat et al., 2020, equations 4 to 7) with autograd doing the derivatives."""
    low, high = activation_range(bits)
    scale = 1 / math.sqrt(x[0].numel() * high)
    step = scale_gradient(log_step, scale).exp()
    zero = torch.zeros(())
    if offset is not None:
        zero = round_straight_through(scale_gradient(offset, scale) * high)
    codes = (x / step + zero).clamp(low, high)
    # Round before the zero point is added; both are whole then.
    return (round_straight_through(codes - zero)) * step


def reference_weight(w, log_step, sign, bits: int, count: int) -> Tensor:
    """LSQ (Esser et al., 2020, equations 1 to 3)."""
    low, high = weight_range(bits)
    step = scale_gradient(log_step, 1 / math.sqrt(count * high)).exp() * sign
    step = step.view(-1, *[1] * (w.dim() - 1))
    return round_straight_through((w / step).clamp(low, high)) * step


def activation_quantizer(bits: int, step: float, offset: float | None) -> ActivationQuantizer:
    quantizer = ActivationQuantizer([bits], signed=offset is not None).double()
    with torch.no_grad():
        quantizer.log_step.fill_(math.log(step))
        if offset is not None:
            quantizer.offset.fill_(offset)
    quantizer.initialized.fill_(True)
    return quantizer


LAYOUTS = {
    "contiguous": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "part of a larger map": lambda x: F.pad(x, (1, 1, 2, 0))[:, :, 2:, 1:-1],
    "every second place": lambda x: x.repeat_interleave(2, 3)[..., ::2],
    "of a mean over places": lambda x: x.mean((2, 3), keepdim=True).expand(x.shape),
}
"""Name -> the same numbers otherwise in memory, or, of a mean, other numbers."""


@settings(max_examples=100)
@given(
    bits=bit_widths,
    step=st.floats(0.01, 1.0),
    offset=st.one_of(st.none(), st.floats(0.05, 0.95)),
    seed=seeds,
    layout=st.sampled_from(sorted(LAYOUTS)),
    upstream_layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_activations_and_their_gradients_are_those_of_the_papers(
    bits, step, offset, seed, layout, upstream_layout
):
    torch.manual_seed(seed)
    x = LAYOUTS[layout](torch.randn(3, 4, 5, 5, dtype=torch.float64))
    upstream = LAYOUTS[upstream_layout](torch.randn_like(x))
    quantizer = activation_quantizer(bits, step, offset)
    ours = x.clone().requires_grad_()
    y = quantizer(ours, bits)
    y.backward(upstream)

    theirs = x.clone().requires_grad_()
    log_step = quantizer.log_step.detach()[0].clone().requires_grad_()
    zero = None if offset is None else quantizer.offset.detach()[0].clone().requires_grad_()
    expected = reference_activation(theirs, log_step, zero, bits)
    expected.backward(upstream)

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(quantizer.log_step.grad[0], log_step.grad)
    if zero is not None:
        torch.testing.assert_close(quantizer.offset.grad[0], zero.grad)


@settings(max_examples=60)
@given(bits=bit_widths, per_channel=st.booleans(), signs=st.booleans(), seed=seeds)
def test_weights_and_their_gradients_are_those_of_the_paper(bits, per_channel, signs, seed):
    torch.manual_seed(seed)
    w = torch.randn(4, 3, 3, 3, dtype=torch.float64)
    upstream = torch.randn_like(w)
    quantizer = WeightQuantizer([bits], [3], channels=4 if per_channel else None, count=108)
    quantizer.double()
    with torch.no_grad():
        quantizer.log_step.uniform_(-4, 0)
    quantizer.initialized.fill_(True)
    sign = torch.tensor([1.0, -1.0, -1.0, 1.0]).double() if signs else None
    ours = w.clone().requires_grad_()
    y = quantizer(ours, bits, sign=sign)
    y.backward(upstream)

    theirs = w.clone().requires_grad_()
    log_step = quantizer.log_step.detach()[0, 0].clone().requires_grad_()
    expected = reference_weight(
        theirs, log_step, torch.ones(1) if sign is None else sign, bits, 108
    )
    expected.backward(upstream)

    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(ours.grad, theirs.grad)
    torch.testing.assert_close(quantizer.log_step.grad[0, 0], log_step.grad)


def test_the_gradient_of_the_log_step_is_the_step_times_that_of_the_step():
    # By finite differences where it is one: clipped elements, which are linear in the step.
    x = torch.full((1, 6), 100.0, dtype=torch.float64)
    quantizer = activation_quantizer(4, 0.3, None)
    quantizer(x, 4).sum().backward()
    total = 15 * 0.3 * 6
    assert quantizer.log_step.grad.item() == pytest.approx(total / math.sqrt(6 * 15))


@given(bits=bit_widths, offset=st.one_of(st.none(), st.floats(-0.5, 1.5)), seed=seeds)
def test_codes_of_activations_lie_in_their_range(bits, offset, seed):
    torch.manual_seed(seed)
    quantizer = activation_quantizer(bits, 0.07, offset).float()
    x = 5 * torch.randn(2, 50)
    y = quantizer(x, bits)
    step, zero = quantizer.constants(bits)
    codes = y / step + zero
    low, high = activation_range(bits)
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
    assert low <= zero <= high
    assert low <= int(codes.round().min()) and int(codes.round().max()) <= high
    assert (quantizer(y, bits) - y).abs().max() <= 1e-6, "quantising twice is quantising once"
    assert quantize_dequantize(torch.zeros(1), step, zero, low, high).item() == 0.0


@given(bits=bit_widths, seed=seeds)
def test_codes_of_weights_lie_in_their_range(bits, seed):
    torch.manual_seed(seed)
    quantizer = WeightQuantizer([bits], [1], channels=None, count=60)
    w = torch.randn(6, 10, 1, 1)
    sign = torch.tensor([1.0, -1, 1, -1, 1, -1])
    y = quantizer(w, bits, sign=sign)
    codes = (y / (quantizer.step(1, bits, 6) * sign.view(-1, 1, 1, 1))).round()
    low, high = weight_range(bits)
    assert codes.min() >= low and codes.max() <= high
    plain = quantizer(w, bits)
    torch.testing.assert_close(plain[::2], y[::2])


def test_a_negative_sign_lets_codes_count_down():
    quantizer = WeightQuantizer([2], [1], channels=None, count=4)
    quantizer.initialized.fill_(True)  # step 1
    w = torch.tensor([2.0, -2.0]).view(2, 1, 1, 1)
    assert quantizer(w, 2).flatten().tolist() == [1.0, -2.0]
    assert quantizer(w, 2, sign=-torch.ones(2)).flatten().tolist() == [2.0, -1.0]


def test_unsigned_quantisers_are_a_relu():
    quantizer = activation_quantizer(3, 0.25, None)
    x = torch.tensor([[-1.0, -0.1, 0.0, 0.3, 9.0]], dtype=torch.float64)
    assert quantizer(x, 3).tolist() == [[0.0, 0.0, 0.0, 0.25, 1.75]]


def test_rounding_is_half_to_even_before_the_zero_point():
    x = torch.tensor([0.5, 1.5, 2.5, -0.5])
    assert quantize_dequantize(x, 1.0, 3, 0, 15).tolist() == [0.0, 2.0, 2.0, 0.0]


@pytest.mark.parametrize("signed", [True, False])
def test_float_passes_unchanged_and_initialises_nothing(signed):
    quantizer = ActivationQuantizer([4, 32], signed=signed)
    x = torch.randn(2, 3)
    assert quantizer(x, 32) is x and not quantizer.initialized.any()
    weights = WeightQuantizer([4, 32], [1], channels=None, count=6)
    w = torch.randn(2, 3, 1, 1)
    assert weights(w, 32) is w and not weights.initialized.any()
    assert quantizer.bits == weights.bits == (4,)


def test_unknown_bits_and_kernels_are_refused():
    quantizer = ActivationQuantizer([4], signed=True)
    with pytest.raises(InputError, match=r"for 3 bits \(trained: \(4,\)\)"):
        quantizer(torch.randn(1, 2), 3)
    weights = WeightQuantizer([4], [3], channels=None, count=9)
    with pytest.raises(InputError, match="2 bits and kernel 3"):
        weights(torch.randn(1, 1, 3, 3), 2)
    with pytest.raises(InputError, match="4 bits and kernel 5"):
        weights(torch.randn(1, 1, 5, 5), 4)


@given(bits=bit_widths, seed=seeds, shift=st.floats(-3, 3))
def test_the_first_batch_sets_step_and_offset_to_its_range(bits, seed, shift):
    torch.manual_seed(seed)
    x = torch.randn(8, 32) + shift
    quantizer = ActivationQuantizer([bits], signed=True)
    y = quantizer(x, bits)
    step, zero = quantizer.constants(bits)
    high = activation_range(bits)[1]
    low_end, high_end = -zero * step, (high - zero) * step
    inside = (x >= low_end) & (x <= high_end)
    assert inside.float().mean() > 0.9 or bits == 2
    assert (x - y)[inside].abs().max() <= step / 2 + 1e-5


def test_only_the_first_batch_initialises_and_only_its_bits():
    quantizer = ActivationQuantizer([2, 4], signed=False)
    quantizer(torch.rand(4, 8), 4)
    assert quantizer.initialized.tolist() == [False, True]
    before = quantizer.log_step.clone()
    quantizer(100 * torch.rand(4, 8), 4)
    assert torch.equal(quantizer.log_step, before)


@pytest.mark.parametrize("kind", ["activation", "weight"])
def test_a_loaded_quantiser_never_starts_anew(kind):
    def make():
        if kind == "activation":
            return ActivationQuantizer([2, 4], signed=True)
        return WeightQuantizer([2, 4], [1, 3], channels=3, count=81)

    def run(quantizer, factor):
        shape = (3, 3, 3, 3)
        return quantizer(factor * torch.randn(shape, generator=torch.manual_seed(0)), 4)

    first = make()
    run(first, 1.0)
    second = make()
    second.load_state_dict(first.state_dict())
    assert torch.equal(second.initialized, first.initialized) and first.initialized.sum() == 1
    saved = {k: v.clone() for k, v in second.state_dict().items()}
    assert torch.equal(run(second, 50.0), run(first, 50.0))
    for name, value in second.state_dict().items():
        assert torch.equal(value, saved[name]), name


def test_constant_and_empty_ranges_give_finite_steps():
    for signed in (True, False):
        quantizer = ActivationQuantizer([4], signed=signed)
        y = quantizer(torch.zeros(2, 3), 4)
        assert torch.equal(y, torch.zeros(2, 3)) and math.isfinite(quantizer.constants(4)[0])
    weights = WeightQuantizer([4], [1], channels=2, count=2)
    assert torch.equal(weights(torch.zeros(2, 1, 1, 1), 4), torch.zeros(2, 1, 1, 1))


def test_steps_of_a_narrow_slice_come_from_the_widest_weights():
    full = torch.randn(4, 4, 3, 3)
    narrow, wide = (WeightQuantizer([4], [3], channels=4, count=144) for _ in range(2))
    cut = narrow(full[:2, :2], 4, full=full)
    whole = wide(full, 4)
    assert torch.equal(narrow.log_step, wide.log_step)
    assert torch.equal(cut, whole[:2, :2])
