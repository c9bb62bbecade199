import math

import numpy as np
import pytest

from devices.simulators.hardware import Hardware, built_in_hardware, read_hardware
from devices.simulators.roofline import estimate_genes, products_per_cycle
from search_spaces.spaces.hybrid import HybridSpace
from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.spaces.resnet import ResNetSpace
from search_spaces.spaces.vit import ViTSpace


def hardware(**changes) -> Hardware:
    return read_hardware("systolic-16x16").model_copy(update=changes)


def by_hand(plan, hw: Hardware) -> float:
    """One network in ms, layer by layer, from the formulas of the documentation."""
    total = 0.0
    for layer in plan.layers():
        passes = math.ceil(layer.weight_bits / 8) * math.ceil(layer.activation_bits / 8)
        pixels = layer.out_size**2
        inner = layer.in_channels // layer.groups * layer.kernel**2
        outer = layer.out_channels // layer.groups
        tiles = math.ceil(inner / hw.rows) * math.ceil(outer / hw.columns) * layer.groups
        compute = tiles * (pixels * passes + hw.rows + hw.columns - 2) / (hw.clock_mhz * 1e6)
        inputs = layer.input_count * layer.activation_bits / 8
        outputs = layer.out_channels * pixels * plan.stream_bits / 8
        beyond = layer.packed_bytes
        if inputs + outputs > hw.memory.activation_buffer_kib * 1024:
            again = math.ceil(layer.packed_bytes / (hw.memory.weight_buffer_kib * 1024))
            beyond += inputs * again + outputs
        transfer = beyond / (hw.memory.bandwidth_gb_s * 1e9)
        total += max(compute, transfer) + hw.layer_overhead_us * 1e-6
    return total * 1e3


def test_many_at_once_are_what_one_is_by_hand():
    space = MobileNetSpace.from_config(preset="96x96")
    genes = space.sample_genes(np.random.default_rng(0), 12)
    small = hardware()
    small = small.model_copy(
        update={"memory": small.memory.model_copy(update={"activation_buffer_kib": 16})}
    )
    found = estimate_genes(space, genes, small).latency_ms
    expected = [by_hand(space.plan(arch), small) for arch in space.decode(genes)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@pytest.mark.parametrize("make", [MobileNetSpace, ResNetSpace, ViTSpace, HybridSpace])
@pytest.mark.parametrize("name", built_in_hardware())
def test_every_space_on_every_hardware(make, name):
    space = make.from_config()
    genes = space.sample_genes(np.random.default_rng(1), 8)
    found = estimate_genes(space, genes, read_hardware(name))
    assert (found.latency_ms > 0).all() and (found.energy_mj > 0).all()
    np.testing.assert_allclose(sum(found.layers.values()), found.latency_ms)
    assert ((found.compute_share >= 0) & (found.compute_share <= 1)).all()


def at_bits(space: MobileNetSpace, weight: int, activation: int):
    values = dict(space.largest().items)
    for name in values:
        if ".w" in name:
            values[name] = weight
        elif ".a" in name:
            values[name] = activation
    return space.genes([space.arch(values)])


@pytest.mark.parametrize("name", built_in_hardware())
def test_fewer_bits_never_cost_more(name):
    space = MobileNetSpace.from_config(preset="32x32")
    hw = read_hardware(name)
    bits = [(2, 2), (2, 4), (4, 4), (4, 8), (8, 8)]
    found = [estimate_genes(space, at_bits(space, *pair), hw) for pair in bits]
    assert np.all(np.diff([f.latency_ms[0] for f in found]) >= 0)
    assert np.all(np.diff([f.energy_mj[0] for f in found]) > 0)


@pytest.mark.parametrize(
    ("kind", "weight", "activation", "gain"),
    [
        ("fixed", 2, 2, 1), ("fixed", 8, 16, 1 / 2), ("fusion", 2, 2, 16), ("fusion", 3, 4, 4),
        ("fusion", 8, 8, 1), ("serial_activations", 2, 4, 2), ("serial", 2, 4, 8),
        ("serial", 8, 8, 1),
    ],
)  # fmt: skip
def test_products_a_cycle(kind, weight, activation, gain):
    found = products_per_cycle(hardware(kind=kind), weight, activation)
    assert float(found) == pytest.approx(gain)


def test_a_batch_shares_the_weights():
    space = MobileNetSpace.from_config(preset="8x8")
    genes = space.sample_genes(np.random.default_rng(0), 5)
    one = estimate_genes(space, genes, hardware()).latency_ms
    eight = estimate_genes(space, genes, hardware(), batch=8).latency_ms
    assert (eight > one).all() and (eight < 8 * one).all()
