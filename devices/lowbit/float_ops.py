"""Norms, softmax and activations of floats by the library, on NumPy arrays where they lie."""

from __future__ import annotations

from ctypes import c_void_p
from typing import Any

import numpy as np

from devices.lowbit.library import check, library

LAYER_NORM, RMS_NORM, SOFTMAX = 0, 1, 2
GELU, GELU_TANH, SWISH = 0, 1, 2

ROWS = {
    "LayerNormalization": LAYER_NORM,
    "RMSNormalization": RMS_NORM,
    "SimplifiedLayerNormalization": RMS_NORM,
    "Softmax": SOFTMAX,
}
"""Functions of the last axis, by ONNX operator."""


def native_operation(op: str, attributes: dict[str, Any], rank: int) -> bool:
    """Whether the library runs an ONNX operator on an array of ``rank`` axes.

    Rows are the last axis; other axes are left to NumPy, and so is a Swish with a factor.
    """
    if op in ROWS:
        return attributes.get("axis", -1) % rank == rank - 1
    return op == "Gelu" or (op == "Swish" and attributes.get("alpha", 1.0) == 1.0)


def run_native(op: str, attributes: dict[str, Any], x: np.ndarray, *more: Any) -> np.ndarray:
    """Run one of :func:`native_operation`.

    Args:
        op, attributes: the operator.
        x: float32 (..., width).
        more: scale and bias (width,) of a norm.

    Returns:
        float32, as ``x``.
    """
    x = np.ascontiguousarray(x, np.float32)
    out = np.empty_like(x)
    if op in ROWS:
        width = x.shape[-1]
        arrays = [None if v is None else np.ascontiguousarray(v, np.float32) for v in more]
        arrays += [None] * (2 - len(arrays))
        scale, bias = (None if a is None or a.size == 0 else _address(a) for a in arrays)
        epsilon = attributes.get("epsilon", 1e-5)
        count = x.size // max(1, width)
        check(
            library().lowbit_rows(
                ROWS[op], _address(x), scale, bias, _address(out), count, width, epsilon
            )
        )
        return out
    if op == "Gelu":
        number = GELU_TANH if attributes.get("approximate", "none") == "tanh" else GELU
    else:
        number = SWISH
    check(library().lowbit_pointwise(number, _address(x), _address(out), x.size))
    return out


def _address(array: np.ndarray) -> c_void_p:
    return array.ctypes.data_as(c_void_p)
