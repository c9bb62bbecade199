"""Operations on constants, computed when an ONNX file is read: those that weights are spelt in."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

LARGEST = 1 << 27
"""Elements of a constant beyond which it is left to the runtime: a few bytes can ask for any."""

_CONSTANT = ("value", "value_float", "value_int", "value_floats", "value_ints")
_FLOATS = ("value_float", "value_floats")

_Values = Sequence[Any]
_Attributes = Mapping[str, Any]


def folded(
    op: str, attributes: _Attributes, values: Sequence[np.ndarray | None]
) -> tuple[np.ndarray, ...] | None:
    """Return the outputs that an operation makes of constants; None where a runtime makes them.

    Args:
        op: ONNX operator.
        attributes: its attributes.
        values: its inputs, None where one is left out.

    Raises:
        AttributeError, LookupError, TypeError, ValueError: the constants do not fit the operation.
    """
    if op == "Constant":
        for key in _CONSTANT:
            if key in attributes:
                kind = np.float32 if key in _FLOATS else None
                return (np.asarray(attributes[key], dtype=kind),)
        return None
    if op not in (*_OF_TWO, *_FOLDED, "Split") or not values or values[0] is None:
        return None
    if op == "Mod" and attributes.get("fmod"):
        return None
    if _size(op, attributes, values) > LARGEST:
        return None
    if op == "Split":
        return _split(attributes, values)
    if op == "BitShift":
        return (_shift(attributes, values),)
    if op in _OF_TWO:
        return (np.asarray(_OF_TWO[op](*values)),)
    return (np.asarray(_FOLDED[op](attributes, values)),)


def narrowed(
    op: str, attributes: _Attributes, values: Sequence[np.ndarray | None], kind: str
) -> str:
    """Return the type of integers of less than a byte that an operation takes bytes apart to.

    Args:
        op, attributes, values: of the operation, as in :func:`folded`.
        kind: type of the first input, where it is one that NumPy lacks.

    Returns:
        such as "uint4" or "int2"; "" for all other operations.
    """
    if op == "BitwiseAnd":
        mask = _single(values)
        bits = mask.bit_length()
        return f"uint{bits}" if 0 < bits < 8 and mask == 2**bits - 1 else ""
    if "int" not in kind:
        return ""
    if op == "Sub":
        bits = int(kind.rpartition("int")[2])
        return f"int{bits}" if kind[0] == "u" and _single(values) == 2 ** (bits - 1) else ""
    if op == "Cast":
        from onnx import helper

        whole = np.dtype(helper.tensor_dtype_to_np_dtype(attributes["to"])).kind in "iu"
        return kind if whole else ""
    return kind if op in ("Reshape", "Split", "Slice", "Transpose") else ""


def _single(values: Sequence[np.ndarray | None]) -> int:
    second = values[1]
    return int(second.item()) if second is not None and second.size == 1 else 0


def _size(op: str, a: _Attributes, x: _Values) -> int:
    """Return the elements of the result, where it can be larger than what goes in."""
    if op in _OF_TWO:
        return math.prod(np.broadcast_shapes(x[0].shape, x[1].shape))
    if op == "Expand":
        return math.prod(np.broadcast_shapes(x[0].shape, tuple(x[1].tolist())))
    if op == "Gather":
        return x[1].size * (x[0].size // max(1, x[0].shape[a.get("axis", 0)]))
    return 0


def _cast(a: _Attributes, x: _Values) -> np.ndarray:
    from onnx import helper

    return np.asarray(x[0].astype(helper.tensor_dtype_to_np_dtype(a["to"])))


def _reshape(a: _Attributes, x: _Values) -> np.ndarray:
    sizes = [x[0].shape[i] if n == 0 else n for i, n in enumerate(x[1].tolist())]
    return np.asarray(x[0].reshape(sizes))


def _axes(a: _Attributes, x: _Values) -> tuple[int, ...] | None:
    named = x[1].tolist() if len(x) > 1 and x[1] is not None else a.get("axes")
    return None if named is None else tuple(named)


def _slice(a: _Attributes, x: _Values) -> np.ndarray:
    starts, ends = x[1].tolist(), x[2].tolist()
    axes = x[3].tolist() if len(x) > 3 and x[3] is not None else range(len(starts))
    steps = x[4].tolist() if len(x) > 4 and x[4] is not None else [1] * len(starts)
    index = [slice(None)] * x[0].ndim
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, end, step)
    return np.asarray(x[0][tuple(index)])


def _shift(a: _Attributes, x: _Values) -> np.ndarray:
    return np.asarray(_OF_TWO["BitShift"](*x) if a["direction"] == "RIGHT" else x[0] << x[1])


def _split(a: _Attributes, x: _Values) -> tuple[np.ndarray, ...] | None:
    sizes = x[1].tolist() if len(x) > 1 and x[1] is not None else a.get("split")
    if sizes is None:
        return None  # equal parts, as many as there are outputs
    axis = a.get("axis", 0)
    if min(sizes, default=0) < 0 or sum(sizes) != x[0].shape[axis]:
        raise ValueError(f"parts of {sizes} do not make {x[0].shape[axis]}")
    return tuple(np.split(x[0], np.cumsum(sizes)[:-1], axis))


_OF_TWO: dict[str, Callable[..., np.ndarray]] = {
    "Mul": np.multiply,
    "Add": np.add,
    "Sub": np.subtract,
    "Mod": np.mod,
    "BitShift": np.right_shift,
    "BitwiseAnd": np.bitwise_and,
}
"""ONNX operator -> f(input, input)."""

_FOLDED: dict[str, Callable[[_Attributes, _Values], Any]] = {
    "Cast": _cast,
    "Identity": lambda a, x: x[0],
    "Transpose": lambda a, x: x[0].transpose(a.get("perm")),
    "Reshape": _reshape,
    "Unsqueeze": lambda a, x: np.expand_dims(x[0], _axes(a, x) or ()),
    "Squeeze": lambda a, x: x[0].squeeze(_axes(a, x)),
    "Expand": lambda a, x: x[0] * np.ones(tuple(x[1].tolist()), x[0].dtype),
    "Gather": lambda a, x: x[0].take(x[1], a.get("axis", 0)),
    "Slice": _slice,
}
"""ONNX operator -> f(attributes, inputs)."""
