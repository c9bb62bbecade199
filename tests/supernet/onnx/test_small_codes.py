"""Codes of 2 and 4 bits in bytes are the same codes after loading, alone and together."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from search_spaces.model_files.graph import graph_of
from supernet.onnx import small_codes
from supernet.onnx.graph import GraphBuilder


def made(layers: list[np.ndarray], bits: list[int]) -> tuple[onnx.ModelProto, list[str]]:
    """A graph that adds an input to each layer's codes."""
    graph = GraphBuilder()
    names = [graph.packed(codes, width) for codes, width in zip(layers, bits, strict=True)]
    outputs = [graph.node("Add", [name, "x"]) for name in names]
    graph.finish(outputs)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "g",
            [helper.make_tensor_value_info("x", TensorProto.INT32, [])],
            [
                helper.make_tensor_value_info(name, TensorProto.INT32, codes.shape)
                for name, codes in zip(outputs, layers, strict=True)
            ],
            graph.initializers,
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=10,
    )
    onnx.checker.check_model(model, full_check=True)
    return model, names


def random_layers(shapes, bits, seed: int) -> list[np.ndarray]:
    rng = np.random.default_rng(seed)
    return [
        rng.integers(-(2 ** (width - 1)), 2 ** (width - 1), shape)
        for shape, width in zip(shapes, bits, strict=True)
    ]


def assert_codes(layers: list[np.ndarray], bits: list[int]) -> onnx.ModelProto:
    model, names = made(layers, bits)
    session = onnxruntime.InferenceSession(model.SerializeToString())
    found = session.run(None, {"x": np.array(0, np.int32)})
    graph = graph_of(model)
    for name, got, codes in zip(names, found, layers, strict=True):
        np.testing.assert_array_equal(got, codes)
        np.testing.assert_array_equal(graph.constants[name], codes)
    return model


SHAPES = st.lists(st.integers(1, 5), min_size=1, max_size=4).map(tuple)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(SHAPES, st.sampled_from([2, 4])), min_size=1, max_size=6))
def test_layers_of_any_shape_and_width_come_back(layers):
    shapes, bits = zip(*layers, strict=True)
    assert_codes(random_layers(shapes, bits, 0), list(bits))


@pytest.mark.parametrize("size", [64, 65])
def test_large_layers_are_taken_apart_on_their_own(size, monkeypatch):
    monkeypatch.setattr(small_codes, "ALONE", 100)
    monkeypatch.setattr(small_codes, "TOGETHER", 90)
    bits = [4, 4, 4, 2]
    model = assert_codes(random_layers([(8, 8), (4, size), (2, 20), (3, size)], bits, 1), bits)
    # The large one, the two that do not fit together, and the width of its own.
    assert sum(node.op_type == "BitShift" for node in model.graph.node) == 4


def test_codes_that_nothing_reads_are_not_written():
    graph = GraphBuilder()
    kept = graph.packed(np.zeros((4, 4), np.int8), 2)
    graph.packed(np.ones((400, 4), np.int8), 2)
    output = graph.node("Add", [kept, "x"])
    graph.finish([output])
    assert sum(len(tensor.raw_data) for tensor in graph.initializers) < 100
