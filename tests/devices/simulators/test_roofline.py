import math

import numpy as np
import pytest

from devices.simulators.hardware import FormatUnit, Hardware, built_in_hardware, read_hardware
from devices.simulators.roofline import estimate_genes, estimate_layer, products_per_cycle
from search_spaces.errors import InputError
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


def test_one_layer_alone_is_what_it_is_in_its_network():
    space = MobileNetSpace.from_config(preset="28x28")
    genes = space.genes([space.largest()])
    hw = hardware()
    found = estimate_genes(space, genes, hw)
    for layer in space.plan(space.largest()).layers():
        ms, mj = estimate_layer(layer, hw, layer.weight_bits, layer.activation_bits)
        assert ms == pytest.approx(float(found.layers[layer.name][0]))
        assert mj > 0


def test_a_format_runs_on_its_units_or_as_whole_numbers_or_not_at_all():
    space = MobileNetSpace.from_config(preset="28x28")
    layer = list(space.plan(space.largest()).layers())[3]
    hw = hardware(formats={"nf4": FormatUnit(energy=3.0, products=0.5)}, kind="serial")
    slow = estimate_layer(layer, hw, "nf4", 8)
    assert slow[0] > estimate_layer(layer, hw, 4, 8)[0]
    # Shift weights of 3 bits are whole numbers of 5: -8 to 8.
    traffic = hw.memory.model_copy(update={"resident_weights": True})
    still = hw.model_copy(update={"memory": traffic})
    assert estimate_layer(layer, still, "shift3", 8)[0] == estimate_layer(layer, still, 5, 8)[0]
    with pytest.raises(InputError, match=r"no units for fp8_e4m3 .*it has: nf4"):
        estimate_layer(layer, hw, "fp8_e4m3", 8)


def test_a_description_names_only_formats_that_there_are():
    text = hardware().model_dump()
    with pytest.raises(ValueError, match="unknown number format 'fp5'"):
        Hardware.model_validate({**text, "formats": {"fp5": {}}})
