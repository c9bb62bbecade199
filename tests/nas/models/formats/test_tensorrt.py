"""Signed codes without zero points: exact where the codes fit, coarser where they do not."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.models.formats.tensorrt import symmetric
from search_spaces.errors import InputError


def network(zero: int, highest: int, middle: list[onnx.NodeProto] | None = None):
    """Input of 8 bits with a zero point, a convolution, and codes of 0 to ``highest``."""
    rng = np.random.default_rng(0)
    codes = rng.integers(-7, 8, (4, 3, 3, 3)).astype(np.int8)
    arrays = {
        "s": np.float32(0.05), "z": np.uint8(zero), "w": codes,
        "ws": rng.uniform(0.01, 0.05, 4).astype(np.float32), "wz": np.zeros(4, np.int8),
        "b": rng.integers(-90, 90, 4).astype(np.int32),
        "bs": np.full(4, 0.002, np.float32), "bz": np.zeros(4, np.int32),
        "t": np.float32(0.2), "u": np.uint8(0), "most": np.uint8(highest),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        node("DequantizeLinear", ["w", "ws", "wz"], ["wf"], axis=0),
        node("DequantizeLinear", ["b", "bs", "bz"], ["bf"], axis=0),
        node("Conv", ["d", "wf", "bf"], ["y"], kernel_shape=[3, 3], pads=[1, 1, 1, 1]),
        node("QuantizeLinear", ["y", "t", "u"], ["r"]),
        node("Clip", ["r", "", "most"], ["c"]),
        *(middle or [node("Flatten", ["c"], ["f"])]),
        node("DequantizeLinear", ["f", "t", "u"], ["out"]),
    ]
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3, 6, 6])],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 144])],
        [numpy_helper.from_array(np.asarray(v), k) for k, v in arrays.items()],
    )  # fmt: skip
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def run(model):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    x = np.random.default_rng(1).standard_normal((2, 3, 6, 6)).astype(np.float32) * 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options)
    return session.run(None, {"x": x})[0]


def test_codes_that_fit_signed_bytes_stay_what_they_are():
    model = network(128, 15)
    made, coarser, tensors = symmetric(model)
    assert (coarser, tensors) == (0, 2)
    expected = run(model)
    # Both ends of the range are reached.
    assert expected.min() == 0 and expected.max() == pytest.approx(15 * 0.2)
    np.testing.assert_allclose(run(made), expected, rtol=1e-6, atol=1e-6)


def test_steps_are_wider_where_codes_do_not_fit_and_the_range_stays():
    model = network(30, 255)
    made, coarser, _ = symmetric(model)
    assert coarser == 2
    expected, found = run(model), run(made)
    assert found.min() >= 0
    # A step of the output before is 0.2; two of the input's are 0.1.
    assert np.abs(found - expected).max() < 2.0 and np.abs(found - expected).mean() < 0.3


def test_what_computes_with_codes_is_named():
    other = [helper.make_node("Concat", ["c", "c"], ["f"], axis=1)]
    with pytest.raises(InputError, match="Concat computes with codes"):
        symmetric(network(128, 15, other))
