"""Files that reckon with sizes compute what ONNX Runtime computes, for any batch."""

from __future__ import annotations

import numpy as np
import pytest

from devices.runtimes.torch_graph import GraphModule
from search_spaces.errors import InputError

onnx = pytest.importorskip("onnx")
onnxruntime = pytest.importorskip("onnxruntime")
torch = pytest.importorskip("torch")

node = onnx.helper.make_node


def constant(name, values, kind=np.int64):
    return onnx.numpy_helper.from_array(np.array(values, kind), name)


RESHAPED = [
    node("Shape", ["x"], ["s"]),
    node("Gather", ["s", "zero"], ["batch"], axis=0),
    node("Unsqueeze", ["batch", "axis0"], ["first"]),
    node("Concat", ["first", "minus"], ["sizes"], axis=0),
    node("Reshape", ["x", "sizes"], ["y"]),
]
FILES = {
    "flattened": RESHAPED,
    "the first sizes": [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "axis0", "two"], ["head"]),
        node("Concat", ["head", "minus"], ["sizes"], axis=0),
        node("Reshape", ["x", "sizes"], ["y"]),
    ],
    "arithmetic": [
        node("Shape", ["x"], ["s"], start=1, end=2),
        node("Mul", ["s", "two"], ["twice"]),
        node("Div", ["twice", "two"], ["once"]),
        node("Sub", ["once", "one"], ["less"]),
        node("Add", ["less", "one"], ["channels"]),
        node("Concat", ["minus", "channels"], ["sizes"], axis=0),
        node("Reshape", ["x", "sizes"], ["y"]),
    ],
    "scaled by a size": [
        node("Shape", ["x"], ["s"]),
        node("Gather", ["s", "two_alone"], ["side"], axis=0),
        node("Cast", ["side"], ["float"], to=1),
        node("Sqrt", ["float"], ["root"]),
        node("Div", ["x", "root"], ["y"]),
    ],
    "scaled by a list of one size": [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "two", "three"], ["side"]),
        node("Cast", ["side"], ["float"], to=1),
        node("Sqrt", ["float"], ["root"]),
        node("Mul", ["x", "root"], ["y"]),
    ],
    "sizes in another shape": [
        node("Shape", ["x"], ["s"]),
        node("Slice", ["s", "axis0", "two"], ["head"]),
        node("ReduceProd", ["head"], ["count"], keepdims=0),
        node("Reshape", ["count", "one"], ["first"]),
        node("Concat", ["first", "minus"], ["sizes"], axis=0),
        node("Reshape", ["x", "sizes"], ["y"]),
    ],
    "expanded": [
        node("Shape", ["x"], ["s"]),
        node("Shape", ["s"], ["rank"]),
        node("ConstantOfShape", ["rank"], ["ones"], value=constant("", [1])),
        node("Mul", ["ones", "minus"], ["minuses"]),
        node("Equal", ["s", "minuses"], ["open"]),
        node("Where", ["open", "ones", "s"], ["sizes"]),
        node("Expand", ["half", "sizes"], ["z"]),
        node("Add", ["x", "z"], ["y"]),
    ],
    "made for the batch": [
        node("Shape", ["x"], ["s"], start=0, end=1),
        node("Concat", ["s", "one", "one", "one"], ["sizes"], axis=0),
        node("Expand", ["half", "sizes"], ["z"]),
        node("Concat", ["x", "x"], ["both"], axis=1),
        node("Add", ["both", "z"], ["y"]),
    ],
    "filled": [
        node("Shape", ["x"], ["s"]),
        node("ConstantOfShape", ["s"], ["z"], value=constant("", [0.25], np.float32)),
        node("Add", ["x", "z"], ["y"]),
    ],
}  # fmt: skip


def written(path, nodes):
    kind = onnx.TensorProto.FLOAT
    constants = [
        constant("zero", 0), constant("axis0", [0]), constant("minus", [-1]), constant("two", [2]),
        constant("one", [1]), constant("three", [3]), constant("two_alone", 2),
        constant("half", [0.5], np.float32),
    ]  # fmt: skip
    graph = onnx.helper.make_graph(
        nodes, "g",
        [onnx.helper.make_tensor_value_info("x", kind, ["n", 3, 4, 5])],
        [onnx.helper.make_tensor_value_info("y", kind, None)], constants,
    )  # fmt: skip
    opset = [onnx.helper.make_opsetid("", 17)]
    onnx.save(onnx.helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


@pytest.mark.parametrize("name", FILES)
def test_sizes_are_numbers(name, tmp_path):
    path = written(tmp_path / "m.onnx", FILES[name])
    module, session = GraphModule(path), onnxruntime.InferenceSession(str(path))
    for batch in (1, 2, 5):
        x = torch.randn(batch, 3, 4, 5)
        (expected,) = session.run(None, {"x": x.numpy()})
        np.testing.assert_allclose(module(x)[0].numpy(), expected, rtol=1e-6)


@pytest.mark.parametrize("name", ["flattened", "made for the batch"])
def test_the_batch_of_a_captured_file_may_vary(tmp_path, name):
    module = GraphModule(written(tmp_path / "m.onnx", FILES[name]))
    dynamic = ({0: torch.export.Dim.DYNAMIC},)
    program = torch.export.export(module, (torch.randn(2, 3, 4, 5),), dynamic_shapes=(dynamic,))
    x = torch.randn(7, 3, 4, 5)
    assert torch.equal(program.module()(x)[0], module(x)[0])


def test_what_is_no_arithmetic_on_sizes_is_named(tmp_path):
    nodes = [node("Equal", ["x", "half"], ["b"]), node("Where", ["b", "x", "half"], ["y"])]
    module = GraphModule(written(tmp_path / "m.onnx", nodes))
    with pytest.raises(InputError, match="Equal of tensors has no torch translation"):
        module(torch.randn(2, 3, 4, 5))
