"""Operators of files from elsewhere give in torch what they give in ONNX Runtime."""

from __future__ import annotations

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from devices.runtimes.torch_graph import GraphModule  # noqa: E402
from devices.runtimes.torch_graph_operators import OPERATORS  # noqa: E402

RNG = np.random.default_rng(0)


def some(*shape: int, least: float | None = None) -> np.ndarray:
    values = RNG.normal(size=shape).astype(np.float32)
    return values if least is None else np.abs(values) + np.float32(least)


CASES = {
    "BatchNormalization": ([some(3), some(3), some(3), some(3, least=0.1)], {"epsilon": 1e-3}),
    "InstanceNormalization": ([some(3), some(3)], {}),
    "PRelu": ([some(3, 1, 1)], {}),
    "GroupNormalization": ([some(3), some(3)], {"num_groups": 3}),
    "SpaceToDepth": ([], {"blocksize": 2}),
    "Pad": ([np.array([0, 0, 1, 2, 0, 0, 0, 1], np.int64), np.float32(1.5)], {}),
    "Expand": ([np.array([2, 3, 4, 4], np.int64)], {}),
    "Tile": ([np.array([1, 2, 1, 3], np.int64)], {}),
    "Einsum": ([some(3, 5)], {"equation": "bchw,ck->bkh"}),
    "DepthToSpace": ([], {"blocksize": 2}),
    "DepthToSpace as torch does": ([], {"blocksize": 2, "mode": "CRD"}),
    "ReduceSum": ([np.array([2, 3], np.int64)], {"keepdims": 0}),
    "ReduceMax": ([np.array([1], np.int64)], {}),
    "ReduceMin": ([np.array([1], np.int64)], {}),
    "LeakyRelu": ([], {"alpha": 0.2}),
    "Elu": ([], {"alpha": 0.7}),
    "LogSoftmax": ([], {"axis": 1}),
}
POSITIVE = ("Log", "Reciprocal")


@pytest.mark.parametrize("name", [*sorted({*OPERATORS, *CASES})])
def test_an_operator_is_what_the_runtime_computes(name, tmp_path):
    constants, attributes = CASES.get(name, ([], {}))
    x = some(2, 3, 4, 4, least=0.1 if name in POSITIVE else None)
    x = x[:1] if name == "Expand" else x
    x = some(2, 12, 4, 4) if name.startswith("DepthToSpace") else x
    names = [f"c{i}" for i in range(len(constants))]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node(name.split()[0], ["x", *names], ["y"], **attributes)],
        "one",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x.shape))],
        [onnx.helper.make_empty_tensor_value_info("y")],
        [
            onnx.numpy_helper.from_array(np.asarray(c), n)
            for c, n in zip(constants, names, strict=True)
        ],
    )
    path = tmp_path / "one.onnx"
    # GroupNormalization has a scale for each channel from 21 on.
    opset = [onnx.helper.make_opsetid("", 21 if name == "GroupNormalization" else 18)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=10), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})[0]
    found = GraphModule(path)(torch.from_numpy(x))[0].numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
