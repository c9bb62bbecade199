"""Norms, softmax and activations of the library against float64, in every instruction set."""

from __future__ import annotations

import math

import numpy as np
import pytest

from devices.lowbit.build import find_compiler
from devices.lowbit.library import features, restrict
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.packed_model import PackedModel

try:
    find_compiler()
except EnvironmentProblem:  # pragma: no cover
    pytest.skip("no compiler on this machine", allow_module_level=True)

from devices.lowbit.float_ops import native_operation, run_native
from devices.lowbit.floats import operation


def exact(op, attributes, x, scale=None, bias=None):
    x = x.astype(np.float64)
    if op == "Softmax":
        powers = np.exp(x - x.max(-1, keepdims=True))
        return powers / powers.sum(-1, keepdims=True)
    if op == "Gelu" and attributes.get("approximate") == "tanh":
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))
    if op == "Gelu":
        return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))
    if op == "Swish":
        return x / (1 + np.exp(-x))
    centred = x - x.mean(-1, keepdims=True) if op == "LayerNormalization" else x
    y = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + attributes["epsilon"])
    return y * scale + (0 if bias is None else bias)


CASES = [
    ("Softmax", {}),
    ("Gelu", {}),
    ("Gelu", {"approximate": "tanh"}),
    ("Swish", {}),
    ("LayerNormalization", {"epsilon": 1e-5}),
    ("RMSNormalization", {"epsilon": 1e-6}),
]


@pytest.mark.parametrize(("op", "attributes"), CASES, ids=str)
@pytest.mark.parametrize("width", [1, 7, 8, 65, 192])
def test_they_are_what_they_are_called(op, attributes, width):
    rng = np.random.default_rng(width)
    x = rng.normal(0, 4, (3, 5, width)).astype(np.float32)
    x[0, 0, 0] = 80  # beyond what an exponential of a float holds
    norm = "Normalization" in op
    more = [rng.uniform(0.5, 2, width).astype(np.float32)] if norm else []
    if op == "LayerNormalization":
        more.append(rng.normal(0, 1, width).astype(np.float32))
    wanted = exact(op, attributes, x, *more)
    found = []
    available = features()
    try:
        for instructions in ("", "portable", *(n for n in ("avx2", "neon") if n in available)):
            restrict(instructions)
            found.append(run_native(op, attributes, x, *more))
    finally:
        restrict("")
    for got in found:
        np.testing.assert_allclose(got, wanted, rtol=2e-5, atol=5e-6)
        np.testing.assert_array_equal(got, found[0])


def test_other_axes_are_left_to_numpy():
    assert native_operation("Softmax", {"axis": 2}, 3)
    assert not native_operation("Softmax", {"axis": 1}, 3)
    assert not native_operation("Swish", {"alpha": 1.7}, 3)
    assert not native_operation("Tanh", {}, 3)


def test_convolutions_of_signals_are_refused_by_name():
    tensors = {"w": np.ones((2, 1, 3), np.float32), "b": np.zeros(2, np.float32)}
    node = {"op": "conv", "output": "steps", "inputs": ["x"], "kernel": [3], "groups": 1,
            "weights": {"weight": "w", "bias": "b", "fill": None}}  # fmt: skip
    with pytest.raises(InputError, match=r"steps: a convolution over 1 axes.*one pixel high"):
        operation(node, PackedModel({"nodes": [node]}, tensors))
