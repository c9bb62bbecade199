"""Uniform codes: what each method promises about its error."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces.errors import InputError
from supernet.weight_only.uniform import gptq, round_to_nearest, scaled_by_activations


def layer(seed: int = 0):
    """Weights, and inputs of which a few channels are large and many depend on each other."""
    rng = np.random.default_rng(seed)
    weight = rng.normal(0, 1, (24, 128))
    inputs = rng.normal(0, 1, (400, 32)) @ rng.normal(0, 1, (32, 128))
    inputs[:, ::16] *= 10
    return weight, inputs + 0.1 * rng.normal(0, 1, inputs.shape)


def output_error(weight, inputs, quantised):
    exact = inputs @ weight.T
    return np.square(inputs @ quantised.dequantised().T - exact).mean() / np.square(exact).mean()


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
@pytest.mark.parametrize("symmetric", [True, False])
def test_each_weight_gets_its_nearest_value(bits, symmetric):
    weight, _ = layer()
    packed = round_to_nearest(weight, bits, 32, symmetric=symmetric)
    scales = packed.by_output(packed.scales)[..., 0].astype(np.float64)
    start = -packed.zero * scales
    if packed.mins is not None:
        start = packed.by_output(packed.mins[:, :, None])[..., 0].astype(np.float64)
    values = start[..., None] + scales[..., None] * np.arange(2**bits)  # (outputs, groups, codes)
    distance = np.abs(weight.reshape(24, 4, 32, 1) - values[:, :, None]).min(-1)
    got = np.abs(packed.dequantised() - weight).reshape(24, 4, 32)
    np.testing.assert_allclose(got, distance, atol=1e-5)


def test_more_bits_and_smaller_groups_lose_less():
    weight, _ = layer()
    error = {
        key: np.square(round_to_nearest(weight, *key).dequantised() - weight).mean()
        for key in [(1, 32), (2, 32), (3, 32), (4, 32), (4, 0)]
    }
    assert error[1, 32] > error[2, 32] > error[3, 32] > error[4, 32]
    assert error[4, 0] > error[4, 32]


@pytest.mark.parametrize("symmetric", [True, False])
@pytest.mark.parametrize("size", [0.0, 1e-12, 1e-7])
def test_filters_that_died_in_training_are_next_to_zero(symmetric, size):
    weight = np.random.default_rng(0).normal(0, 1, (4, 64))
    weight[1] *= size
    found = round_to_nearest(weight, 2, 32, symmetric=symmetric).dequantised()
    assert np.abs(found[1]).max() <= max(4 * size, 2e-7)
    kept = [0, 2, 3]
    assert np.square(found[kept] - weight[kept]).mean() < 0.2


def test_weights_beyond_what_a_scale_holds_are_told():
    with pytest.raises(InputError, match=r"do not fit scales of 16 bits.*scale the layer down"):
        round_to_nearest(np.full((2, 32), 1e6), 4, 32)


def test_ternary_codes_are_three():
    weight, _ = layer()
    packed = round_to_nearest(weight, 2, 64, ternary=True)
    assert set(np.unique(packed.codes())) == {1, 2, 3}
    assert packed.zero == 2


@pytest.mark.parametrize("bits", [2, 4])
def test_gptq_and_scaling_keep_outputs_nearer(bits):
    weight, inputs = layer()
    nearest = output_error(weight, inputs, round_to_nearest(weight, bits, 32))
    assert output_error(weight, inputs, gptq(weight, inputs, bits, 32)) < 0.7 * nearest
    scaled = scaled_by_activations(
        weight, inputs, lambda w, f: round_to_nearest(w, bits, 32, factor=f)
    )
    assert output_error(weight, inputs, scaled) < nearest
    assert scaled.factor is not None


def test_inputs_of_another_layer_are_refused():
    weight, inputs = layer()
    with pytest.raises(InputError, match=r"shape \(400, 64\), not \(samples, 128\)"):
        gptq(weight, inputs[:, :64], 4, 32)
