"""Ways in which ONNX Runtime goes wrong without a word: each is found and said."""

import numpy as np
import pytest

from devices.device import DeviceSpec, LocalDevice
from devices.measuring.protocol import Protocol
from devices.runtime import make_runtime, random_inputs
from devices.runtimes import onnxruntime as module

onnx = pytest.importorskip("onnx")


def quantised_model(path, *, quantise_second=True):
    """Two convolutions in QDQ form; the second may be left in floats."""
    helper, tensor = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(0)
    nodes, initializers = [], []

    def constant(name, value):
        initializers.append(onnx.numpy_helper.from_array(value, name))
        return name

    def pair(x, name):
        grid = [constant(f"{name}.s", np.float32(0.05)), constant(f"{name}.z", np.uint8(128))]
        nodes.append(helper.make_node("QuantizeLinear", [x, *grid], [f"{name}.q"]))
        nodes.append(helper.make_node("DequantizeLinear", [f"{name}.q", *grid], [f"{name}.d"]))
        return f"{name}.d"

    def conv(x, name, inputs, outputs, quantised):
        codes = rng.integers(-60, 60, (outputs, inputs, 3, 3)).astype(np.int8)
        if quantised:
            scale = constant(f"{name}.ws", np.full(outputs, 0.01, np.float32))
            zero = constant(f"{name}.wz", np.zeros(outputs, np.int8))
            weight = constant(f"{name}.w", codes)
            node = helper.make_node(
                "DequantizeLinear", [weight, scale, zero], [f"{name}.wd"], axis=0
            )
            nodes.append(node)
            weight = f"{name}.wd"
        else:
            weight = constant(f"{name}.w", (codes * 0.01).astype(np.float32))
        nodes.append(helper.make_node("Conv", [x, weight], [name], pads=[1, 1, 1, 1]))
        return name

    x = conv(pair("x", "in"), "first", 3, 8, True)
    x = conv(pair(x, "mid"), "second", 8, 4, quantise_second)
    last = pair(x, "out") if quantise_second else x
    nodes.append(helper.make_node("Identity", [last], ["y"]))
    graph = helper.make_graph(
        nodes, "net",
        [helper.make_tensor_value_info("x", tensor.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", tensor.FLOAT, None)], initializers,
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


class Saturating:
    """The library on a processor without dot products: optimised sums are cut."""

    def __init__(self, library):
        self._library = library

    def __getattr__(self, name):
        return getattr(self._library, name)

    def InferenceSession(self, path, options, providers):
        session = self._library.InferenceSession(path, options, providers=providers)
        off = self._library.GraphOptimizationLevel.ORT_DISABLE_ALL
        return session if options.graph_optimization_level == off else Cut(session)


class Cut:
    def __init__(self, session):
        self._session = session

    def __getattr__(self, name):
        return getattr(self._session, name)

    def run(self, names, feed):
        return [np.clip(o, -0.3, 0.3) for o in self._session.run(names, feed)]


def doubts(path, monkeypatch, *, saturates, dot_products):
    monkeypatch.setattr(module, "has_dot_products", lambda: dot_products)
    runtime = make_runtime("onnxruntime")
    if saturates:
        runtime._library = Saturating(runtime._library)
    session = runtime.load(path)
    return session.doubts(*random_inputs(session.inputs, 0))


def test_saturation_is_found_without_dot_products(tmp_path, monkeypatch):
    path = quantised_model(tmp_path / "q.onnx")
    (found,) = doubts(path, monkeypatch, saturates=True, dot_products=False)
    assert "saturate" in found and "reduce_range" in found


def test_kernels_that_do_not_saturate_are_not_doubted(tmp_path, monkeypatch):
    path = quantised_model(tmp_path / "q.onnx")
    plain = make_runtime("onnxruntime", {"graph_optimization": "off"}).load(path)
    # An honest optimised session: the unoptimised outputs.
    monkeypatch.setattr(
        module._OnnxSession,
        "__call__",
        lambda self, *a: tuple(plain._session.run(None, plain._feed(a))),
    )
    assert doubts(path, monkeypatch, saturates=False, dot_products=False) == []


def test_dot_products_make_the_comparison_needless(tmp_path, monkeypatch):
    path = quantised_model(tmp_path / "q.onnx")
    assert doubts(path, monkeypatch, saturates=True, dot_products=True) == []


@pytest.mark.parametrize(
    ("quantise_second", "expected"), [(True, {"int8": 2}), (False, {"int8": 1, "float32": 1})]
)
def test_products_left_in_floats_are_counted(tmp_path, quantise_second, expected):
    path = quantised_model(tmp_path / "q.onnx", quantise_second=quantise_second)
    assert make_runtime("onnxruntime").load(path).arithmetic() == expected


def test_a_fall_back_to_floats_is_told_once_a_device_and_kept_with_each(tmp_path, caplog):
    path = quantised_model(tmp_path / "q.onnx", quantise_second=False)
    other = quantised_model(tmp_path / "r.onnx", quantise_second=False)
    quick = Protocol(processes=2, runs=3, retries=0, warmup_max_s=0.1, min_sample_ms=0.1)
    device = LocalDevice(DeviceSpec("here", "onnxruntime", 1, 1, {}, None))
    for file in (path, other):
        (found,) = device.measure([file], protocol=quick)
        assert found.conditions["arithmetic"] == {"int8": 1, "float32": 1}
        (doubt,) = [d for d in found.conditions["doubts"] if "float32" in d]
        assert "1 of 2 products" in doubt
    assert caplog.text.count(doubt) == 1


def test_a_float_file_has_nothing_to_fall_back_from(make_model):
    assert make_runtime("onnxruntime").load(make_model()).arithmetic() is None
