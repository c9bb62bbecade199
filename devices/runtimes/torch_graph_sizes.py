"""Arithmetic on sizes in foreign ONNX files, as Python numbers.

Exporters write the sizes of a batch that may vary as nodes: ``Shape``, then ``Gather``, ``Concat``
and the like, and at last a ``Reshape``. As tensors they would be values that a tracer cannot see
through; as numbers they are what its own sizes are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.model_files.graph import Node

_FLOATS = (1, 10, 11, 16)
"""ONNX's numbers of the types of floats."""


def is_size(value: Any) -> bool:
    """Whether a value is a number of sizes, or a list of them, and no tensor."""
    return value is not None and not isinstance(value, Tensor)


def shape_of(node: Node, x: Any) -> list[Any]:
    """Return the sizes that ``Shape`` gives, of a tensor or of sizes."""
    found = list(x.shape) if isinstance(x, Tensor) else [len(x)] if isinstance(x, list) else []
    return found[node.attributes.get("start", 0) : node.attributes.get("end", len(found))]


def _each(call: Callable[..., Any]) -> Callable[..., Any]:
    """Return what computes on numbers, and on lists number by number."""

    def run(node: Node, *values: Any) -> Any:
        lengths = {len(v) for v in values if isinstance(v, list)}
        if not lengths:
            return call(*values)
        count = max(lengths)
        columns = [v * count if isinstance(v, list) and len(v) == 1 else v for v in values]
        rows = [v if isinstance(v, list) else [v] * count for v in columns]
        return [call(*row) for row in zip(*rows, strict=True)]

    return run


def _gather(node: Node, values: list[Any], index: Any) -> Any:
    return [values[i] for i in index] if isinstance(index, list) else values[index]


def _slice(node: Node, values: list[Any], starts: Any, ends: Any, *rest: Any) -> list[Any]:
    step = _first(rest[1]) if len(rest) > 1 and rest[1] is not None else 1
    return values[_first(starts) : _first(ends) : step]


def _first(value: Any) -> Any:
    return value[0] if isinstance(value, list) else value


def _concat(node: Node, *values: Any) -> list[Any]:
    return [size for value in values for size in (value if isinstance(value, list) else [value])]


def _cast(node: Node, value: Any) -> Any:
    kind = float if node.attributes["to"] in _FLOATS else lambda number: number
    return _each(kind)(node, value)


def _reshaped(node: Node, value: Any, shape: Any) -> Any:
    """Return sizes as the list or the one number that they are reshaped to."""
    if isinstance(shape, list) and len(shape) == 1:
        return value if isinstance(value, list) else [value]
    if shape == [] and not isinstance(value, list):
        return value
    raise ValueError(f"sizes in the shape {shape}")


def _filled(node: Node, sizes: Any) -> Any:
    value = node.attributes.get("value")
    number = 0.0 if value is None else value.reshape(-1)[0].item()
    if isinstance(number, int) and isinstance(sizes, list) and len(sizes) == 1:
        return [number] * sizes[0]
    return torch.full(list(sizes), number)


def _divided(a: Any, b: Any) -> Any:
    return a / b if isinstance(a, float) or isinstance(b, float) else a // b


OF_SIZES: dict[str, Callable[..., Any]] = {
    "Gather": _gather,
    "Slice": _slice,
    "Concat": _concat,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Identity": lambda node, value: value,
    "Unsqueeze": lambda node, value, *axes: value if isinstance(value, list) else [value],
    "Squeeze": lambda node, value, *axes: _first(value),
    "Reshape": _reshaped,
    "Neg": _each(lambda a: -a),
    "Mod": _each(lambda a, b: a % b),
    "Max": _each(max),
    "Min": _each(min),
    "Floor": _each(math.floor),
    "Ceil": _each(math.ceil),
    "ReduceProd": lambda node, value, *axes: (
        [math.prod(value)] if node.attributes.get("keepdims", 1) else math.prod(value)
    ),
    "Add": _each(lambda a, b: a + b),
    "Sub": _each(lambda a, b: a - b),
    "Mul": _each(lambda a, b: a * b),
    "Div": _each(_divided),
    "Sqrt": _each(lambda a: a**0.5),
    "Equal": _each(lambda a, b: a == b),
    "Where": _each(lambda condition, a, b: a if condition else b),
}
"""ONNX operator on sizes -> f(node, numbers or lists of them)."""

NAMES = frozenset({"Shape", *OF_SIZES})
"""Operators that have a translation where they are of sizes."""


def of_sizes(node: Node, values: Sequence[Any], fixed: Sequence[Any]) -> tuple[bool, Any]:
    """Compute a node on sizes; (False, None) where it is one on tensors.

    Args:
        node: an operator.
        values: of its inputs: tensors, numbers, lists of numbers, or None.
        fixed: small constants among them as numbers or lists, otherwise None.

    Raises:
        InputError: sizes in a form that is not known.
    """
    if node.op == "Shape":
        return True, shape_of(node, values[0])
    numbers = [v if is_size(v) else known for v, known in zip(values, fixed, strict=True)]
    sized = any(map(is_size, values)) or node.op == "ConstantOfShape"
    given = zip(values, numbers, strict=True)
    if not sized or node.op not in OF_SIZES or any(v is not None and n is None for v, n in given):
        return False, None
    try:
        return True, OF_SIZES[node.op](node, *numbers)
    except (TypeError, IndexError, ValueError) as error:
        raise InputError(f"{node.op} of sizes has no torch translation here: {error}") from error
