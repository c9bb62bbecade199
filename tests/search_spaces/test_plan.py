"""Costs of a layer and of a network, against sums done by hand."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.plan import BlockPlan, LayerPlan, NetworkPlan


def layer(**changes) -> LayerPlan:
    plain = LayerPlan("l", "expand", 8, 16, 1, 1, 1, 10, 10, 4, 8)
    return dataclasses.replace(plain, **changes)


def network(*layers: LayerPlan) -> NetworkPlan:
    return NetworkPlan("s", (3, 10, 10), 5, (BlockPlan("b", "stem", layers),))


def test_a_dense_convolution():
    one = layer(kernel=3)
    assert one.weight_count == 16 * 8 * 9
    assert one.macs == 16 * 8 * 9 * 100
    assert one.input_count == 8 * 100
    assert one.packed_bytes == 16 * 8 * 9 // 2 + 16 * (4 + 4)


def test_a_strided_depthwise_convolution():
    one = layer(role="depthwise", in_channels=16, kernel=5, stride=2, groups=16, out_size=5)
    assert one.weight_count == 16 * 25
    assert one.macs == 16 * 25 * 25
    assert one.input_count == 16 * 100


def test_float_layers_have_no_scales():
    assert layer(weight_bits=32).packed_bytes == 16 * 8 * 4 + 16 * 4


@given(st.sampled_from([2, 3, 4, 5, 6, 7, 8, 16]), st.integers(1, 9), st.integers(1, 9))
def test_packed_bits_round_up_to_a_byte(bits, inputs, outputs):
    one = layer(in_channels=inputs, out_channels=outputs, weight_bits=bits)
    packed = one.packed_bytes - 8 * outputs
    assert 0 <= packed * 8 - inputs * outputs * bits < 8


def test_a_network_sums_its_layers():
    a, b = layer(kernel=3), layer(in_channels=16, out_channels=4, weight_bits=2, activation_bits=3)
    net = network(a, b)
    assert list(net.layers()) == [a, b]
    assert net.macs == a.macs + b.macs
    assert net.bops == a.macs * 4 * 8 + b.macs * 2 * 3
    assert net.parameters == a.weight_count + 16 + b.weight_count + 4
    assert net.weights_kib == (a.packed_bytes + b.packed_bytes) / 1024
    assert net.weight_bits_mean == pytest.approx((1152 * 4 + 64 * 2) / 1216)
    assert net.activation_bits_mean == pytest.approx((800 * 8 + 1600 * 3) / 2400)


def test_the_stream_is_float_only_where_no_activation_is_quantised():
    real = layer(activation_bits=32)
    assert network(real, real).stream_bits == 32
    assert network(real, layer(activation_bits=2)).stream_bits == 8
