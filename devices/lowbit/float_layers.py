"""Operations on floats that lie in the library's buffers: layers like any other.

Between them there is no Python, so a language model's next token is one call of the library.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from devices.lowbit import floats
from devices.lowbit.float_ops import (
    GELU,
    GELU_TANH,
    ROWS,
    SWISH,
    native_operation,
)
from search_spaces.errors import InputError
from search_spaces.model_files.grouped import load_grouped

if TYPE_CHECKING:
    from devices.lowbit.buffers import Buffers

_SAME = ("Reshape", "Flatten", "Identity", "reshape", "flatten")


def add_native_floats(network: Buffers, node: dict[str, Any]) -> bool:
    """Add a node as a native layer where what it reads lies in native buffers of floats.

    Args:
        network: being built.
        node: of the packed graph.

    Returns:
        Whether it was added.

    Raises:
        InputError: a language model with a batch.
    """
    op = node["op"]
    if op == "embed":
        _embed(network, node)
    elif op == "attend":
        _attend(network, node)
    elif not all(network.holds_floats(name) for name in node["inputs"][:1]):
        return False
    elif op == "Add" and all(map(network.holds_floats, node["inputs"])):
        return _plus(network, node)
    elif op == "quantize":
        _quantize(network, node)
    elif op in _SAME:
        return _view(network, node)
    elif native_operation(op, node.get("attributes", {}), len(network.shape(node["inputs"][0]))):
        _row_or_number(network, node)
    else:
        return False
    return True


def add_grouped(network: Buffers, node: dict[str, Any]) -> None:
    """Add a linear layer of weights alone, on floats.

    Raises:
        InputError: its input has another number of channels.
    """
    name = node.get("layer", node["output"])
    weights = load_grouped(network.model.tensors, node["weights"])
    source = network.floats_of(node["inputs"][0])
    if source.shape[-1] != weights.shape[1]:
        raise InputError(f"{name}: {source.shape[-1]} channels come to weights of {weights.shape}")
    target = network.new(node["output"], (*source.shape[:-1], weights.shape[0]), None)
    rows = math.prod(source.shape[:-1])
    first = network.native.linear(source.buffer, target.buffer, rows, weights)
    network.note(name, first)
    if len(target.shape) == 4:
        # Buffers of four axes are read as feature maps, channels last.
        network.arrays[node["output"]] = network.native.array(
            target.buffer, target.shape, np.float32
        )
        del network.tensors[node["output"]]


def _row_or_number(network: Buffers, node: dict[str, Any]) -> None:
    """A norm, a softmax, GELU or SiLU."""
    op, attributes = node["op"], node.get("attributes", {})
    source = network.tensors[node["inputs"][0]]
    target = network.new(node["output"], source.shape, None)
    first = network.native.layers
    if op in ROWS:
        numbers = [network.constant(node, name) for name in node["inputs"][1:]]
        scale, bias = [*numbers, None, None][:2]
        width = source.shape[-1]
        network.native.rows(
            ROWS[op], source.buffer, target.buffer, (math.prod(source.shape[:-1]), width),
            epsilon=attributes.get("epsilon", 1e-5), scale=scale, bias=bias,
        )  # fmt: skip
    else:
        tanh = attributes.get("approximate", "none") == "tanh"
        number = SWISH if op == "Swish" else GELU_TANH if tanh else GELU
        network.native.layer(
            "pointwise", number, source.buffer, target.buffer, math.prod(source.shape)
        )
    network.note(op, first)


def _plus(network: Buffers, node: dict[str, Any]) -> bool:
    a, b = (network.tensors[name] for name in node["inputs"])
    if a.shape != b.shape:
        return False
    target = network.new(node["output"], a.shape, None)
    first = network.native.layer("plus", a.buffer, b.buffer, target.buffer, math.prod(a.shape))
    network.note("Add", first)
    return True


def _quantize(network: Buffers, node: dict[str, Any]) -> None:
    source, grid = network.tensors[node["inputs"][0]], network.grids[node["output"]]
    target = network.new(node["output"], source.shape, grid)
    channels = source.shape[-1]
    first = network.native.layer(
        "quantise", source.buffer, target.buffer, math.prod(source.shape[:-1]), channels, 1,
        grid["scale"], grid["zero_point"], 2 ** grid["bits"] - 1,
    )  # fmt: skip
    network.note("quantize", first)


def _view(network: Buffers, node: dict[str, Any]) -> bool:
    """Another shape of the same memory; buffers of four axes are feature maps, channels last."""
    source, op = network.tensors[node["inputs"][0]], node["op"]
    if op in ("reshape", "flatten"):
        shape = floats.view_shape(node, source.shape)
    elif op == "Identity":
        shape = source.shape
    elif op == "Flatten":
        axis = node.get("attributes", {}).get("axis", 1)
        shape = floats.view_shape({"op": "flatten", "axis": axis}, source.shape)
    else:
        wanted = np.asarray(network.constant(node, node["inputs"][1])).tolist()
        shape = floats.view_shape({"op": "reshape", "shape": wanted}, source.shape)
    if len(shape) == 4:
        return False
    network.tensors[node["output"]] = replace(source, shape=tuple(shape))
    return True


def _embed(network: Buffers, node: dict[str, Any]) -> None:
    tokens = _tokens(network, math.prod(network.model.graph["input"]["shape"]))
    table, positions = (network.model.tensors[node[key]] for key in ("table", "positions"))
    target = network.new(node["output"], (1, tokens, table.shape[1]), None)
    first = network.native.embed(
        network.input_buffer, _free(network, node), target.buffer, tokens, table, positions
    )
    network.note("embed", first)


def _attend(network: Buffers, node: dict[str, Any]) -> None:
    heads, width, length = (node[key] for key in ("heads", "width", "length"))
    source = network.floats_of(node["inputs"][0])
    tokens = _tokens(network, math.prod(source.shape) // (3 * heads * width))
    row = 4 * heads * width
    keys = network.native.buffer(row * (-(-length // 8) * 8))  # eight lie side by side
    values = network.native.buffer(row * length)
    target = network.new(node["output"], (1, tokens, heads * width), None)
    first = network.native.layer(
        "attend", source.buffer, _free(network, node), target.buffer, keys, values, tokens, heads,
        length, width,
    )  # fmt: skip
    network.note("attend", first)


def _tokens(network: Buffers, count: int) -> int:
    if network.batch != 1:
        raise InputError(
            "the low-bit runtime runs a language model on one text at a time; set batch: 1"
        )
    return count


def _free(network: Buffers, node: dict[str, Any]) -> int:
    """Return the buffer that says how many places are left; -1 where a window is full."""
    return network.tensors[node["inputs"][1]].buffer if len(node["inputs"]) > 1 else -1
