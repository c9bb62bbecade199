"""Weights of an ONNX file in the form that LiteRT takes."""

import numpy as np
import onnx
import pytest

from devices.runtimes.tflite.file import LiteRtWriter
from search_spaces.errors import InputError
from search_spaces.model_files.graph import graph_of

helper, tensor = onnx.helper, onnx.TensorProto


def writer_of(codes, scale, axis):
    """A writer of ``y = x @ w``, with ``w`` dequantised by a scale along ``axis``."""
    graph = helper.make_graph(
        [
            helper.make_node("DequantizeLinear", ["codes", "scale"], ["w"], axis=axis),
            helper.make_node("MatMul", ["x", "w"], ["y"]),
        ],
        "g",
        [helper.make_tensor_value_info("x", tensor.FLOAT, [1, 3])],
        [helper.make_tensor_value_info("y", tensor.FLOAT, [1, 3])],
        [
            onnx.numpy_helper.from_array(codes, "codes"),
            onnx.numpy_helper.from_array(np.asarray(scale, np.float32), "scale"),
        ],
    )
    opset = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=10)
    return LiteRtWriter(None, graph_of(model), [], operators={})


def test_only_int8_codes_with_scales_of_the_outputs_stay_codes():
    codes = np.arange(9).reshape(3, 3).astype(np.int8)
    scale = [0.5, 1, 2]
    found, steps = writer_of(codes, scale, 1).weight("w", 1)
    assert found.dtype == np.int8 and steps.tolist() == scale
    # A scale for each input, though there are as many; and codes that int8 does not hold.
    for writer in (writer_of(codes, scale, 0), writer_of(codes.astype(np.uint8) + 130, scale, 1)):
        found, steps = writer.weight("w", 1)
        assert steps is None
        np.testing.assert_array_equal(found, writer.graph.constant("w"))
    found, steps = writer_of(codes, 0.5, 0).weight("w", 1)
    assert found.dtype == np.int8 and steps.tolist() == [0.5]


def test_a_weight_that_is_no_constant_is_named():
    with pytest.raises(InputError, match="the weight 'x' is an input"):
        writer_of(np.ones((3, 3), np.int8), 1.0, 0).weight("x")
