"""What ONNX's messages hold, as Python's and NumPy's own values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError

if TYPE_CHECKING:
    import onnx

NUMBERS = "fiubcOSU"
"""Kinds of types that NumPy has itself."""


def plain(array: np.ndarray) -> np.ndarray:
    """Return integers of less than a byte as bytes, and floats that NumPy lacks as float32."""
    if array.dtype.kind in NUMBERS:
        return array
    name = array.dtype.name
    if "float" in name:
        return array.astype(np.float32)
    return array.astype(np.uint8 if name.startswith("u") else np.int8)


def array_of(tensor: onnx.TensorProto) -> np.ndarray:
    """Return the numbers of a tensor.

    Raises:
        InputError: they lie in another file, or cannot be read.
    """
    from onnx import external_data_helper, numpy_helper

    if external_data_helper.uses_external_data(tensor):
        raise InputError(
            f"the constant {tensor.name!r} lies in another file, which is not read here; save the "
            "model with its data in one file: torch.onnx.export(..., external_data=False), or "
            "onnx.save(onnx.load('model.onnx'), 'whole.onnx')"
        )
    try:
        return numpy_helper.to_array(tensor)
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"the constant {tensor.name!r} cannot be read: {error}") from error


def value_of(attribute: onnx.AttributeProto) -> Any:
    """Return an attribute as Python's or NumPy's own.

    Raises:
        InputError: a tensor that cannot be read.
    """
    import onnx

    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, onnx.TensorProto):
        return plain(array_of(value))
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value


def type_of(number: int, name: str) -> np.dtype:
    """Return the type of elements that ONNX numbers so; ``name`` says whose they are.

    Raises:
        InputError: there is none.
    """
    from onnx import helper

    try:
        return np.dtype(helper.tensor_dtype_to_np_dtype(number))
    except KeyError as error:
        raise InputError(f"{name} has no known type of elements ({number})") from error


def shape_of(value: onnx.ValueInfoProto) -> tuple[int | None, ...]:
    """Return the sides of a tensor, None where a side is open."""
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)
