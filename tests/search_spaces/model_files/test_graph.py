"""An ONNX file as frozen data: what is folded, what a constant is stored as, what is refused."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.model_files import folding
from search_spaces.model_files.graph import graph_of, read_graph

onnx = pytest.importorskip("onnx")
reference = pytest.importorskip("onnx.reference")
helper, kinds = onnx.helper, onnx.TensorProto


def make(nodes, constants, *, inputs=("x",), outputs=("y",), opset=21):
    """A model of nodes (operator, inputs, outputs, attributes) and arrays or tensors."""
    stored = [
        value if isinstance(value, onnx.TensorProto) else onnx.numpy_helper.from_array(value, name)
        for name, value in constants.items()
    ]
    graph = helper.make_graph(
        [
            helper.make_node(op, list(read), list(made), name=made[0], **a)
            for op, read, made, a in nodes
        ],
        "g",
        [helper.make_tensor_value_info(name, kinds.FLOAT, ["n", 3]) for name in inputs],
        [helper.make_tensor_value_info(name, kinds.FLOAT, None) for name in outputs],
        stored,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def evaluated(model, name):
    """What the ONNX library's own evaluator makes of a constant."""
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    del probe.graph.node[-1], probe.graph.output[:]
    probe.graph.output.append(onnx.ValueInfoProto(name=name))
    feeds = {i.name: np.zeros((1, 3), np.float32) for i in probe.graph.input}
    return reference.ReferenceEvaluator(probe).run(None, feeds)[0]


def small(kind, values):
    values = np.asarray(values)
    return helper.make_tensor("w", kind, values.shape, values.ravel())


FORMS = {
    "by channel": (
        [("DequantizeLinear", ("w", "s", "z"), ("f",), {"axis": 0})],
        {
            "w": np.array([[1, -2, 3], [4, 5, -6]], np.int8),
            "s": np.array([0.5, 0.25], np.float32),
            "z": np.array([0, 1], np.int8),
        },
    ),
    "4 bits": (
        [("DequantizeLinear", ("w", "s"), ("f",), {})],
        {"w": small(kinds.INT4, [[1, -8, 7], [0, 5, -6]]), "s": np.float32(0.3)},
    ),
    "blocks": (
        [("DequantizeLinear", ("w", "s"), ("f",), {"axis": 1, "block_size": 2})],
        {
            "w": np.array([[1, -2, 3], [4, 5, -6]], np.int8),
            "s": np.array([[0.5, 0.25], [2.0, 3.0]], np.float32),
        },
    ),
    "float8": (
        [("DequantizeLinear", ("w", "s"), ("f",), {})],
        {"w": small(kinds.FLOAT8E4M3FN, [[1.5, -448, 0.25]]), "s": np.float32(0.5)},
    ),
    "turned": (
        [
            ("DequantizeLinear", ("w", "s"), ("d",), {"axis": 0}),
            ("Transpose", ("d",), ("f",), {"perm": [1, 0]}),
        ],
        {"w": np.array([[1, -2, 3], [4, 5, -6]], np.int8), "s": np.array([0.5, 2], np.float32)},
    ),
    "a factor of each channel": (
        [
            ("Cast", ("w",), ("i",), {"to": kinds.INT32}),
            ("Mul", ("i", "by"), ("p",), {}),
            ("Cast", ("p",), ("c",), {"to": kinds.INT8}),
            ("DequantizeLinear", ("c", "s"), ("f",), {"axis": 0}),
        ],
        {
            "w": np.array([[1, -2, 3], [4, 5, -6]], np.int8),
            "by": np.array([[2], [3]], np.int32),
            "s": np.array([0.5, 2], np.float32),
        },
    ),
    "cast and scaled": (
        [
            ("Cast", ("w",), ("i",), {"to": kinds.FLOAT}),
            ("Mul", ("i", "s"), ("f",), {}),
        ],
        {"w": np.array([[1, -2, 3]], np.int8), "s": np.array([[0.3]], np.float32)},
    ),
    "taken apart": (
        [
            ("BitShift", ("w", "by"), ("b",), {"direction": "RIGHT"}),
            ("BitwiseAnd", ("b", "mask"), ("a",), {}),
            ("Cast", ("a",), ("wide",), {"to": kinds.INT32}),
            ("Sub", ("wide", "zero"), ("i",), {}),
            ("Split", ("i", "sizes"), ("first", "second"), {"axis": 1}),
            ("Reshape", ("second", "shape"), ("r",), {}),
            ("Cast", ("r",), ("c",), {"to": kinds.FLOAT}),
            ("Mul", ("c", "s"), ("f",), {}),
        ],
        {
            "w": np.array([0x8F, 0x3C, 0x70, 0x05, 0xA1], np.uint8),
            "by": np.array([[0], [4]], np.uint8),
            "mask": np.uint8(15),
            "zero": np.int32(8),
            "sizes": np.array([2, 3]),
            "shape": np.array([-1, 3]),
            "s": np.array([[0.3], [0.5]], np.float32),
        },
    ),
    "quantised in the file": (
        [
            ("QuantizeLinear", ("v", "s", "z"), ("q",), {"axis": 0}),
            ("DequantizeLinear", ("q", "s", "z"), ("f",), {"axis": 0}),
        ],
        {
            "v": np.array([[0.26, -0.74, 90], [1, 1.4, -9]], np.float32),
            "s": np.array([0.5, 2], np.float32),
            "z": np.array([0, 0], np.int8),
        },
    ),
    "looked up": (
        [
            ("Cast", ("w",), ("i",), {"to": kinds.INT32}),
            ("Mod", ("i", "n"), ("r",), {}),
            ("Gather", ("table", "r"), ("t",), {}),
            ("Expand", ("s", "wide"), ("e",), {}),
            ("Reshape", ("e", "flat"), ("l",), {}),
            ("Slice", ("l", "from", "to", "axes"), ("k",), {}),
            ("Unsqueeze", ("k", "axes"), ("u",), {}),
            ("Mul", ("t", "u"), ("f",), {}),
        ],
        {
            "w": np.array([[1, -2, 3]], np.int8),
            "n": np.int32(4),
            "table": np.array([0, 0.5, 1.5, 4], np.float32),
            "s": np.array([[0.5], [2]], np.float32),
            "wide": np.array([2, 2]),
            "flat": np.array([-1]),
            "from": np.array([0]),
            "to": np.array([3]),
            "axes": np.array([0]),
        },
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_weight_is_what_the_onnx_library_makes_of_it(form):
    nodes, constants = FORMS[form]
    model = make([*nodes, ("Add", ("x", "f"), ("y",), {})], constants)
    graph = graph_of(model)
    assert graph.is_constant("f") and not graph.is_constant("y")
    found = graph.constant("f")
    np.testing.assert_array_equal(found, evaluated(model, "f"))
    assert found.dtype == np.float32
    assert ("f" in graph.computed) == (form == "looked up")
    assert ("f" in graph.codes) == (form != "looked up")
    if "f" in graph.codes:
        np.testing.assert_array_equal(graph.codes["f"].floats(), found)
        symmetric = form not in ("by channel", "blocks", "float8")
        assert graph.codes["f"].symmetric == symmetric
    # What dequantises stays among the nodes, for runtimes that do it themselves.
    assert {node.op for node in graph.nodes} <= {"Add", "DequantizeLinear", "Transpose"}


def test_codes_of_a_weight_are_those_before_its_factor_and_after_its_transposition():
    nodes, constants = FORMS["a factor of each channel"]
    graph = graph_of(make([*nodes, ("Add", ("x", "f"), ("y",), {})], constants))
    np.testing.assert_array_equal(graph.codes["f"].factored, constants["w"])
    np.testing.assert_array_equal(graph.codes["f"].codes, constants["w"] * constants["by"])
    nodes, constants = FORMS["turned"]
    found = graph_of(make([*nodes, ("Add", ("x", "f"), ("y",), {})], constants)).codes["f"]
    assert found.axis == 1 and found.codes.shape == (3, 2)
    back = found.transposed([1, 0])
    assert back.axis == 0
    np.testing.assert_array_equal(back.codes, constants["w"])


def test_bytes_that_are_taken_apart_are_codes_of_their_width():
    nodes, constants = FORMS["taken apart"]
    graph = graph_of(make([*nodes, ("Add", ("x", "f"), ("y",), {})], constants))
    assert graph.codes["f"].kind == "int4" and graph.codes["f"].codes.dtype == np.int8
    np.testing.assert_array_equal(graph.codes["f"].codes, [[-8, -3, -7], [-1, -8, 2]])
    constants = {**constants, "zero": np.int32(7)}
    graph = graph_of(make([*nodes, ("Add", ("x", "f"), ("y",), {})], constants))
    assert graph.codes["f"].kind == "int32" and "f" in graph.computed


def test_parts_that_do_not_make_the_whole_are_refused():
    nodes, constants = FORMS["taken apart"]
    constants = {**constants, "sizes": np.array([2, 4])}
    with pytest.raises(InputError, match=r"Split of constants .* parts of \[2, 4\] do not make 5"):
        graph_of(make([*nodes, ("Add", ("x", "f"), ("y",), {})], constants))


def quantised_input(zero, **attributes):
    nodes = [
        ("QuantizeLinear", ("x", "s", "z")[: 3 if zero is not None else 2], ("q",), attributes),
        ("DequantizeLinear", ("q", "s", "z")[: 3 if zero is not None else 2], ("y",), {}),
    ]
    constants = {"s": np.float32(0.1)} | ({} if zero is None else {"z": zero})
    return graph_of(make(nodes, constants))


def test_grids_say_type_and_zero_point():
    grid = quantised_input(np.uint8(3)).grids["q"]
    assert grid.described() == {"scale": float(np.float32(0.1)), "zero_point": 3, "bits": 8}
    assert not grid.from_lowest()
    assert quantised_input(np.uint16(0)).grids["q"].described()["bits"] == 16
    lowest = helper.make_tensor("z", kinds.INT4, (), [-8])
    assert quantised_input(lowest).grids["q"].from_lowest()
    assert not quantised_input(np.int8(0)).grids["q"].from_lowest()
    default = quantised_input(None).grids["q"]
    assert default.kind == "uint8" and default.from_lowest()
    named = quantised_input(None, output_dtype=kinds.INT8).grids["q"]
    assert named.kind == "int8" and not named.from_lowest()
    # Without a zero point of its own, what dequantises has the type of what it reads.
    assert quantised_input(None, output_dtype=kinds.INT8).grids["y"].kind == "int8"
    # So has what dequantises a constant; what quantises such values again has its own default.
    nodes = [
        ("DequantizeLinear", ("w", "s"), ("f",), {}),
        ("Add", ("x", "f"), ("a",), {}),
        ("QuantizeLinear", ("a", "s", "z"), ("q",), {}),
        ("DequantizeLinear", ("q", "s"), ("d",), {}),
        ("QuantizeLinear", ("d", "s"), ("y",), {}),
    ]
    constants = {"w": np.ones((1, 3), np.int8), "s": np.float32(1), "z": np.int8(0)}
    found = graph_of(make(nodes, constants)).grids
    assert {name: found[name].kind for name in "fqdy"} == {
        "f": "int8", "q": "int8", "d": "int8", "y": "uint8"
    }  # fmt: skip
    float8 = quantised_input(helper.make_tensor("z", kinds.FLOAT8E4M3FN, (), [0.0])).grids["q"]
    assert float8.kind == "float8_e4m3fn" and not float8.from_lowest()


def test_who_makes_and_who_reads_a_tensor():
    nodes = [
        ("Relu", ("x",), ("r",), {}),
        ("Add", ("r", "r"), ("a",), {}),
        ("Mul", ("a", "r"), ("y",), {}),
    ]
    graph = graph_of(make(nodes, {}))
    assert [node.op for node in graph.users["r"]] == ["Add", "Mul"]
    assert graph.makers["a"].op == "Add" and "x" not in graph.makers
    assert graph.inputs == ("x",) and graph.shapes["x"] == (None, 3)
    assert not graph.quantised and not graph.rounds
    assert quantised_input(np.uint8(0)).rounds


def test_the_graph_does_not_change():
    graph = quantised_input(np.uint8(0))
    with pytest.raises(dataclasses.FrozenInstanceError):
        graph.nodes = ()
    with pytest.raises(TypeError):
        graph.constants["s"] = np.float32(1)


def test_a_few_bytes_cannot_ask_for_any_memory(monkeypatch):
    monkeypatch.setattr(folding, "LARGEST", 100)
    nodes = [
        ("Mul", ("a", "b"), ("p",), {}),
        ("Expand", ("a", "wide"), ("e",), {}),
        ("Gather", ("a", "rows"), ("g",), {}),
        ("Sum", ("p", "e", "g"), ("y",), {}),
    ]
    constants = {
        "a": np.ones((20, 1), np.float32),
        "b": np.ones((1, 20), np.float32),
        "wide": np.array([1 << 40, 20, 1]),
        "rows": np.zeros((8, 16), np.int64),
    }
    graph = graph_of(make(nodes, constants))
    assert [node.op for node in graph.nodes] == ["Mul", "Expand", "Gather", "Sum"]


@pytest.mark.parametrize(
    ("op", "inputs", "attributes"),
    [
        ("Mul", ("w", ""), {}),
        ("Cast", ("w",), {}),
        ("Cast", ("w",), {"to": 99}),
        ("Reshape", ("w", ""), {}),
        ("Constant", (), {"value_float": "text"}),
        ("Transpose", ("d",), {"perm": [0, 5]}),
        ("DequantizeLinear", ("w", "text"), {}),
        ("DequantizeLinear", ("w", "s"), {"axis": "text"}),
        ("QuantizeLinear", ("text", "one"), {}),
    ],
)
def test_whatever_constants_do_not_fit_is_refused_by_name(op, inputs, attributes):
    constants = {
        "w": np.ones((2, 3), np.int8),
        "s": np.ones(2, np.float32),
        "one": np.float32(1),
        "text": np.array(["a"], dtype=object),
    }
    before = ("DequantizeLinear", ("w", "s"), ("d",), {"axis": 0})
    with pytest.raises(InputError, match=rf"{op} of constants \(f\) cannot be computed"):
        graph_of(make([before, (op, inputs, ("f",), attributes)], constants))


def test_types_that_are_not_known_are_refused_by_name():
    unknown = onnx.TensorProto(name="w", data_type=99, dims=[1], raw_data=b"1234")
    with pytest.raises(InputError, match="the constant 'w' cannot be read"):
        graph_of(make([("Relu", ("x",), ("y",), {})], {"w": unknown}))
    model = make([("Relu", ("x",), ("y",), {})], {})
    model.graph.input[0].CopyFrom(onnx.ValueInfoProto(name="x"))
    with pytest.raises(InputError, match="the input 'x' has no known type"):
        graph_of(model)


def test_files_that_do_not_fit_themselves_are_refused(tmp_path):
    scales = {"w": np.ones((2, 3), np.int8), "s": np.ones(5, np.float32)}
    with pytest.raises(InputError, match="f: 5 scales do not fit axis 0"):
        graph_of(make([("DequantizeLinear", ("w", "s"), ("f",), {"axis": 0})], scales))
    zeros = scales | {"s": np.ones(2, np.float32), "z": np.zeros(3, np.int8)}
    with pytest.raises(InputError, match="f: 2 scales, and 3 zero points"):
        graph_of(make([("DequantizeLinear", ("w", "s", "z"), ("f",), {"axis": 0})], zeros))
    with pytest.raises(InputError, match=r"Mul of constants \(f\) cannot be computed"):
        graph_of(make([("Mul", ("w", "s"), ("f",), {})], scales))
    model = make([("Add", ("x", "w"), ("y",), {})], {"w": np.ones(2000, np.float32)})
    torn = onnx.ModelProto()
    torn.CopyFrom(model)
    torn.graph.initializer[0].raw_data = b"1234"
    with pytest.raises(InputError, match="the constant 'w' cannot be read"):
        graph_of(torn)
    onnx.save(model, tmp_path / "m.onnx", save_as_external_data=True, location="elsewhere.data")
    with pytest.raises(InputError, match="'w' lies in another file"):
        read_graph(tmp_path / "m.onnx")
    (tmp_path / "m.onnx").write_bytes(b"text")
    with pytest.raises(InputError, match="no ONNX model"):
        read_graph(tmp_path / "m.onnx")
