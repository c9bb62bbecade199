"""The mobilenet space: what its choices do to the layers, and what it refuses."""

from __future__ import annotations

from dataclasses import fields

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan
from search_spaces.spaces.mobilenet import (
    PRESETS,
    MobileNetParameters,
    MobileNetSpace,
    Stage,
    round_channels,
)

TINY = {
    "preset": "8x8",
    "stages": [{"channels": 16, "stride": 1, "depths": [1, 2]}],
    "kernels": [3, 5],
    "widths": [1.0],
    "weight_bits": [2, 8],
    "activation_bits": [4, 8],
}


def tiny(**changes) -> MobileNetSpace:
    return MobileNetSpace.from_config(**{**TINY, **changes})


def by_name(plan: NetworkPlan) -> dict:
    return {layer.name: layer for layer in plan.layers()}


def change(space, arch, **values):
    """Return ``arch`` with choices replaced; double underscores stand for dots."""
    names = {name.replace("__", "."): value for name, value in values.items()}
    return space.arch({**dict(arch.items), **names})


@pytest.mark.parametrize("preset", ["28x28", "32x32", "96x96", "224x224-ofa"])
def test_presets_hold_at_least_a_million_million_architectures(preset):
    assert MobileNetSpace.from_config(preset=preset).cardinality() >= 10**12


def test_the_digits_preset_is_smaller_than_the_others():
    full = ["8x8", "28x28", "32x32", "96x96", "224x224-ofa"]
    assert set(full) <= set(PRESETS)
    sizes = [MobileNetSpace.from_config(preset=preset).cardinality() for preset in full]
    assert sizes == sorted(sizes) and sizes[0] > 10**6


@pytest.mark.parametrize("preset", ["8x8", "28x28", "32x32"])
def test_lean_presets_take_the_same_images_and_hold_fewer_architectures(preset):
    lean, full = (MobileNetSpace.from_config(preset=name) for name in (f"{preset}-lean", preset))
    assert lean.plan(lean.largest()).input_shape == full.plan(full.largest()).input_shape
    assert 10**6 < lean.cardinality() < full.cardinality()
    bits = {layer.activation_bits for layer in lean.plan(lean.smallest()).layers()}
    assert bits == {8}


@pytest.mark.parametrize("preset", ["28x28-slim", "32x32-slim"])
def test_slim_presets_widen_every_block_and_reach_from_four_to_two_hundred_kib(preset):
    space = MobileNetSpace.from_config(
        preset=preset, weight_bits=(4, 8), input_channels=1, outputs=10
    )
    smallest, largest = (space.plan(arch) for arch in (space.smallest(), space.largest()))
    assert smallest.weights_kib < 4 and largest.weights_kib > 150
    for block in space.plan(space.smallest()).blocks[1:-1]:
        expand, project = block.layers
        assert expand.out_channels >= 2 * expand.in_channels
        assert project.in_channels == expand.out_channels


def test_the_cardinality_of_a_small_space_is_worked_out_by_hand():
    space = tiny(kernels=[3], expands=[2, 3])
    # A block: 2 ratios and 2 x 2 bits for each of three convolutions; one or two blocks.
    block = 2 * 4**3
    assert space.cardinality() == block + block**2


def test_an_expansion_of_one_has_no_expansion_layer_and_no_bits_for_it():
    space = tiny(kernels=[3], expands=[1, 2])
    block = 4**2 + 4**3
    assert space.cardinality() == block + block**2
    wide = change(space, space.smallest(), s1__b1__expand=2, **{
        "s1.b1.w.expand": 2, "s1.b1.a.expand": 4})  # fmt: skip
    flat = change(space, wide, s1__b1__expand=1)
    assert "s1.b1.w.expand" in wide and "s1.b1.w.expand" not in flat
    layers = by_name(space.plan(flat))
    assert "s1.b1.expand" not in layers
    assert layers["s1.b1.depthwise"].source == "stream"
    assert layers["s1.b1.depthwise"].groups == layers["stem"].out_channels
    layers = by_name(space.plan(wide))
    assert layers["s1.b1.expand"].source == "stream"
    assert layers["s1.b1.depthwise"].source == "relu"
    assert layers["s1.b1.depthwise"].groups == 2 * layers["stem"].out_channels


def test_only_an_expansion_of_one_leaves_no_bits_of_expansion_layers():
    space = tiny(expands=[1])
    assert not [c.name for c in space.choices if c.name.endswith(".expand") and ".w." in c.name]
    assert by_name(space.plan(space.largest()))["s1.b1.depthwise"].source == "stream"


def test_a_costs_row_does_not_depend_on_its_neighbours():
    # Whether the expansion column exists is decided over all rows together.
    space = tiny(expands=[1, 2])
    genes = space.sample_genes(np.random.default_rng(0), 20)
    together = space.costs(genes)
    for i, row in enumerate(genes):
        for name, values in space.costs(row[None]).items():
            assert values[0] == together[name][i]


def test_bits_of_a_block_are_shared_with_block_granularity():
    space = tiny(granularity="block", kernels=[3], expands=[2])
    assert space.cardinality() == 4 + 4**2
    arch = change(space, space.largest(), s1__b1__w=2, s1__b1__a=4)
    first = [layer for name, layer in by_name(space.plan(arch)).items() if "s1.b1" in name]
    assert len(first) == 3
    assert {(layer.weight_bits, layer.activation_bits) for layer in first} == {(2, 4)}


def test_bits_of_a_layer_are_its_own_with_layer_granularity():
    space = tiny(expands=[2])
    arch = change(space, space.largest(), **{"s1.b1.w.project": 2, "s1.b1.a.depthwise": 4})
    layers = by_name(space.plan(arch))
    bits = {name: (layer.weight_bits, layer.activation_bits) for name, layer in layers.items()}
    assert bits["s1.b1.expand"] == (8, 8)
    assert bits["s1.b1.depthwise"] == (8, 4)
    assert bits["s1.b1.project"] == (2, 8)
    assert bits["stem"] == bits["head.conv"] == bits["head.classifier"] == (8, 8)


@pytest.mark.parametrize(
    ("weights", "activations", "edge"),
    [([32], [32], (32, 32)), ([32], [4, 8], (32, 6)), ([4, 8], [32], (6, 32)),
     ([4, 32], [8, 32], (6, 6))],
)  # fmt: skip
def test_edges_are_float_only_where_the_space_has_no_other_bits(weights, activations, edge):
    space = tiny(weight_bits=weights, activation_bits=activations, edge_bits=6)
    layers = by_name(space.plan(space.largest()))
    for name in ("stem", "head.conv", "head.classifier"):
        assert (layers[name].weight_bits, layers[name].activation_bits) == edge


def test_width_resolution_kernel_and_depth_reach_the_layers():
    space = MobileNetSpace.from_config(
        preset="28x28",
        input_channels=1,
        stages=[Stage(24, 1, (1, 2)), Stage(40, 2, (1, 2, 3)), Stage(64, 1, (1, 2, 3))],
        stem_channels=16,
        stem_stride=2,
        resolutions=[20, 24, 28],
        widths=[0.5, 1.0],
        kernels=[3, 5],
        expands=[2, 4],
    )
    big, small = space.plan(space.largest()), space.plan(space.smallest())
    assert big.input_shape == (1, 28, 28) and small.input_shape == (1, 20, 20)
    assert len(big.blocks) == 2 + 2 + 3 + 3 and len(small.blocks) == 2 + 3
    large, little = by_name(big), by_name(small)
    assert large["stem"].out_channels == 16 and little["stem"].out_channels == 8
    assert large["s2.b1.depthwise"].kernel == 5 and little["s2.b1.depthwise"].kernel == 3
    assert large["s2.b1.depthwise"].in_size == 14 and large["s2.b1.depthwise"].out_size == 7
    assert large["s2.b1.depthwise"].in_channels == 4 * 24
    assert little["s2.b1.depthwise"].in_channels == 2 * 12


def test_a_stage_has_a_width_of_its_own_beside_that_of_the_network():
    stages = [
        {"channels": 16, "stride": 1, "depths": [1]},
        {"channels": 32, "stride": 2, "depths": [2], "widths": [0.25, 1.0]},
        {"channels": 64, "stride": 2, "depths": [1], "widths": [0.5]},
    ]
    space = tiny(stages=stages, widths=[0.5, 1.0], divisor=4)
    assert [c.name for c in space.choices if c.name.endswith("width")] == ["width", "s2.width"]
    for width in (0.5, 1.0):
        for own in (0.25, 1.0):
            arch = change(space, space.largest(), width=width, s2__width=own)
            layers = by_name(space.plan(arch))
            assert layers["s1.b1.project"].out_channels == 16 * width
            for block in ("s2.b1", "s2.b2"):
                assert layers[f"{block}.project"].out_channels == 32 * width * own
            # One width is no choice.
            assert layers["s3.b1.project"].out_channels == 64 * width * 0.5
    (smallest, largest) = (space.plan(a) for a in (space.smallest(), space.largest()))
    assert by_name(smallest)["s2.b1.project"].out_channels == 4
    assert by_name(largest)["s2.b1.project"].out_channels == 32


@pytest.mark.parametrize("preset", ["28x28", "32x32"])
def test_fine_presets_hold_what_lean_ones_do_and_smaller(preset):
    fine, lean = (
        MobileNetSpace.from_config(preset=f"{preset}-{kind}") for kind in ("fine", "lean")
    )
    rows = lean.sample_genes(np.random.default_rng(0), 20)
    for arch in [lean.smallest(), lean.largest(), *lean.decode(rows)]:
        same = fine.plan(fine.arch({**dict(arch.items), "s3.width": 1.0}))
        assert same.blocks == lean.plan(arch).blocks
    assert fine.plan(fine.smallest()).macs < lean.plan(lean.smallest()).macs


def test_residual_blocks_keep_size_and_channels():
    space = MobileNetSpace.from_config(preset="32x32")
    for arch in space.decode(space.sample_genes(np.random.default_rng(0), 20)):
        for block in space.plan(arch).blocks:
            first, last = block.layers[0], block.layers[-1]
            same = first.in_channels == last.out_channels and first.in_size == last.out_size
            assert block.residual == (block.kind == "mbconv" and same)
            assert (("sum", "none") in block.points) == block.residual


def test_squeeze_and_excite_gates_at_a_quarter():
    space = MobileNetSpace.from_config(preset="224x224-ofa")
    layers = by_name(space.plan(space.largest()))
    middle = layers["s3.b1.depthwise"].out_channels
    assert layers["s3.b1.squeeze"].in_channels == layers["s3.b1.excite"].out_channels == middle
    assert layers["s3.b1.squeeze"].out_channels == round_channels(middle / 4, 8)
    assert layers["s3.b1.project"].source == "none"
    assert "s2.b1.squeeze" not in layers
    assert layers["head.feature"].kind == "linear"
    assert layers["head.classifier"].in_channels == layers["head.feature"].out_channels == 1280


@given(st.floats(0.1, 5000), st.sampled_from([1, 4, 8, 16]))
def test_rounded_channels_are_multiples_and_never_much_smaller(channels, divisor):
    rounded = int(round_channels(channels, divisor))
    assert rounded % divisor == 0 and rounded >= divisor
    assert rounded >= 0.9 * channels
    assert abs(rounded - channels) <= max(divisor, 0.1 * channels)


def test_a_list_and_a_stage_say_the_same_as_tuples():
    stages = (Stage(16, 1, (1, 2)),)
    assert tiny().parameters == tiny(stages=stages, kernels=(3, 5)).parameters


def test_an_unknown_preset_names_those_there_are():
    with pytest.raises(InputError, match=r"unknown preset '29x29' .*28x28"):
        MobileNetSpace.from_config(preset="29x29")


def test_an_unknown_parameter_names_the_nearest():
    with pytest.raises(InputError, match=r"unknown parameter 'width' .*did you mean 'widths'"):
        tiny(width=[1.0])
    with pytest.raises(InputError) as error:
        tiny(qqq=1)
    assert "did you mean" not in str(error.value)
    for field in fields(MobileNetParameters):
        assert field.name in str(error.value)


STAGE = TINY["stages"][0]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"stages": []}, "stages is empty"),
        ({"stages": 5}, "stages=5 must be a list"),
        ({"stages": [3]}, r"stages\[0\] must be a mapping, not 3"),
        ({"stages": [{**STAGE, "chanels": 3}]}, r"unknown key 'chanels' in stages\[0\]"),
        ({"stages": [{"channels": 8}]}, r"stages\[0\] lacks stride, depths"),
        ({"stages": [{**STAGE, "depths": [2, 1]}]}, r"depths=\[2, 1\] must be ascending"),
        ({"stages": [{**STAGE, "depths": [1, 1]}]}, "each value once"),
        ({"stages": [{**STAGE, "depths": [0, 1]}]}, "must be positive"),
        ({"stages": [{**STAGE, "depths": [1.5]}]}, r"depths=1.5 must be a whole number"),
        ({"stages": [{**STAGE, "depths": None}]}, "depths=None must be a list"),
        ({"stages": [{**STAGE, "depths": 2}]}, "depths=2 must be a list"),
        ({"stages": [{**STAGE, "widths": [1.0, 0.5]}]}, r"stages\[0\].widths=.* must be ascending"),
        ({"stages": [{**STAGE, "widths": [0]}]}, "positive numbers"),
        ({"stages": [{**STAGE, "channels": 0}]}, r"stages\[0\].channels=0 must be a whole"),
        ({"stages": [{**STAGE, "stride": "2"}]}, r"stride='2' must be a whole number"),
        ({"stages": [{**STAGE, "kernels": [2, 3]}]}, "kernel 2 is even"),
        ({"stages": [{**STAGE, "expands": [0.5, 2]}]}, "0.5 must be at least 1"),
        ({"stages": [{**STAGE, "activation": "gelu"}]}, r"'gelu' is not one of \['relu'"),
        ({"kernels": [4]}, "kernel 4 is even"),
        ({"kernels": []}, "at least one value"),
        ({"weight_bits": [9]}, "weight_bits: 9 is not one of"),
        ({"weight_bits": [8, 4]}, "ascending"),
        ({"weight_bits": 8}, "weight_bits=8 must be a list"),
        ({"activation_bits": [2.5]}, "activation_bits: 2.5 is not one of"),
        ({"edge_bits": 12}, "edge_bits=12 is not one of"),
        ({"edge_bits": 1}, "at least 2 bits"),
        ({"granularity": "tensor"}, r"granularity='tensor' is not one of \['layer', 'block'\]"),
        ({"resolutions": [8.5]}, "resolutions=8.5 must be a whole number"),
        ({"widths": ["1"]}, "positive numbers"),
        ({"widths": [-1, 1]}, "positive numbers"),
        ({"widths": [True]}, "positive numbers"),
        ({"stem_channels": 0}, "stem_channels=0 must be a whole number from 1"),
        ({"stem_stride": 1.0}, "stem_stride=1.0 must be a whole number from 1"),
        ({"divisor": True}, "divisor=True must be a whole number from 1"),
        ({"feature_channels": -1}, "feature_channels=-1 must be a whole number from 0"),
        ({"stem_activation": "tanh"}, "stem_activation='tanh' is not one of"),
        ({"head_activation": "tanh"}, "head_activation='tanh' is not one of"),
    ],
)
def test_bad_values_are_named(changes, message):
    with pytest.raises(InputError, match=message):
        tiny(**changes)


@pytest.mark.parametrize("bits", [1, 2, 16, 32])
def test_activations_may_have_any_bits(bits):
    space = tiny(activation_bits=[bits])
    assert by_name(space.plan(space.largest()))["s1.b1.project"].activation_bits == bits


def test_a_fused_stage_has_one_full_convolution_for_two():
    space = tiny(stages=[{**STAGE, "fused": True}], expands=[1, 2])
    for ratio in (1, 2):
        arch = change(space, space.largest(), s1__b1__expand=ratio, s1__b1__kernel=5)
        layers = by_name(space.plan(arch))
        assert "s1.b1.depthwise" not in layers
        full = layers["s1.b1.expand"]
        assert (full.kernel, full.groups, full.source) == (5, 1, "stream")
        assert full.out_channels == ratio * full.in_channels
        assert layers["s1.b1.project"].in_channels == full.out_channels
    assert not [c.name for c in space.choices if "depthwise" in c.name]
