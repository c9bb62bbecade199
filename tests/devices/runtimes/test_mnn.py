import sys

import numpy as np
import pytest

from devices.runtime import make_runtime, random_inputs
from search_spaces.errors import InputError

pytest.importorskip("MNN")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path / "cache"))


def test_the_converter_that_installs_and_reports_is_never_loaded(make_model):
    make_runtime("mnn").load(make_model())
    assert not [name for name in sys.modules if name.startswith(("MNN.tools", "aliyun"))]
    assert "_tools" not in sys.modules


def test_a_quantised_file_is_refused_rather_than_measured_in_floats(make_quantised):
    with pytest.raises(InputError, match=r"int8\.onnx.*give mnn the float file"):
        make_runtime("mnn").load(make_quantised())


def test_a_native_file_is_loaded_as_it_is(make_model, tmp_path):
    runtime = make_runtime("mnn")
    path = make_model(batch=1)
    made = runtime.converted(path) / runtime.native
    session = make_runtime("mnn", {"threads": 2}).load(made)
    inputs = random_inputs(session.inputs, 0)
    (output,) = session(*inputs)
    (expected,) = make_runtime("onnxruntime").load(path)(*inputs)
    np.testing.assert_allclose(output, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("seed", range(3))
def test_operators_of_attention_and_of_mobile_networks(tmp_path, seed):
    """A graph of the operators that networks here are made of, against ONNX Runtime."""
    onnx = pytest.importorskip("onnx")
    helper, rng = onnx.helper, np.random.default_rng(seed)
    weights = {
        "w": rng.standard_normal((6, 1, 3, 3)), "p": rng.standard_normal((8, 6, 1, 1)),
        "g": rng.standard_normal((5, 8)), "gb": rng.standard_normal(5),
        "s": rng.standard_normal(16), "sb": rng.standard_normal(16),
        "m": rng.standard_normal((16, 16)),
    }  # fmt: skip
    shapes = {"tokens": [0, 8, 16], "back": [0, 8, 4, 4]}
    nodes = [
        ("Conv", ["x", "w"], "a", {"group": 6, "pads": [0, 0, 2, 2], "strides": [2, 2]}),
        ("HardSwish", ["a"], "b", {}),
        ("Conv", ["b", "p"], "c", {}),
        ("Reshape", ["c", "tokens"], "d", {}),
        ("LayerNormalization", ["d", "s", "sb"], "e", {"axis": -1}),
        ("MatMul", ["e", "m"], "f", {}),
        ("Softmax", ["f"], "h", {"axis": -1}),
        ("Gelu", ["h"], "i", {}),
        ("Add", ["i", "d"], "j", {}),
        ("Reshape", ["j", "back"], "k", {}),
        ("Clip", ["k", "low", "high"], "l", {}),
        ("HardSigmoid", ["l"], "n", {}),
        ("Mul", ["l", "n"], "o", {}),
        ("AveragePool", ["o"], "q", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("GlobalAveragePool", ["q"], "r", {}),
        ("Flatten", ["r"], "t", {}),
        ("Gemm", ["t", "g", "gb"], "y", {"transB": 1}),
    ]
    constants = [onnx.numpy_helper.from_array(v.astype(np.float32), n) for n, v in weights.items()]
    constants += [onnx.numpy_helper.from_array(np.array(v), n) for n, v in shapes.items()]
    constants += [
        onnx.numpy_helper.from_array(np.float32(v), n) for n, v in (("low", -1.0), ("high", 2.0))
    ]
    tensor = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        [helper.make_node(op, i, [o], **a) for op, i, o, a in nodes], "net",
        [helper.make_tensor_value_info("x", tensor, ["n", 6, 8, 8])],
        [helper.make_tensor_value_info("y", tensor, None)], constants,
    )  # fmt: skip
    path = tmp_path / "all.onnx"
    opsets = [helper.make_opsetid("", 20)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    session = make_runtime("mnn", {"batch": 2}).load(path)
    inputs = random_inputs(session.inputs, seed)
    (output,) = session(*inputs)
    (expected,) = make_runtime("onnxruntime", {"batch": 2}).load(path)(*inputs)
    np.testing.assert_allclose(output, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("height", [1, 7])
def test_height_and_width_are_not_mistaken_for_one_another(tmp_path, height):
    onnx = pytest.importorskip("onnx")
    helper, rng = onnx.helper, np.random.default_rng(0)
    tall = 3 if height > 1 else 1
    weight = rng.standard_normal((4, 3, tall, 5)).astype(np.float32)
    sizes = {"pads": [tall // 2, 4, tall // 2, 4], "strides": [1, 2], "dilations": [1, 2]}
    window = {"kernel_shape": [1, 3], "strides": [1, 2], "pads": [0, 1, 0, 1]}
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"], **sizes),
        helper.make_node("MaxPool", ["a"], ["b"], **window),
        helper.make_node("AveragePool", ["b"], ["c"], kernel_shape=[1, 2], strides=[1, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["y"]),
    ]
    floats = onnx.TensorProto.FLOAT
    graph = helper.make_graph(
        nodes, "g",
        [helper.make_tensor_value_info("x", floats, [1, 3, height, 40])],
        [helper.make_tensor_value_info("y", floats, [1, 4, 1, 1])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 21)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=10), tmp_path / "m.onnx")
    reference = make_runtime("onnxruntime").load(tmp_path / "m.onnx")
    session = make_runtime("mnn").load(tmp_path / "m.onnx")
    inputs = random_inputs(reference.inputs, 1)
    np.testing.assert_allclose(session(*inputs)[0], reference(*inputs)[0], rtol=1e-4, atol=1e-4)
