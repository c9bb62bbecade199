"""Operators of images in NumPy give what ONNX Runtime gives."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from devices.lowbit.floats import operation
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel

RNG = np.random.default_rng(0)


def values(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def whole(*numbers: int) -> np.ndarray:
    return np.array(numbers, np.int64)


X, SIGNAL = values(2, 6, 7, 9), values(2, 6, 11)
POOL = {"kernel_shape": [3, 2], "strides": [2, 3]}
CASES = [
    ("AveragePool", X, (), POOL),
    ("AveragePool", X, (), {**POOL, "pads": [1, 0, 1, 1]}),
    ("AveragePool", X, (), {**POOL, "pads": [1, 0, 1, 1], "count_include_pad": 1}),
    ("AveragePool", X, (), {**POOL, "pads": [1, 1, 1, 0], "ceil_mode": 1}),
    ("AveragePool", X, (), {**POOL, "ceil_mode": 1, "pads": [1, 1, 1, 1], "count_include_pad": 1}),
    ("AveragePool", SIGNAL, (), {"kernel_shape": [3], "strides": [2]}),
    ("MaxPool", X, (), {**POOL, "pads": [1, 1, 1, 0], "ceil_mode": 1}),
    ("MaxPool", X, (), {"kernel_shape": [2, 2], "dilations": [2, 1]}),
    ("ConvTranspose", X, (values(6, 4, 2, 2), values(4)), {"strides": [2, 2]}),
    (
        "ConvTranspose",
        X,
        (values(6, 4, 3, 4),),
        {"strides": [2, 3], "pads": [1, 0, 2, 1], "output_padding": [1, 0]},
    ),
    ("ConvTranspose", X, (values(6, 2, 3, 3),), {"group": 3, "dilations": [2, 1]}),
    ("ConvTranspose", X, (values(6, 2, 1, 1),), {"pads": [1, 1, 1, 1], "strides": [2, 2]}),
    ("Pad", X, (whole(0, 1, 2, 0, 0, 0, 1, 3), np.array(0.5, np.float32)), {}),
    ("Pad", X, (whole(0, 0, 2, -1, 0, 0, -1, 3),), {}),
    ("Pad", X, (whole(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "reflect"}),
    ("Pad", X, (whole(0, 0, 2, 1, 0, 0, 1, 3),), {"mode": "edge"}),
    ("Slice", X, (whole(1, -4), whole(9999, -1), whole(2, 3), whole(2, 1)), {}),
    ("Slice", X, (whole(-1), whole(-9999), whole(1), whole(-2)), {}),
    ("Slice", X, (whole(0, 2), whole(1, 4)), {}),
    ("DepthToSpace", values(2, 8, 3, 4), (), {"blocksize": 2}),
    ("DepthToSpace", values(2, 8, 3, 4), (), {"blocksize": 2, "mode": "CRD"}),
    ("SpaceToDepth", values(2, 3, 6, 4), (), {"blocksize": 2}),
    ("InstanceNormalization", X, (values(6), values(6)), {"epsilon": 1e-3}),
    ("BatchNormalization", X, (values(6), values(6), values(6), values(6) ** 2), {}),
    ("GroupNormalization", X, (values(6), values(6)), {"num_groups": 3}),
    ("PRelu", X, (values(6, 1, 1),), {}),
    ("ReduceMax", X, (whole(2, 3),), {"keepdims": 0}),
    ("ReduceSum", X, (whole(-1),), {}),
    ("ReduceL2", X, (whole(1),), {}),
    ("GlobalMaxPool", SIGNAL, (), {}),
    ("Squeeze", X[:1], (whole(0),), {}),
    ("Unsqueeze", X, (whole(1),), {}),
    ("Max", X, (values(9),), {}),
    *((op, X, (), {}) for op in ("LeakyRelu", "Elu", "Celu", "Selu", "Softplus", "Mish")),
    *((op, X, (), {}) for op in ("Softsign", "Abs", "Neg", "Exp", "Erf", "GlobalAveragePool")),
    ("Elu", X, (), {"alpha": 0.3}),
    ("Celu", X, (), {"alpha": 2.0}),
]


@pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c[0]}-{len(c[2])}-{'-'.join(c[3])}")
def test_it_is_what_onnx_runtime_computes(case):
    op, x, constants, attributes = case
    names = [f"c{i}" for i in range(len(constants))]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], ["y"], **attributes)],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, x.shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(c, n) for n, c in zip(names, constants, strict=True)],
    )
    opsets = [helper.make_opsetid("", 21)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=10)
    (expected,) = onnxruntime.InferenceSession(model.SerializeToString()).run(None, {"x": x})
    node = {"op": op, "output": "y", "attributes": attributes}
    found = operation(node, PackedModel({"nodes": []}, {}))(x, *constants)
    assert found.dtype == np.float32 and found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)


def test_what_is_not_there_is_named():
    node = {"op": "AveragePool", "output": "y", "attributes": {**POOL, "auto_pad": "SAME_UPPER"}}
    with pytest.raises(InputError, match="pads as numbers"):
        operation(node, PackedModel({"nodes": []}, {}))(X)
    with pytest.raises(InputError, match="no operation 'NonZero'"):
        operation({"op": "NonZero", "output": "y"}, PackedModel({"nodes": []}, {}))
