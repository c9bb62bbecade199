"""One elastic layer: slices share codes, kernels share centres."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from search_spaces.plan import LayerPlan
from supernet.batchnorm import BatchStatistics
from supernet.elastic import ElasticLayer, InputQuantizer, LayerRange

DENSE = LayerPlan("l", "project", 8, 12, 5, 1, 1, 6, 6, 4, 8, "none", "relu")
DEPTHWISE = LayerPlan("l", "depthwise", 12, 12, 5, 1, 12, 6, 6, 4, 8, "none", "relu")


def elastic(largest: LayerPlan, kernels=(3, 5), bits=(2, 4, 8)) -> ElasticLayer:
    extent = LayerRange(largest, kernels, bits, bits, ("relu", "stream"))
    layer = ElasticLayer(extent, stream_bits=8)
    with torch.no_grad():
        if layer.gamma is not None:
            layer.gamma.copy_(torch.randn_like(layer.gamma))
        layer.beta.normal_()
    return layer


def narrow(layer: LayerPlan, inputs: int, outputs: int) -> LayerPlan:
    if layer.groups > 1:
        return replace(layer, in_channels=outputs, out_channels=outputs, groups=outputs)
    return replace(layer, in_channels=inputs, out_channels=outputs)


def codes(layer: ElasticLayer, plan: LayerPlan) -> torch.Tensor:
    """Integer codes of a slice, counted in the direction of the batch norm's sign."""
    weight = layer.quantized_weight(plan)
    step = layer.weight_quantizer.step(plan.kernel, plan.weight_bits, plan.out_channels)
    sign = layer.code_sign(plan)
    if sign is not None:
        step = step * sign
    exact = weight / step.view(-1, 1, 1, 1)
    torch.testing.assert_close(exact, exact.round(), atol=1e-3, rtol=0)
    return exact.round().int()


@settings(max_examples=25)
@given(
    largest=st.sampled_from([DENSE, DEPTHWISE]),
    inputs=st.integers(1, 8),
    outputs=st.integers(1, 12),
    bits=st.sampled_from([2, 4, 8]),
    kernel=st.sampled_from([3, 5]),
    narrow_first=st.booleans(),
    seed=st.integers(0, 1000),
)
def test_codes_of_a_narrow_layer_are_a_prefix_of_the_wide_ones(
    largest, inputs, outputs, bits, kernel, narrow_first, seed
):
    torch.manual_seed(seed)
    layer = elastic(largest)
    wide = replace(largest, kernel=kernel, weight_bits=bits)
    thin = narrow(wide, inputs, outputs)
    # Whoever comes first initialises the steps; that must not matter.
    first, second = (thin, wide) if narrow_first else (wide, thin)
    found = {plan: codes(layer, plan) for plan in (first, second)}
    cut = found[wide][: thin.out_channels, : thin.in_channels // thin.groups]
    assert torch.equal(found[thin], cut)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    assert found[wide].min() >= low and found[wide].max() <= high


@pytest.mark.parametrize("largest", [DENSE, DEPTHWISE])
def test_codes_fit_once_the_batch_norm_is_folded(largest):
    torch.manual_seed(0)
    layer = elastic(largest)
    with torch.no_grad():
        layer.gamma[0], layer.gamma[1] = -0.5, 0.5
        layer.weight[0].fill_(100.0)  # saturates
        layer.weight[1].fill_(100.0)
    plan = replace(largest, weight_bits=2)
    layer.quantized_weight(replace(plan, kernel=5))
    with torch.no_grad():
        layer.weight_quantizer.log_step.zero_()
    weight = layer.quantized_weight(plan)
    # Folded, a channel is scaled by its gamma; the codes of both reach their own limits.
    assert (weight[0] == 2.0).all() and (weight[1] == 1.0).all()
    folded = weight * layer.gamma.view(-1, 1, 1, 1)
    step = layer.gamma.abs().view(-1, 1, 1, 1)
    assert (folded / step).min() >= -2 and (folded / step).max() <= 1


@pytest.mark.parametrize("largest", [DENSE, DEPTHWISE])
def test_a_smaller_kernel_starts_as_the_centre_of_the_larger(largest):
    largest = replace(largest, kernel=7)
    layer = elastic(largest, kernels=(3, 5, 7))
    for kernel in (3, 5, 7):
        trim = (7 - kernel) // 2
        centre = layer.weight[:, :, trim : 7 - trim, trim : 7 - trim]
        plan = replace(largest, kernel=kernel, weight_bits=32)
        assert torch.equal(layer.quantized_weight(plan), centre)


def test_a_learned_transform_is_applied_from_size_to_size():
    torch.manual_seed(0)
    largest = replace(DEPTHWISE, kernel=7, weight_bits=32)
    layer = elastic(largest, kernels=(3, 5, 7))
    with torch.no_grad():
        for matrix in layer.transforms.values():
            matrix.normal_()
    five = layer.weight[:, :, 1:6, 1:6].flatten(2) @ layer.transforms["5"]
    three = five.unflatten(2, (5, 5))[:, :, 1:4, 1:4].flatten(2) @ layer.transforms["3"]
    ours = layer.quantized_weight(replace(largest, kernel=3))
    torch.testing.assert_close(ours, three.unflatten(2, (3, 3)))
    ours.sum().backward()
    assert all(matrix.grad.abs().sum() > 0 for matrix in layer.transforms.values())


def test_a_float_layer_is_a_convolution_and_a_batch_norm():
    torch.manual_seed(0)
    layer = elastic(DENSE)
    plan = replace(narrow(DENSE, 3, 5), weight_bits=32, activation_bits=32, stride=2, kernel=5)
    x = torch.randn(4, 3, 6, 6)
    y = layer(x, plan, BatchStatistics())
    expected = F.conv2d(x.relu(), layer.weight[:5, :3], None, 2, 2)
    expected = F.batch_norm(expected, None, None, layer.gamma[:5], layer.beta[:5], True)
    torch.testing.assert_close(y, expected)


def test_a_linear_layer_takes_vectors():
    torch.manual_seed(0)
    largest = LayerPlan(
        "l", "classifier", 8, 5, 1, 1, 1, 1, 1, 32, 32, "none", "relu", "linear", False
    )
    layer = elastic(largest, kernels=(1,))
    x = torch.randn(4, 3)
    y = layer(x, replace(largest, in_channels=3), BatchStatistics())
    torch.testing.assert_close(y, x.relu() @ layer.weight[:, :3, 0, 0].T + layer.beta)
    assert layer.gamma is None and layer.code_sign(largest) is None


def test_a_convolution_without_batch_norm_has_a_bias():
    torch.manual_seed(0)
    largest = replace(DENSE, kernel=1, batch_norm=False, weight_bits=32, activation_bits=32)
    layer = elastic(largest, kernels=(1,))
    x = torch.randn(2, 8, 1, 1)
    y = layer(x, largest, BatchStatistics())
    torch.testing.assert_close(y, F.conv2d(x.relu(), layer.weight, layer.beta))


def test_a_quantised_layer_differs_from_its_float_twin():
    torch.manual_seed(0)
    layer = elastic(DENSE)
    x = torch.randn(2, 8, 6, 6)
    outputs = [
        layer(x, replace(DENSE, weight_bits=w, activation_bits=a), BatchStatistics())
        for w, a in ((32, 32), (8, 32), (2, 32), (32, 2))
    ]
    errors = [(y - outputs[0]).norm().item() for y in outputs]
    assert 0 < errors[1] < errors[2] and errors[1] < errors[3]


def test_steps_are_per_channel_for_depthwise_layers_only():
    assert elastic(DEPTHWISE).weight_quantizer.log_step.shape == (2, 3, 12)
    assert elastic(DENSE).weight_quantizer.log_step.shape == (2, 3, 1)


def test_no_direction_where_no_scale_is_negative():
    layer = elastic(DENSE)
    with torch.no_grad():
        layer.gamma.copy_(torch.tensor([0.0] * 6 + [1.0] * 5 + [-1.0]))
    assert layer.code_sign(narrow(DENSE, 8, 11)) is None
    assert layer.code_sign(DENSE).tolist() == [1.0] * 11 + [-1.0]


def test_a_stream_is_not_quantised_again_at_its_own_bits():
    stream = InputQuantizer("stream", (2, 8), stream_bits=8)
    x = torch.randn(2, 3)
    for bits in (8, 16, 32):
        assert stream.passes(bits) and stream(x, bits) is x
    assert not stream.passes(2) and not torch.equal(stream(x, 2), x)
    assert not InputQuantizer("none", (8,)).passes(8)


@pytest.mark.parametrize("source", ["relu", "hswish", "none"])
def test_float_inputs_are_activated_and_quantised_ones_lie_near(source):
    torch.manual_seed(0)
    quantizer = InputQuantizer(source, (8,))
    x = torch.rand(4, 50) * 4 - 2
    plain = quantizer(x, 32)
    expected = {"relu": F.relu, "hswish": F.hardswish, "none": lambda v: v}[source](x)
    assert torch.equal(plain, expected)
    step = (expected.max() - expected.min()) / 255
    if quantizer.before is not None:  # what goes into the activation is quantised as well
        step += (x.max() - x.min()) / 255
    assert quantizer.quantizer.signed == (source != "relu")
    if source != "relu":  # the step of a ReLU starts by LSQ's rule and clips
        assert (quantizer(x, 8) - plain).abs().max() <= step
