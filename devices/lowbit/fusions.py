"""What is fused, and the numbers of operations on codes.

A C project is bit-exact with the library, so :mod:`nas.models.c_project` takes both from here too.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from devices.lowbit.rounding import to_codes

Node = dict[str, Any]
Readers = Mapping[str, Sequence[Node]]
"""Nodes that read a tensor, by its name; of a tensor that none reads there are no nodes."""

_F = np.float32


FUSED = ("HardSwish", "HardSigmoid")
"""Activations that kernels of layers compute in floats themselves; others are staircases."""


def readers_of(nodes: Iterable[Node]) -> Readers:
    """Return which of some nodes read each tensor."""
    readers: dict[str, list[Node]] = defaultdict(list)
    for node in nodes:
        for name in node["inputs"]:
            readers[name].append(node)
    return readers


def activation_after(
    node: Node, readers: Readers, known: Container[str]
) -> tuple[Node, Node] | None:
    """Return the activation and the quantiser that alone follow a layer, if they do.

    Args:
        node: the layer.
        readers: of all tensors.
        known: activations that can be part of a layer, by operator.
    """
    users = readers[node["output"]]
    if len(users) != 1 or users[0]["op"] not in known or not _plain(users[0]):
        return None
    after = readers[users[0]["output"]]
    if len(after) != 1 or after[0]["op"] != "quantize":
        return None
    return users[0], after[0]


def between_codes(
    node: Node, readers: Readers, dequantized: Mapping[str, str]
) -> tuple[Node, list[str]] | None:
    """Return the quantiser that alone follows a float function of codes, and these codes.

    Args:
        node: the function.
        readers: of all tensors.
        dequantized: floats -> the codes that they are.
    """
    users = readers[node["output"]]
    if len(users) != 1 or users[0]["op"] != "quantize":
        return None
    if not all(name in dequantized for name in node["inputs"]):
        return None
    return users[0], [dequantized[name] for name in node["inputs"]]


def function_table(
    given: Mapping[str, Any],
    grid: Mapping[str, Any],
    function: Callable[[np.ndarray], np.ndarray] = lambda values: values,
) -> np.ndarray:
    """Return the code of a function's value for each of 256 codes, (256,) uint8.

    Args:
        given: grid of the function's codes.
        grid: of its values.
        function: of float32 values, any shape; itself where only the grid changes.
    """
    values = (np.arange(256) - given["zero_point"]).astype(_F) * _F(given["scale"])
    ratio = (function(values) / _F(grid["scale"])).astype(_F)
    return to_codes(ratio, grid["zero_point"], 0, 2 ** grid["bits"] - 1)


def sum_numbers(
    a: Mapping[str, Any], b: Mapping[str, Any], grid: Mapping[str, Any]
) -> tuple[np.float32, np.float32, np.float32]:
    """Return the factors of the codes of two summands, and what is added to their sum.

    Args:
        a, b: grids of the summands.
        grid: of the sum.
    """
    ratio_a, ratio_b = (_F(g["scale"]) / _F(grid["scale"]) for g in (a, b))
    zero_a, zero_b = (np.float64(g["zero_point"]) for g in (a, b))
    inner = _F(zero_a * np.float64(ratio_a) + np.float64(ratio_b * _F(zero_b)))
    return ratio_a, ratio_b, _F(grid["zero_point"]) - inner


def _plain(node: Node) -> bool:
    """Whether an activation has the parameters that the kernels know."""
    attributes = node.get("attributes", {})
    if node["op"] == "HardSigmoid":
        alpha, beta = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
        return abs(alpha - 1 / 6) < 1e-6 and beta == 0.5
    return True
