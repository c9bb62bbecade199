"""Groups of channels that share a scale, a choice of each layer of a language model."""

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space

FLOAT = {"activation_bits": (32,), "edge_bits": 8}


def space(**changes):
    return build_space("decoder", **{"preset": "60k", "groups": (0, 8, 32), **FLOAT, **changes})


def layers_of(made, **chosen):
    """Return the layers of the largest architecture with some values changed, by name."""
    arch = made.arch({**dict(made.largest().items), **chosen})
    return {layer.name: layer for layer in made.plan(arch).layers()}


def test_each_layer_has_a_group_of_its_own():
    made = space()
    layers = layers_of(made, **{"b1.g.qkv": 8, "b1.g.widen": 0})
    assert layers["b1.qkv"].group == 8 and layers["b1.qkv"].scales == 48 // 8
    assert layers["b1.widen"].group == 0 and layers["b1.widen"].scales == 1
    assert layers["b1.project"].group == 32 and layers["b1.project"].scales == 1
    assert layers["b1.contract"].scales == 3 and layers["head.classifier"].group == 0
    # A float32 scale of each group and an int32 bias beside the packed weights.
    qkv = layers["b1.qkv"]
    assert qkv.packed_bytes == qkv.weight_count * 8 // 8 + (4 * 6 + 4) * qkv.out_channels


def test_a_block_may_have_one_group_and_float_weights_none():
    block = space(granularity="block", weight_bits=(4, 32))
    names = {choice.name for choice in block.choices}
    assert {"b1.g", "b2.g"} <= names and "b1.g.qkv" not in names
    float_one = block.largest()
    assert float_one["b1.w"] == 32 and "b1.g" not in float_one
    assert all(layer.group == 0 for layer in block.plan(float_one).layers())


def test_smaller_groups_take_more_memory_and_no_more_work():
    made = space(granularity="block", groups=(0, 8))
    genes = made.genes([made.largest(), made.largest()])
    genes[0, made.index["b1.g"]] = 0
    costs = made.costs(genes)
    assert costs["weights_kib"][0] < costs["weights_kib"][1]
    assert costs["macs"][0] == costs["macs"][1]
    plans = [made.plan(arch) for arch in made.decode(genes)]
    np.testing.assert_allclose(costs["weights_kib"], [plan.weights_kib for plan in plans])
    np.testing.assert_allclose(costs["flash_kib"], [plan.flash_kib for plan in plans])


def test_without_groups_nothing_changes():
    plain = build_space("decoder", preset="60k")
    assert not any(".g" in choice.name for choice in plain.choices)
    assert all(layer.group == 0 for layer in plain.plan(plain.largest()).layers())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"groups": (4,)}, "scales of 4 channels take more than their weights"),
        ({"groups": (32, 8)}, "groups.*ascending"),
        ({"groups": ()}, "groups.*ascending"),
        ({"groups": (8.5,)}, "groups=8.5 must be a whole number"),
        ({"activation_bits": (8,)}, r"are of weights alone.*Set activation_bits: \[32\]"),
        ({"weight_bits": (16,)}, "weights in groups have 1 to 8 bits"),
        ({"weight_bits": (32,)}, "weights in groups have 1 to 8 bits"),
    ],
)
def test_what_cannot_be_is_told(changes, message):
    with pytest.raises(InputError, match=message):
        space(**changes)
