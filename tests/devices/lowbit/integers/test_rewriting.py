"""What becomes integers, and what stays as it is."""

import numpy as np
import pytest

from devices.lowbit.integers.rewriting import on_integers
from search_spaces.model_files.packed_model import PackedModel

GRID = {"scale": 0.05, "zero_point": 3, "bits": 8}
CONV = {
    "op": "conv", "inputs": ["q"], "output": "x", "kernel": [1, 1], "strides": [1, 1],
    "pads": [0] * 4, "dilations": [1, 1], "groups": 1,
    "weights": {
        "shape": [4, 2, 1, 1], "bits": 8, "low": -128, "stride": 1, "fill": 0, "codes": "0.codes",
        "scale": "0.scale", "bias": "0.bias",
    },
}  # fmt: skip


def model(*nodes, output="y", layer=CONV, grids=()):
    tensors = {
        "0.codes": np.arange(120, 128, dtype=np.uint8), "0.scale": np.full(4, 0.1, np.float32),
        "0.bias": np.arange(4, dtype=np.int32),
    }  # fmt: skip
    first = [{"op": "quantize", "inputs": ["input"], "output": "q"}, layer]
    graph = {
        "input": {"name": "input", "shape": [2, 5, 5]}, "output": output,
        "nodes": [*first, *nodes], "grids": dict.fromkeys(("q", "y", *grids), GRID),
    }  # fmt: skip
    return PackedModel(graph, tensors)


def node(op, inputs, output, constants=None, **attributes):
    entry = {"op": op, "inputs": inputs.split(), "output": output}
    entry |= {"constants": constants} if constants else {}
    return entry | ({"attributes": attributes} if attributes else {})


def operations(*nodes, **more):
    return [n["op"] for n in on_integers(model(*nodes, **more)).nodes()][1:]


CODES = [node("quantize", "x", "c"), node("dequantize", "c", "c.f")]


def test_any_composition_of_one_layers_floats_is_a_staircase():
    silu = [node("Sigmoid", "x", "s"), node("Mul", "x s", "m")]
    clipped = [node("Clip", "m lo hi", "k", {"lo": -1.0, "hi": 3.0}), node("quantize", "k", "y")]
    assert operations(*silu, *clipped) == ["conv", "steps"]


def test_of_codes_it_is_a_table():
    nodes = [*CODES, node("Erf", "c.f", "e"), node("Add", "e one", "a", {"one": 1.0})]
    found = on_integers(model(*nodes, node("quantize", "a", "y"), grids=["c"])).nodes()
    assert [n["op"] for n in found[1:]] == ["conv", "steps", "table"]
    assert found[-1]["table"].shape == (256,)


@pytest.mark.parametrize("op", ["HardSwish", "HardSigmoid"])
def test_kernels_keep_the_functions_that_they_have(op):
    attributes = {"alpha": 1 / 6, "beta": 0.5} if op == "HardSigmoid" else {}
    nodes = [node(op, "x", "h", **attributes), node("quantize", "h", "y")]
    assert operations(*nodes) == ["conv", op, "quantize"]
    other = [node("HardSigmoid", "x", "h", alpha=0.2), node("quantize", "h", "y")]
    assert operations(*other) == ["conv", "steps"]


def test_floats_that_something_else_reads_are_kept():
    nodes = [node("Tanh", "x", "t"), node("quantize", "t", "y"), node("Softmax", "t", "z")]
    assert operations(*nodes, output="z") == ["conv", "Tanh", "steps", "Softmax"]


def test_numbers_of_channels_are_no_function_of_a_number():
    slopes = np.full((4, 1, 1), 0.1).tolist()
    prelu = [node("PRelu", "x c", "p", {"c": slopes}), node("quantize", "p", "y")]
    assert operations(*prelu) == ["conv", "slopes"]
    scaled = [node("Mul", "x c", "p", {"c": slopes}), node("quantize", "p", "y")]
    assert operations(*scaled) == ["conv", "Mul", "quantize"]


def test_a_layer_that_is_only_cut_apart_is_several():
    cut = [
        node("Slice", "x b e a", f"h{i}", {"b": [2 * i], "e": [2 * i + 2], "a": [1]})
        for i in range(2)
    ]
    gate = [node("Sigmoid", "h0", "s"), node("Mul", "s h1", "m"), node("quantize", "m", "y")]
    found = on_integers(model(*cut, *gate))
    layers = found.nodes()[1:3]
    assert [n["op"] for n in found.nodes()[1:]] == ["conv", "conv", "gate"]
    whole = found.codes(CONV["weights"])
    for i, layer in enumerate(layers):
        np.testing.assert_array_equal(found.codes(layer["weights"]), whole[2 * i : 2 * i + 2])
        bias = found.tensors[layer["weights"]["bias"]]
        np.testing.assert_array_equal(bias, [2 * i, 2 * i + 1])
    # Not where something reads all of it, and not a linear layer, whose axis 1 may be tokens.
    also = operations(*cut, *gate, node("Softmax", "x", "z"), output="z")
    assert also.count("conv") == 1 and "Slice" in also
    linear = {k: v for k, v in CONV.items() if k in ("inputs", "output", "weights")}
    linear["weights"] = {**CONV["weights"], "shape": [4, 2]}
    assert "Slice" in operations(*cut, *gate, layer={"op": "linear", **linear})


def test_products_of_codes_stay_with_their_kernel():
    nodes = [*CODES, node("Mul", "c.f c.f2", "m"), node("quantize", "m", "y")]
    nodes.insert(2, node("dequantize", "q", "c.f2"))
    assert operations(*nodes, grids=["c"])[-2:] == ["Mul", "quantize"]


@pytest.mark.parametrize("same", [True, False])
@pytest.mark.parametrize("keepdims", [0, 1])
def test_a_maximum_of_codes_is_a_code(same, keepdims):
    reduced = node("ReduceMax", "c.f a", "r", {"a": [2, 3]}, keepdims=keepdims)
    wanted = model(*CODES, reduced, node("quantize", "r", "y"), grids=["c"])
    if not same:
        wanted.graph["grids"]["y"] = {**GRID, "scale": 0.07}
    found = [n["op"] for n in on_integers(wanted).nodes()][3:]
    views = [] if keepdims else ["flatten"]
    assert found == ["global_max_pool", *views, *([] if same else ["requantize"])]


def test_a_maximum_of_another_axis_is_left():
    reduced = node("ReduceMax", "c.f a", "r", {"a": [1]})
    nodes = [*CODES, reduced, node("quantize", "r", "y")]
    assert operations(*nodes, grids=["c"])[-2:] == ["ReduceMax", "quantize"]


def test_nodes_that_nothing_read_are_not_dropped():
    unused = node("Softmax", "x", "z")
    nodes = [unused, node("Tanh", "x", "t"), node("quantize", "t", "y")]
    assert operations(*nodes) == ["conv", "Softmax", "steps"]


def test_a_pool_with_numbers_of_places():
    shares = np.linspace(1, 2, 25).reshape(1, 1, 5, 5).tolist()
    pool = node("AveragePool", "c.f", "p", kernel_shape=[3, 3], pads=[1] * 4, count_include_pad=1)
    scaled = node("Mul", "p s", "m", {"s": shares})
    found = on_integers(model(*CODES, pool, scaled, node("quantize", "m", "y"), grids=["c"]))
    last = found.nodes()[-1]
    assert last["op"] == "average_pool" and last["inputs"] == ["c"]
    np.testing.assert_allclose(last["shares"], np.linspace(1, 2, 25).reshape(5, 5), rtol=1e-6)
    channels = node("Mul", "p s", "m", {"s": np.ones((1, 4, 1, 1)).tolist()})
    assert operations(*CODES, pool, channels, node("quantize", "m", "y"), grids=["c"])[-3:] == [
        "AveragePool", "Mul", "quantize",
    ]  # fmt: skip


def test_norms_and_slopes_of_codes_read_their_values():
    ones = {"g": [1.0] * 4, "b": [0.0] * 4}
    norm = node("InstanceNormalization", "c.f g b", "n", ones)
    found = operations(*CODES, norm, node("quantize", "n", "y"), grids=["c"])
    assert found == ["conv", "steps", "values", "norm", "steps"]
    slopes = {"s": np.full((4, 1, 1), 0.1).tolist()}
    prelu = [node("PRelu", "c.f s", "p", slopes), node("quantize", "p", "y")]
    assert operations(*CODES, *prelu, grids=["c"]) == ["conv", "steps", "values", "slopes"]


@pytest.mark.parametrize("numbers", [2, 4])
def test_a_group_norm_has_numbers_of_groups_or_of_channels(numbers):
    constants = {"g": list(range(1, numbers + 1)), "b": [0.0] * numbers}
    norm = node("GroupNormalization", "x g b", "n", constants, num_groups=2)
    made = on_integers(model(norm, node("quantize", "n", "y"))).nodes()[2]
    assert made["op"] == "norm" and made["groups"] == 2
    assert made["gain"].tolist() == ([1, 1, 2, 2] if numbers == 2 else [1, 2, 3, 4])


CUT = {"b": [1], "e": [-1], "a": [2]}


def test_a_function_of_moved_floats_is_moved_afterwards():
    moves = [
        node("DepthToSpace", "x", "d", blocksize=2, mode="CRD"),
        node("Slice", "d b e a", "s1", CUT),
        # Exporters write what two readers take twice.
        node("Slice", "d b e a", "s2", CUT),
        node("Sigmoid", "s1", "s"),
        node("Mul", "s2 s", "m"),
    ]
    found = on_integers(model(*moves, node("quantize", "m", "y"))).nodes()[1:]
    assert [n["op"] for n in found] == ["conv", "steps", "depth_to_space", "slice"]
    assert found[-1]["output"] == "y" and found[-1]["inputs"] == [found[-2]["output"]]
    # A layer whose pixels others read too stays as it is for them.
    both = operations(*moves, node("quantize", "m", "y"), node("Softmax", "s2", "z"), output="z")
    assert both.count("DepthToSpace") == 1 and both.count("Slice") == 1


@pytest.mark.parametrize("mode", ["CRD", "DCR"])
def test_slopes_behind_a_pixel_shuffle_are_those_of_its_channels(mode):
    wide = {**CONV, "weights": {**CONV["weights"], "shape": [8, 1, 1, 1]}}
    slopes = {"c": [[[5.0]], [[7.0]]]}
    nodes = [
        node("DepthToSpace", "x", "d", blocksize=2, mode=mode),
        node("PRelu", "d c", "p", slopes), node("quantize", "p", "y"),
    ]  # fmt: skip
    found = on_integers(model(*nodes, layer=wide)).nodes()[2:]
    assert [n["op"] for n in found] == ["slopes", "depth_to_space"]
    assert found[0]["slopes"].tolist() == ([5] * 4 + [7] * 4 if mode == "CRD" else [5, 7] * 4)


def test_the_largest_of_a_layers_floats_is_taken_of_their_codes():
    pooled = [node("Relu", "x", "r"), node("GlobalMaxPool", "r", "g"), node("Flatten", "g", "f")]
    found = operations(*pooled, node("quantize", "f", "y"))
    assert found == ["conv", "steps", "global_max_pool", "flatten"]
    # What falls may be largest where the number is least.
    after = [node("MaxPool", "x", "p", kernel_shape=[2, 2]), node("Neg", "p", "n")]
    assert "MaxPool" in operations(*after, node("quantize", "n", "y"))


def test_floats_after_a_pool_of_codes_read_its_codes():
    pool = node("MaxPool", "c.f", "p", kernel_shape=[2, 2])
    norm = node("InstanceNormalization", "p g b", "n", {"g": [1.0] * 4, "b": [0.0] * 4})
    found = operations(*CODES, pool, norm, node("quantize", "n", "y"), grids=["c"])
    assert found == ["conv", "steps", "max_pool", "values", "norm", "steps"]
