"""What moves values before a quantiser moves codes after it, and nothing else changes."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.lowbit.build import find_compiler
from devices.lowbit.network import LowBitNetwork
from search_spaces.errors import EnvironmentProblem
from search_spaces.model_files.graph import graph_of
from search_spaces.model_files.moves import quantised_first
from search_spaces.model_files.packing import pack_model

SHAPE = (1, 4, 6, 5)
CONSTANTS = {
    "s": np.float32(0.05),
    "z": np.uint8(9),
    "s2": np.float32(0.1137),
    "z2": np.uint8(0),
    "top": np.uint8(15),
    "zeros": np.array([0, 0, 1, 0, 0, 0, 2, 1]),
    "one": np.float32(1),
    "halves": np.array([2, 2]),
    "grow": np.array([0, 0, 1, 0, 0, 0, 2, 0]),
    "from": np.array([1, 0]),
    "to": np.array([4, 2]),
    "along": np.array([2, 1]),
    "w": np.random.default_rng(0).integers(-7, 8, (3, 4, 3, 3)).astype(np.int8),
    "ws": np.array([0.1, 0.2, 0.3], np.float32),
    "wz": np.zeros(3, np.int8),
    "top6": np.float32(6),
    "low0": np.float32(0),
    "s6": np.float32(6 / 255),
}


def make(nodes):
    graph = helper.make_graph(
        [helper.make_node(op, i, o, **a) for op, i, o, a in nodes],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, SHAPE)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in CONSTANTS.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def quantise(source, out, grid=("s", "z")):
    return [("QuantizeLinear", [source, *grid], [out], {})]


def floats(source, out, grid=("s", "z")):
    return [("DequantizeLinear", [source, *grid], [out], {})]


def layer(source, out="y"):
    return [
        ("DequantizeLinear", ["w", "ws", "wz"], ["wf"], {"axis": 0}),
        ("Conv", [source, "wf"], [out], {"pads": [0, 1, 0, 0], "kernel_shape": [3, 3]}),
    ]


GRAPHS = {
    "zeros in front of a layer": [
        ("Pad", ["x", "zeros"], ["p"], {}), *quantise("p", "q"), *floats("q", "d"), *layer("d"),
    ],
    "reflected": [
        ("Pad", ["x", "zeros"], ["p"], {"mode": "reflect"}),
        *quantise("p", "q"), *floats("q", "y"),
    ],
    "round a torus": [
        ("Pad", ["x", "zeros"], ["p"], {"mode": "wrap"}), *quantise("p", "q"), *floats("q", "y"),
    ],
    "cut before a function": [
        *quantise("x", "q0"), *floats("q0", "d0"), *layer("d0", "c"),
        ("Slice", ["c", "from", "to", "along"], ["p"], {}),
        ("Clip", ["p", "low0", "top6"], ["r"], {}),
        *quantise("r", "q", ("s6", "z2")), *floats("q", "y", ("s6", "z2")),
    ],
    "zeros before a function": [
        *quantise("x", "q0"), *floats("q0", "d0"), *layer("d0", "c"),
        ("Pad", ["c", "zeros"], ["p"], {}), ("Sigmoid", ["p"], ["r"], {}),
        *quantise("r", "q"), *floats("q", "y"),
    ],
    "fewer bits": [
        ("Slice", ["x", "from", "to", "along"], ["p"], {}),
        *quantise("p", "q"), ("Clip", ["q", "", "top"], ["c"], {}), *floats("c", "y"),
    ],
    "cut twice and joined": [
        ("Slice", ["x", "from", "to", "along"], ["a"], {}),
        ("Slice", ["x", "from", "to"], ["b0"], {}),
        ("Slice", ["a", "from", "to"], ["a2"], {}),
        ("Concat", ["a", "a"], ["joined"], {"axis": 1}),
        *quantise("joined", "q"), *floats("q", "y"),
    ],
    "codes that were codes": [
        *quantise("x", "q0"), *floats("q0", "d0"),
        ("Slice", ["d0", "from", "to", "along"], ["p"], {}), *quantise("p", "q"), *floats("q", "y"),
    ],
    "another grid": [
        *quantise("x", "q0"), *floats("q0", "d0"),
        ("Slice", ["d0", "from", "to", "along"], ["p"], {}),
        *quantise("p", "q", ("s2", "z2")), *floats("q", "y", ("s2", "z2")),
    ],
    "fewer bits of codes": [
        *quantise("x", "q0"), *floats("q0", "d0"), ("Concat", ["d0", "d0"], ["p"], {"axis": 1}),
        *quantise("p", "q"), ("Clip", ["q", "", "top"], ["c"], {}), *floats("c", "dc"),
        *floats("q0", "again"), ("Concat", ["again", "dc"], ["y"], {"axis": 1}),
    ],
    "read by another too": [
        ("Slice", ["x", "from", "to", "along"], ["p"], {}),
        *quantise("p", "q"), *floats("q", "d"), ("Add", ["d", "p"], ["y"], {}),
    ],
    "parts on grids of their own": [
        *quantise("x", "q0"), *floats("q0", "d0"),
        ("Split", ["d0", "halves"], ["a", "b"], {"axis": 1}),
        *quantise("a", "qa"), *floats("qa", "da"),
        *quantise("b", "qb", ("s2", "z2")), *floats("qb", "db", ("s2", "z2")),
        ("Slice", ["x", "from", "to", "along"], ["c"], {}),
        ("Slice", ["x", "from", "to", "along"], ["e"], {}),
        *quantise("c", "qc", ("s6", "z2")), *floats("qc", "dc", ("s6", "z2")),
        *quantise("e", "qe", ("s2", "z2")), *floats("qe", "de", ("s2", "z2")),
        ("Sub", ["dc", "de"], ["f"], {}), ("Pad", ["f", "grow"], ["g"], {}),
        ("Sub", ["da", "db"], ["h"], {}), ("Sub", ["h", "g"], ["y"], {}),
    ],
    "ones around": [
        ("Pad", ["x", "zeros", "one"], ["p"], {}), *quantise("p", "q"), *floats("q", "y"),
    ],
    "a bound of the codes": [
        *quantise("x", "q0"), *floats("q0", "d0"), *layer("d0", "c"),
        ("Clip", ["c", "low0", "top6"], ["r"], {}),
        *quantise("r", "q", ("s6", "z2")), *floats("q", "y", ("s6", "z2")),
    ],
    "a bound within the codes": [
        *quantise("x", "q0"), *floats("q0", "d0"), *layer("d0", "c"),
        ("Clip", ["c", "low0", "top6"], ["r"], {}),
        *quantise("r", "q", ("s2", "z2")), *floats("q", "y", ("s2", "z2")),
    ],
}  # fmt: skip


@pytest.mark.parametrize("name", GRAPHS)
def test_the_packed_model_computes_what_the_file_does(name):
    try:
        find_compiler()
    except EnvironmentProblem as error:
        pytest.skip(str(error))
    model = make(GRAPHS[name])
    x = np.random.default_rng(1).normal(size=SHAPE).astype(np.float32)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    (expected,) = session.run(None, {"x": x})
    found = LowBitNetwork(pack_model(model), rounds=0).run(x)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def operations(name: str) -> list[str]:
    return [node["op"] for node in pack_model(make(GRAPHS[name])).nodes()]


def test_zeros_around_images_are_part_of_the_layer():
    packed = pack_model(make(GRAPHS["zeros in front of a layer"]))
    assert [node["op"] for node in packed.nodes()] == ["quantize", "conv"]
    assert packed.nodes()[1]["pads"] == [1, 1, 2, 1]
    assert operations("reflected") == ["quantize", "pad", "dequantize"]
    assert "pad" not in operations("ones around")


def test_what_moves_numbers_moves_codes_after_a_function_too():
    assert operations("round a torus") == ["quantize", "pad", "dequantize"]
    # A layer gives codes at once, and then they are cut.
    assert operations("cut before a function") == ["quantize", "conv", "slice", "dequantize"]
    # Zeros that are put around are no zeros afterwards.
    assert operations("zeros before a function")[2:4] == ["Pad", "Sigmoid"]


def test_what_two_moves_take_is_quantised_once():
    assert operations("cut twice and joined").count("quantize") == 1
    assert operations("codes that were codes") == ["quantize", "slice", "dequantize"]
    assert operations("read by another too").count("quantize") == 1


def test_a_clip_goes_where_rounding_does_the_same():
    assert "Clip" not in operations("a bound of the codes")
    assert "Clip" in operations("a bound within the codes")


def test_a_graph_without_moves_stays_as_it_is():
    graph = graph_of(make(GRAPHS["ones around"]))
    assert quantised_first(graph).nodes == graph.nodes


def test_scales_of_a_layer_on_floats_are_without_its_factors(tmp_path):
    nodes = [
        ("Cast", ["w"], ["wide"], {"to": TensorProto.INT32}),
        ("Mul", ["wide", "factor"], ["spread"], {}),
        ("Cast", ["spread"], ["codes"], {"to": TensorProto.INT8}),
        ("DequantizeLinear", ["codes", "ws", "wz"], ["wf"], {"axis": 0}),
        ("Conv", ["x", "wf"], ["y"], {"kernel_shape": [3, 3]}),
    ]
    model = make(nodes)
    factor = np.full((3, 1, 1, 1), 18, np.int32)
    model.graph.initializer.append(numpy_helper.from_array(factor, "factor"))
    packed = pack_model(model)
    (node,) = packed.nodes()
    assert node["weights"]["fill"] is None and node["weights"]["bits"] == 4
    np.testing.assert_array_equal(packed.codes(node["weights"]), CONSTANTS["w"])
    scale = packed.tensors[node["weights"]["scale"]]
    np.testing.assert_allclose(scale, 18 * CONSTANTS["ws"], rtol=1e-6)


SPREADS = {
    "depth_to_space": ([0, 1, 2, 2, 6, 5], [0, 1, 4, 2, 5, 3], [0, 1, 12, 10]),
    "rows before columns": ([0, 1, 2, 2, 6, 5], [0, 1, 4, 3, 5, 2], [0, 1, 12, 10]),
    "unlike sides": ([0, 1, 4, 1, 6, 5], [0, 1, 4, 2, 5, 3], [0, 1, 24, 5]),
}
SHUFFLE = {"blocksize": 2, "mode": "CRD"}


@pytest.mark.parametrize("name", SPREADS)
def test_codes_taken_apart_and_joined_as_blocks_of_pixels_are_one_operation(name):
    apart, order, whole = SPREADS[name]
    nodes = [
        *quantise("x", "q"), ("Reshape", ["q", "apart"], ["a"], {}),
        ("Transpose", ["a"], ["t"], {"perm": order}), ("Reshape", ["t", "whole"], ["m"], {}),
        *floats("m", "y"),
    ]  # fmt: skip
    model = make(nodes)
    shapes = {"apart": np.array(apart), "whole": np.array(whole)}
    model.graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in shapes.items())
    found = [node["op"] for node in pack_model(model).nodes()]
    kept = [name] if name == "depth_to_space" else ["reshape", "transpose", "reshape"]
    assert found == ["quantize", *kept, "dequantize"]
    one = make([*quantise("x", "q"), ("DepthToSpace", ["q"], ["m"], SHUFFLE), *floats("m", "y")])
    same = pack_model(one).nodes() == pack_model(model).nodes()
    assert same == (name == "depth_to_space")
