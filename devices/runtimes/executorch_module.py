"""A quantised ONNX graph as the torch module that ExecuTorch's partitioners look for.

They run a product on integers where its inputs and its output pass through
``quantized_decomposed`` operators with int8 codes; anything else runs in floats, silently.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from devices.runtimes.torch_graph import OPERATIONS, GraphModule
from search_spaces.errors import InputError
from search_spaces.model_files.graph import Codes, Graph, Grid, Node, read_graph

_LOW, _HIGH = -128, 127
_MOVING = frozenset(
    {
        "MaxPool",
        "Reshape",
        "Flatten",
        "Transpose",
        "Identity",
        "Squeeze",
        "Unsqueeze",
        "Split",
        "Resize",
    }
)
"""Operators that move codes about or choose among them, and may as well do so with values."""


class QuantisedModule(GraphModule):
    """An ONNX graph whose quantised tensors are int8 codes, for export to ExecuTorch.

    Unsigned codes are shifted by 128. A limit on codes becomes the same limit on the values
    before they are rounded, which XNNPACK fuses with the product in front of it.

    Raises:
        InputError: an operator has no translation, or computes with codes.
    """

    def __init__(self, path: Path) -> None:
        operators = OPERATIONS | {
            "QuantizeLinear": _quantise,
            "DequantizeLinear": _dequantise,
            "Clip": _clip,
        }
        super().__init__(path, graph=rewritten(read_graph(path)), operations=operators)


def rewritten(graph: Graph) -> Graph:
    """Return the graph with biases in floats and limits on codes in front of the rounding.

    Raises:
        InputError: an operator computes with codes.
    """
    made = dict(graph.makers)
    users = graph.users
    constants = dict(graph.constants)
    nodes: list[Node] = []
    renamed: dict[str, str] = {}
    for node in graph.nodes:
        node = replace(node, inputs=tuple(renamed.get(name, name) for name in node.inputs))
        source = made.get(node.input(0))
        stored = graph.codes.get(node.output)
        if node.op == "DequantizeLinear" and stored is not None:
            rounded = all(_is_rounded(user, users) for user in users.get(node.output, ()))
            if stored.kind == "int32":
                constants[node.output] = _bias(stored)
            elif rounded and not stored.block and stored.codes.dtype in (np.int8, np.uint8):
                nodes.append(_signed(node, stored, constants))
            else:  # XNNPACK has no integer product with a float output
                constants[node.output] = stored.floats()
            continue
        coded = source if source is not None and source.op == "QuantizeLinear" else None
        if coded is not None and node.op in _MOVING:
            # Partitioners want each dequantisation right behind a quantisation.
            before = f"{node.output}:before"
            after = tuple(f"{name}:after" for name in node.outputs)
            grid = coded.inputs[1:]
            nodes.append(Node("DequantizeLinear", (node.input(0), *grid), (before,)))
            nodes.append(replace(node, inputs=(before, *node.inputs[1:]), outputs=after))
            for name, moved in zip(node.outputs, after, strict=True):
                made[name] = Node("QuantizeLinear", (moved, *grid), (name,))
                nodes.append(made[name])
            continue
        if coded is not None and node.op != "DequantizeLinear":
            alone = len(users.get(coded.output, ())) == 1 and coded.output not in graph.outputs
            if node.op != "Clip" or not alone or nodes[-1].output != coded.output:
                raise InputError(
                    f"{node.op} computes with integer codes; ExecuTorch has no such operator"
                )
            rounding = nodes.pop()
            names = []
            for side, extreme in enumerate((False, True), start=1):
                name = f"{node.output}:{side}"
                given = constants[node.input(side)] if node.input(side) else None
                constants[name] = _value(given, graph.grids[rounding.output], highest=extreme)
                names.append(name)
            limited = f"{node.output}:limited"
            nodes.append(Node("Clip", (rounding.input(0), *names), (limited,)))
            nodes.append(replace(rounding, inputs=(limited, *rounding.inputs[1:])))
            renamed[node.output] = rounding.output
            continue
        nodes.append(node)
    outputs = tuple(renamed.get(name, name) for name in graph.outputs)
    return replace(graph, nodes=tuple(nodes), constants=constants, codes={}, outputs=outputs)


def _is_rounded(product: Node, users: Mapping[str, Sequence[Node]]) -> bool:
    """Whether a product's output is quantised, directly or behind an activation."""
    after = users.get(product.output, ())
    if len(after) == 1 and after[0].op in ("Relu", "Clip"):
        after = users.get(after[0].output, ())
    return bool(after) and all(node.op == "QuantizeLinear" for node in after)


def _bias(stored: Codes) -> np.ndarray:
    # ExecuTorch quantises a bias itself, by the scales of input and weight.
    return (stored.codes * stored.scale.astype(np.float64)).astype(np.float32)


def _signed(node: Node, stored: Codes, constants: dict[str, np.ndarray]) -> Node:
    """Return the dequantisation of a weight with int8 codes and zero points as constants."""
    shift = 128 if stored.codes.dtype == np.uint8 else 0
    names = f"{node.output}:codes", f"{node.output}:zeros"
    zero = stored.zero.astype(np.int64) - shift
    constants[names[0]] = (stored.codes.astype(np.int16) - shift).astype(np.int8)
    constants[names[1]] = zero.reshape(constants[node.input(1)].shape)
    return replace(node, inputs=(names[0], node.input(1), names[1]))


def _value(given: np.ndarray | None, grid: Grid, *, highest: bool) -> np.ndarray:
    """Return the value that a limit on codes stands for; left out, the type's own limit."""
    own = np.iinfo(grid.zero.dtype)
    code = np.int64((own.max if highest else own.min) if given is None else given)
    return np.asarray(
        (code - grid.zero.astype(np.int64)) * grid.scale.astype(np.float64), np.float32
    )


def _zero(x: Sequence[Any], fixed: Sequence[Any]) -> int:
    """Return the zero point of a whole tensor on int8."""
    if len(x) < 3 or x[2] is None:
        return _LOW
    zero = fixed[2][0] if isinstance(fixed[2], list) else fixed[2]
    return int(zero) - (128 if x[2].dtype == torch.uint8 else 0)


def _quantise(node: Node, x: Sequence[Any], fixed: Sequence[Any]) -> Tensor:
    if x[1].numel() != 1:
        raise InputError("activations quantised by channel have no ExecuTorch translation")
    zero = _zero(x, fixed)
    scale = fixed[1][0] if isinstance(fixed[1], list) else fixed[1]
    call = torch.ops.quantized_decomposed.quantize_per_tensor.default
    return call(x[0], scale, zero, _LOW, _HIGH, torch.int8)


def _clip(node: Node, x: Sequence[Any], fixed: Sequence[Any]) -> Tensor:
    # The two forms that XNNPACK fuses with the product in front; it knows no clamp there.
    low, high = (_limit(node, fixed, *place) for place in ((1, "min"), (2, "max")))
    if low == 0 and high is None:
        return F.relu(x[0])
    if low is None or high is None or not x[0].is_floating_point():
        return torch.clamp(x[0], low, high)
    return F.hardtanh(x[0], low, high)


def _limit(node: Node, fixed: Sequence[Any], index: int, attribute: str) -> float | None:
    value = fixed[index] if len(fixed) > index else None
    return node.attributes.get(attribute, value)


def _dequantise(node: Node, x: Sequence[Any], fixed: Sequence[Any]) -> Tensor:
    operators = torch.ops.quantized_decomposed
    if x[1].numel() == 1:
        zero = _zero(x, fixed)
        scale = fixed[1][0] if isinstance(fixed[1], list) else fixed[1]
        return operators.dequantize_per_tensor.default(x[0], scale, zero, _LOW, _HIGH, torch.int8)
    axis = node.attributes.get("axis", 1) % x[0].dim()
    return operators.dequantize_per_channel.default(x[0], x[1], x[2], axis, _LOW, _HIGH, torch.int8)
