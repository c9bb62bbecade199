"""Constants of 2 and 4 bits in whole bytes: the same values, the same outputs."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.runtime import make_runtime, random_inputs
from devices.runtimes.widening import with_whole_bytes

SMALL = {"INT2": (-2, 1), "INT4": (-8, 7), "UINT4": (0, 15), "INT8": (-128, 127)}


def model_with(kind: str, path):
    """A matrix product by dequantised codes of ``kind``."""
    low, high = SMALL[kind]
    codes = np.random.default_rng(0).integers(low, high + 1, size=(6, 4))
    constants = [
        helper.make_tensor("codes", getattr(TensorProto, kind), codes.shape, codes.ravel()),
        numpy_helper.from_array(np.float32(0.25), "scale"),
        helper.make_tensor("zero", getattr(TensorProto, kind), (), [1]),
    ]
    nodes = [
        helper.make_node("DequantizeLinear", ["codes", "scale", "zero"], ["w"]),
        helper.make_node("MatMul", ["x", "w"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        constants,
    )
    version = 25 if kind == "INT2" else 21
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", version)])
    model.ir_version = 13 if kind == "INT2" else 10
    onnx.save(model, path)
    return 0.25 * (codes - 1)


@pytest.mark.parametrize("kind", SMALL)
def test_values_stay_and_only_small_types_are_touched(kind, tmp_path):
    path = tmp_path / "m.onnx"
    weights = model_with(kind, path)
    widened = with_whole_bytes(path, extra="openvino")
    if kind == "INT8":
        assert widened is None
        return
    kinds = {t.data_type for t in onnx.load_from_string(widened).graph.initializer}
    assert kinds <= {TensorProto.INT8, TensorProto.UINT8, TensorProto.FLOAT}
    x = np.random.default_rng(1).normal(size=(2, 6)).astype(np.float32)
    options = onnxruntime.SessionOptions()
    # Optimised, it would quantise the input of a product with dequantised weights too.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    (found,) = onnxruntime.InferenceSession(widened, options).run(None, {"x": x})
    np.testing.assert_allclose(found, x @ weights, rtol=1e-5, atol=1e-5)


def model_taken_apart(path):
    """The same product by bytes of two codes each, beside a shift of what is computed."""
    codes = np.random.default_rng(0).integers(-8, 8, size=(6, 4))
    rows = (codes.reshape(2, -1) + 8).astype(np.uint8)
    constants = {
        "w": rows[0] | rows[1] << 4,
        "by": np.array([[0], [4]], np.uint8),
        "mask": np.uint8(15),
        "zero": np.int32(8),
        "shape": np.array([6, 4]),
        "scale": np.float32(0.25),
    }
    nodes = [
        helper.make_node("BitShift", ["w", "by"], ["b"], direction="RIGHT"),
        helper.make_node("BitwiseAnd", ["b", "mask"], ["a"]),
        helper.make_node("Cast", ["a"], ["wide"], to=TensorProto.INT32),
        helper.make_node("Sub", ["wide", "zero"], ["i"]),
        helper.make_node("Reshape", ["i", "shape"], ["r"]),
        helper.make_node("Cast", ["r"], ["c"], to=TensorProto.INT8),
        helper.make_node("DequantizeLinear", ["c", "scale"], ["d"]),
        helper.make_node("MatMul", ["x", "d"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 6])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    opsets = [helper.make_opsetid("", 18)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), path)
    return 0.25 * codes


def test_bytes_that_are_taken_apart_are_whole_ones_afterwards(tmp_path):
    weights = model_taken_apart(tmp_path / "m.onnx")
    widened = with_whole_bytes(tmp_path / "m.onnx", extra="openvino")
    model = onnx.load_from_string(widened)
    onnx.checker.check_model(model, full_check=True)
    assert [node.op_type for node in model.graph.node] == ["DequantizeLinear", "MatMul"]
    (held,) = [t for t in model.graph.initializer if t.name == "c"]
    assert held.data_type == TensorProto.INT8
    np.testing.assert_array_equal(0.25 * numpy_helper.to_array(held), weights)
    assert {t.name for t in model.graph.initializer} == {"c", "scale"}


@pytest.mark.parametrize("name", ["openvino", "tract"])
@pytest.mark.parametrize("kind", ["INT2", "INT4"])
def test_runtimes_without_small_types_run_them(name, kind, tmp_path):
    pytest.importorskip(name)
    path = tmp_path / "m.onnx"
    weights = model_with(kind, path)
    session = make_runtime(name).load(path)
    (x,) = random_inputs(session.inputs, seed=0)
    (found,) = session(x)
    np.testing.assert_allclose(found, x @ weights, rtol=1e-4, atol=1e-4)


def test_a_type_that_is_not_known_here_is_left_to_the_runtime(tmp_path):
    path = tmp_path / "m.onnx"
    model_with("INT8", path)
    model = onnx.load(path)
    model.graph.initializer.append(TensorProto(name="later", data_type=99, dims=[0]))
    onnx.save(model, path)
    assert with_whole_bytes(path, extra="openvino") is None
