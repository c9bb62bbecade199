"""Windows, their pads, and older operator sets give in torch what they give in ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")

from devices.runtimes.torch_graph import GraphModule  # noqa: E402
from search_spaces.errors import InputError  # noqa: E402

RNG = np.random.default_rng(0)
NONE = None


def some(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def ints(*values: int) -> np.ndarray:
    return np.array(values, np.int64)


WEIGHT, UP, LINE = some(4, 3, 3, 3), some(3, 4, 3, 3), some(4, 3, 5)
SAME = [{"auto_pad": mode} for mode in ("SAME_UPPER", "SAME_LOWER", "VALID")]
WINDOWS: list[tuple[str, tuple[int, ...], list[np.ndarray], dict[str, Any]]] = [
    *(("Conv", (2, 3, 7, 8), [WEIGHT], {**pad, "strides": [2, 2]}) for pad in SAME),
    *(("Conv", (2, 3, 9), [LINE], {**pad, "strides": [2], "dilations": [1]}) for pad in SAME),
    *(("MaxPool", (2, 3, 7, 8), [], {**pad, "kernel_shape": [3, 2], "strides": [2, 2]})
      for pad in SAME),
    *(("AveragePool", (2, 3, 7, 8), [], {**pad, "kernel_shape": [3, 3], "strides": [2, 2]})
      for pad in SAME),
    ("MaxPool", (2, 3, 8), [], {"kernel_shape": [3], "strides": [2], "pads": [0, 1]}),
    ("AveragePool", (2, 3, 8), [], {"kernel_shape": [4], "strides": [2], "pads": [1, 2]}),
    ("AveragePool", (2, 3, 8, 8), [],
     {"kernel_shape": [3, 3], "pads": [0, 0, 1, 1], "count_include_pad": 1}),
    ("MaxPool", (2, 3, 8, 8), [],
     {"kernel_shape": [2, 2], "strides": [2, 1], "pads": [1, 1, 1, 1], "dilations": [1, 2]}),
    ("AveragePool", (2, 3, 8, 8), [],
     {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1], "ceil_mode": 1}),
    ("ConvTranspose", (2, 3, 4, 4), [UP, some(4)],
     {"strides": [2, 2], "pads": [1, 1, 1, 1], "output_padding": [1, 1]}),
    ("ConvTranspose", (2, 3, 4, 5), [UP], {"strides": [2, 2], "pads": [0, 0, 1, 1]}),
    *(("ConvTranspose", (2, 3, 4, 5), [UP], {**pad, "strides": [2, 2]}) for pad in SAME),
    ("ConvTranspose", (2, 3, 4, 5), [UP], {"strides": [2, 2], "output_shape": [8, 9]}),
    ("GlobalAveragePool", (2, 3, 9), [], {}),
    ("GlobalMaxPool", (2, 3, 9), [], {}),
]  # fmt: skip

_HALF = {"coordinate_transformation_mode": "half_pixel"}
_CORNERS = {"coordinate_transformation_mode": "align_corners"}
_FLOOR = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
TWICE = np.array([1, 1, 2, 3], np.float32)
RESIZED: list[tuple[np.ndarray | None, np.ndarray | None, dict[str, Any]]] = [
    (TWICE, NONE, {"mode": "linear", **_HALF}),
    (NONE, ints(2, 3, 7, 5), {"mode": "linear", **_HALF}),
    (NONE, ints(2, 3, 7, 5), {"mode": "linear", **_CORNERS}),
    (NONE, ints(2, 3, 7, 5), {"mode": "cubic", **_HALF}),
    (TWICE, NONE, {"mode": "nearest", **_FLOOR}),
    (NONE, ints(2, 3, 7, 5), {"mode": "nearest", **_FLOOR}),
    (TWICE, NONE, {"mode": "nearest", **_HALF}),
]

OLDER: list[tuple[str, int, tuple[int, ...], dict[str, Any]]] = [
    ("Squeeze", 11, (2, 1, 3, 1), {"axes": [1, 3]}),
    ("Unsqueeze", 11, (2, 3), {"axes": [1, -1]}),
    ("Split", 11, (2, 5, 3), {"axis": 1, "split": [1, 4]}),
    ("Slice", 9, (2, 5, 3), {"starts": [1, 0], "ends": [4, 2], "axes": [1, 2]}),
    ("Slice", 9, (2, 5, 3), {"starts": [0, 1], "ends": [1, 4]}),
    ("Pad", 10, (2, 3, 4, 4), {"pads": [0, 0, 1, 1, 0, 0, 0, 2], "value": 0.5}),
    ("ReduceSum", 11, (2, 3, 4), {"axes": [1], "keepdims": 0}),
    ("ReduceMean", 13, (2, 3, 4), {"axes": [-1]}),
    ("Softmax", 11, (2, 3, 4), {}),
    ("Softmax", 11, (2, 3, 4), {"axis": 2}),
    ("LogSoftmax", 9, (2, 3, 4), {"axis": 1}),
    ("Softmax", 13, (2, 3, 4), {"axis": 1}),
    ("Transpose", 13, (2, 3, 4), {}),
    ("Clip", 6, (2, 3), {"min": -0.5, "max": 0.5}),
]


def check(
    folder: Path, op: str, x: np.ndarray, constants: list[np.ndarray | None],
    attributes: dict[str, Any], *, opset: int = 18, outputs: int = 1,
) -> None:  # fmt: skip
    """Assert that torch gives what ONNX Runtime gives."""
    helper = onnx.helper
    names = ["" if c is None else f"c{i}" for i, c in enumerate(constants)]
    made = [f"y{i}" for i in range(outputs)]
    graph = helper.make_graph(
        [helper.make_node(op, ["x", *names], made, **attributes)],
        "one",
        [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, list(x.shape))],
        [onnx.helper.make_empty_tensor_value_info(name) for name in made],
        [onnx.numpy_helper.from_array(c, n) for c, n in zip(constants, names, strict=True) if n],
    )
    path = folder / "one.onnx"
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    expected = session.run(None, {"x": x})
    found = GraphModule(path)(torch.from_numpy(x))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.numpy(), other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", range(len(WINDOWS)))
def test_a_window_with_its_pads(case, tmp_path):
    op, shape, constants, attributes = WINDOWS[case]
    check(tmp_path, op, some(*shape), constants, attributes)


@pytest.mark.parametrize("case", range(len(RESIZED)))
def test_resizing(case, tmp_path):
    scales, sizes, attributes = RESIZED[case]
    inputs = [None, scales] if sizes is None else [None, None, sizes]
    check(tmp_path, "Resize", some(2, 3, 4, 4), inputs, attributes)


@pytest.mark.parametrize("case", range(len(OLDER)))
def test_an_older_operator_set(case, tmp_path):
    op, opset, shape, attributes = OLDER[case]
    outputs = 2 if op == "Split" else 1
    check(tmp_path, op, some(*shape), [], attributes, opset=opset, outputs=outputs)


def test_resizing_that_torch_does_otherwise_is_refused(tmp_path):
    odd = {"mode": "nearest", **_HALF}
    with pytest.raises(InputError, match=r"Resize of 4 axes in the form nearest, half_pixel"):
        check(tmp_path, "Resize", some(2, 3, 4, 4), [None, None, ints(2, 3, 7, 5)], odd)


def test_gemm_has_factors(tmp_path):
    constants = [some(4, 5), some(5)]
    check(tmp_path, "Gemm", some(2, 4), constants, {"alpha": 0.5, "beta": 2.0}, opset=13)


def test_gather_keeps_the_shape_of_its_indices(tmp_path):
    check(tmp_path, "Gather", some(2, 5, 3), [ints(0, 4, 1, 1).reshape(2, 2)], {"axis": 1})
