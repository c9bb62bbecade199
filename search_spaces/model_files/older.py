"""Nodes of older ONNX operator sets, spelt as today's.

Files of other exporters are of operator sets 9 to 13 mostly. What was an attribute there is an
input today (axes, the sizes of a split, the ends of a slice), and what was left out meant something
else. Read as today's, such a node would fail, or compute something else without a word.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

FLATTENED = "flattened"
"""Attribute of a softmax over all axes from ``axis`` on, as operator sets below 13 have it."""

_MOVED = {
    "Squeeze": (13, ("axes",)),
    "Unsqueeze": (13, ("axes",)),
    "ReduceSum": (13, ("axes",)),
    "ReduceMean": (18, ("axes",)),
    "ReduceMax": (18, ("axes",)),
    "ReduceMin": (18, ("axes",)),
    "ReduceProd": (18, ("axes",)),
    "Split": (13, ("split",)),
    "Slice": (10, ("starts", "ends", "axes")),
    "Pad": (11, ("pads", "value")),
}
"""Operator -> the operator set from which on its attributes are inputs, and those in order."""


def as_today(
    op: str, attributes: Mapping[str, Any], opset: int
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Return the attributes of a node as the latest operator set has them, and its new inputs.

    Args:
        op: ONNX operator.
        attributes: of the node.
        opset: the file's operator set.

    Returns:
        Attributes, and the values of the inputs that follow the first one, by name.
    """
    left = dict(attributes)
    since, names = _MOVED.get(op, (0, ()))
    if opset < since and names[0] in left:
        if op == "Slice":
            left.setdefault("axes", list(range(len(left["starts"]))))
        given = {name: left.pop(name) for name in names if name in left}
        kinds = {name: np.float32 if name == "value" else np.int64 for name in given}
        return left, {name: np.asarray(value, kinds[name]) for name, value in given.items()}
    if op in ("Softmax", "LogSoftmax") and opset < 13:
        return {"axis": 1, **left, FLATTENED: 1}, {}
    return left, {}
