"""What is read off the nodes and constants of an ONNX graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

WEIGHT_BITS = "weight_bits"
"""Note of a node's nominal weight bits, written by ``supernet.onnx.export``."""


def plain(array: np.ndarray) -> np.ndarray:
    """Return 2- and 4-bit arrays as int8."""
    return array if array.dtype.kind in "iufb" else array.astype(np.int8)


def attributes_of(node: onnx.NodeProto) -> dict[str, Any]:
    """Return the attributes of a node by name, bytes as text."""
    from onnx import helper

    values = {item.name: helper.get_attribute_value(item) for item in node.attribute}
    return {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in values.items()
    }


def nominal_bits(node: onnx.NodeProto, codes: np.ndarray) -> int:
    """Return the bits that a node's weights were made with: its note, or what its codes take."""
    for note in node.metadata_props:
        if note.key == WEIGHT_BITS:
            return int(note.value)
    size = int(np.abs(codes.astype(np.int64) + (codes < 0)).max()) if codes.size else 0
    return size.bit_length() + 1
