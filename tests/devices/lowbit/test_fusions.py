"""What follows a layer is part of it only where nothing else reads it."""

import numpy as np
import pytest

from devices.lowbit.fusions import (
    activation_after,
    between_codes,
    function_table,
    readers_of,
    sum_numbers,
)
from search_spaces.model_files.packed_model import PackedModel

KNOWN = {"HardSigmoid": "hard_sigmoid"}
GRIDS = (
    {"scale": 0.05, "zero_point": 3, "bits": 8},
    {"scale": 0.11, "zero_point": 130, "bits": 8},
    {"scale": 0.3, "zero_point": 7, "bits": 4},
)


def chain(*nodes):
    """Return a model of nodes ``(op, inputs, output, attributes)``, and what reads its tensors."""
    entries = [
        {"op": op, "inputs": inputs, "output": output, "attributes": attributes}
        for op, inputs, output, attributes in nodes
    ]
    model = PackedModel({"nodes": entries}, {})
    return model.nodes(), readers_of(model.nodes())


PLAIN = {"alpha": 1 / 6, "beta": 0.5}


@pytest.mark.parametrize(
    ("attributes", "others", "fused"),
    [
        (PLAIN, [], True),
        ({"alpha": 0.2, "beta": 0.5}, [], False),
        ({**PLAIN, "beta": 0.4}, [], False),
        # Without attributes the operator has ONNX's own, which the kernels do not know.
        ({}, [], False),
        (PLAIN, [("Add", ["x", "x"], "sum", {})], False),
        (PLAIN, [("Add", ["y", "y"], "sum", {})], False),
    ],
)
def test_an_activation_is_fused_where_it_alone_follows(attributes, others, fused):
    nodes, readers = chain(
        ("conv", ["input"], "x", {}),
        ("HardSigmoid", ["x"], "y", attributes),
        ("quantize", ["y"], "z", {}),
        *others,
    )
    found = activation_after(nodes[0], readers, KNOWN)
    assert found == ((nodes[1], nodes[2]) if fused else None)
    assert activation_after(nodes[0], readers, {}) is None


def test_a_function_is_of_codes_where_all_that_it_reads_is():
    nodes, readers = chain(("Add", ["a", "b"], "c", {}), ("quantize", ["c"], "d", {}))
    floats = {"a": "a.codes", "b": "b.codes"}
    assert between_codes(nodes[0], readers, floats) == (nodes[1], ["a.codes", "b.codes"])
    assert between_codes(nodes[0], readers, {"a": "a.codes"}) is None
    assert between_codes(nodes[1], readers, {"c": "c.codes"}) is None


@pytest.mark.parametrize("grid", GRIDS)
def test_a_table_gives_the_nearest_code_of_the_value(grid):
    given = GRIDS[0]
    values = (np.arange(256) - given["zero_point"]) * given["scale"]
    wanted = np.clip(np.tanh(values) / grid["scale"] + grid["zero_point"], 0, 2 ** grid["bits"] - 1)
    assert np.abs(function_table(given, grid, np.tanh) - wanted).max() <= 0.501
    np.testing.assert_array_equal(function_table(given, given), np.arange(256))


def test_the_numbers_of_a_sum_are_those_of_its_floats():
    a, b, grid = GRIDS
    ratio_a, ratio_b, constant = sum_numbers(a, b, grid)
    codes_a, codes_b = np.meshgrid(np.arange(0, 256, 5), np.arange(0, 256, 5))
    floats = (codes_a - a["zero_point"]) * a["scale"] + (codes_b - b["zero_point"]) * b["scale"]
    found = ratio_a * codes_a + ratio_b * codes_b + constant
    np.testing.assert_allclose(found, floats / grid["scale"] + grid["zero_point"], atol=1e-3)
