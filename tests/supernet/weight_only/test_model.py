"""A float ONNX whose linear layers get few bits: in the low-bit runtime and in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import read_packed_model, write_packed_model
from supernet.weight_only.model import WeightOnly, quantise_linear, with_grouped

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper, numpy_helper  # noqa: E402

from search_spaces.model_files.packing import pack_model  # noqa: E402
from supernet.onnx.weight_only import linear_inputs, with_nbits  # noqa: E402


@pytest.fixture(scope="module")
def float_model():
    """Gemm, Relu, and a MatMul with a bias of its own."""
    rng = np.random.default_rng(0)
    arrays = {
        "w1": rng.normal(0, 0.2, (96, 64)),
        "b1": rng.normal(0, 0.1, 96),
        "w2": rng.normal(0, 0.2, (96, 10)),
        "b2": rng.normal(0, 0.1, 10),
    }
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], "first", transB=1),
        helper.make_node("Relu", ["h"], ["r"]),
        helper.make_node("MatMul", ["r", "w2"], ["p"], "second"),
        helper.make_node("Add", ["p", "b2"], ["y"]),
    ]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("x", TensorProto.FLOAT, ["batch", 64])],
        [value("y", TensorProto.FLOAT, ["batch", 10])],
        [numpy_helper.from_array(v.astype(np.float32), k) for k, v in arrays.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.fixture(scope="module")
def samples():
    return np.random.default_rng(1).normal(0, 1, (50, 64)).astype(np.float32)


def run_onnx(model, x):
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(None, {"x": x})[0]


def run_lowbit(model, x, tmp_path):
    """Written, mapped and run."""
    build = pytest.importorskip("devices.lowbit.build")
    try:
        build.find_compiler()
    except Exception as error:  # pragma: no cover
        pytest.skip(str(error))
    from devices.lowbit.network import LowBitNetwork

    path = tmp_path / "model.lowbit"
    write_packed_model(path, model)
    network = LowBitNetwork(read_packed_model(path), batch=len(x), rounds=0)
    assert not {"linear", "MatMul"} & set(network.float_operations)
    return network.run(x).copy()


def nearness(got, exact):
    return float(np.square(got - exact).mean() / np.square(exact).mean())


@pytest.mark.parametrize(
    "how",
    [
        WeightOnly(4, 32),
        WeightOnly(2, 32, "gptq"),
        WeightOnly(4, 32, "awq_gptq"),
        WeightOnly(2, 32, ternary=True),
    ],
    ids=str,
)
def test_both_runtimes_compute_what_the_weights_say(how, float_model, samples, tmp_path):
    packed = pack_model(float_model)
    names = {n["layer"] for n in packed.nodes() if n["op"] == "linear"}
    inputs = linear_inputs(float_model, samples, names)
    weights = quantise_linear(packed, how, inputs=inputs)
    assert set(weights) == names == {"first", "second"}
    exact = run_onnx(float_model, samples)
    in_onnx = run_onnx(with_nbits(float_model, weights), samples)
    in_lowbit = run_lowbit(with_grouped(packed, weights), samples, tmp_path)
    # The same weights; activations in 8 bits, by row here, by block there.
    assert nearness(in_lowbit, in_onnx) < 2e-3
    assert nearness(in_lowbit, exact) < (0.02 if how.bits == 4 else 0.4)


@pytest.mark.parametrize(
    "how",
    [WeightOnly(3, 32), WeightOnly(2, 32, "planes"), WeightOnly(1, 0, "onebit"), WeightOnly(1, 32)],
    ids=str,
)
def test_forms_that_onnx_has_not_run_here(how, float_model, samples, tmp_path):
    packed = pack_model(float_model)
    weights = quantise_linear(packed, how)
    model = with_grouped(packed, weights)
    first = np.maximum(samples @ weights["first"].dequantised().T + weights["first"].bias, 0)
    exact = first @ weights["second"].dequantised().T + weights["second"].bias
    assert nearness(run_lowbit(model, samples, tmp_path), exact) < 2e-3
    with pytest.raises(InputError, match="MatMulNBits"):
        with_nbits(float_model, weights)


def nbits_fields(blob: np.ndarray, bits: int, channels: int) -> np.ndarray:
    """Return the fields, uint8 (outputs, channels), of an operator's ``B``."""
    many = 8 // bits
    shifts = np.arange(many, dtype=np.uint8) * np.uint8(bits)
    parts = (blob.reshape(len(blob), -1, 1) >> shifts) & np.uint8(2**bits - 1)
    return parts.reshape(len(blob), -1)[:, :channels]


def test_the_blob_of_fields_is_read_back():
    from supernet.onnx.weight_only import nbits_blob

    fields = np.random.default_rng(0).integers(0, 4, (5, 64)).astype(np.uint8)
    np.testing.assert_array_equal(nbits_fields(nbits_blob(fields, 2, 32), 2, 64), fields)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda m: WeightOnly(4, 32, "best"), "no method 'best'"),
        (lambda m: WeightOnly(5, 32), "1 to 4 bits, not 5"),
        (lambda m: WeightOnly(4, 32, ternary=True), "ternary codes have 2 bits"),
        (lambda m: WeightOnly(1, 32, "onebit"), "group: 0"),
        (
            lambda m: quantise_linear(m, WeightOnly(4, 128)),
            "layer first: groups of 128 do not divide 64 channels of a layer; use 32 or 64",
        ),
        (lambda m: quantise_linear(m, WeightOnly(4, 32, "gptq")), "needs inputs"),
        (
            lambda m: quantise_linear(m, WeightOnly(4, 32), skip=frozenset({"third"})),
            "no float linear layer 'third'; there are first, second",
        ),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(make, message, float_model):
    with pytest.raises(InputError, match=message):
        make(pack_model(float_model))
