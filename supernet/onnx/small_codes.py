"""Weights of 2 and 4 bits as bytes, and the few operations that take them apart at loading.

ONNX has tensors of 4 bits from operator set 21 on and of 2 bits from 25 on, which ONNX Runtime 1.20
refuses. Shifts and masks of bytes are in every runtime that reads operator set 18. A file holds the
fields of all its layers one after another, as these types would, and they are taken apart at once:
what a layer costs beside its fields is a shape. The graph's constants are folded at loading, so
nothing of this is left when the network runs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from supernet.onnx.graph import GraphBuilder

ALONE = 1 << 18
"""Codes of a layer from which on it is taken apart on its own: the operations that do so are
nothing beside its fields, and it is loaded faster without being cut out of others."""

TOGETHER = 1 << 20
"""Codes that are taken apart together at most; they are widened to 32 bits on the way."""


class SmallCodes:
    """Collects the codes of layers, by their width."""

    def __init__(self) -> None:
        self._waiting: list[tuple[str, int, np.ndarray]] = []

    def add(self, graph: GraphBuilder, codes: np.ndarray, bits: int) -> str:
        """Return the name of signed codes as int32 in their shape; 2 or 4 bits of each are stored.

        Args:
            graph: added to, and once more by :meth:`write`.
            codes: any shape.
            bits: 2 or 4.
        """
        many = 8 // bits
        flat = codes.reshape(-1).astype(np.int16)
        rows = np.pad(flat, (0, -flat.size % many)).reshape(many, -1)
        shape = graph.constant(_shape(codes), name="shape")
        if codes.size >= ALONE and flat.size == rows.size:
            return _signed(graph, graph.node("Reshape", [_apart(graph, rows, bits), shape]), bits)
        name = graph.unique("w")
        self._waiting.append((name, bits, rows))
        if flat.size < rows.size:
            # Its last byte is not full.
            name = graph.node("Reshape", [name, _whole(graph, -1)])
            name = graph.node("Slice", [name, _whole(graph, 0), _whole(graph, flat.size)])
        return graph.node("Reshape", [name, shape])

    def cost(self, graph: GraphBuilder, codes: np.ndarray) -> int:
        """Return the bytes that a layer takes beside its fields, about."""
        return 48 + graph.added(_shape(codes))

    def write(self, graph: GraphBuilder, used: set[str]) -> None:
        """Add what the collected codes follow from, of those whose name is among ``used``."""
        waiting = [entry for entry in self._waiting if entry[0] in used]
        for bits in sorted({bits for _, bits, _ in waiting}):
            entries = [(target, rows) for target, width, rows in waiting if width == bits]
            for together in _parts(entries):
                _write(graph, bits, together)
        self._waiting = []


def _shape(codes: np.ndarray) -> np.ndarray:
    return np.array([-1, *codes.shape[1:]], np.int64)


def _whole(graph: GraphBuilder, number: int) -> str:
    return graph.constant(np.array([number], np.int64), name="whole")


def _parts(entries: list[tuple[str, np.ndarray]]) -> list[list[tuple[str, np.ndarray]]]:
    parts: list[list[tuple[str, np.ndarray]]] = [[]]
    size = 0
    for target, rows in entries:
        if parts[-1] and size + rows.size > TOGETHER:
            parts.append([])
            size = 0
        parts[-1].append((target, rows))
        size += rows.size
    return parts


def _apart(graph: GraphBuilder, rows: np.ndarray, bits: int) -> str:
    """Return fields, uint8 in the shape of ``rows``, that are ``2**(bits - 1)`` above the codes.

    ``rows``: codes (codes of a byte, bytes). Those of a row sit in the same bits, the first in
    the lowest: shifting neighbours of one byte takes ONNX Runtime twenty times as long.
    """
    fields = (rows + 2 ** (bits - 1)).astype(np.uint8)
    shifts = (np.arange(len(rows), dtype=np.uint8) * np.uint8(bits))[:, None]
    data = graph.constant(np.bitwise_or.reduce(fields << shifts, axis=0), name=f"packed{bits}")
    by = graph.constant(shifts, name=f"shifts{bits}")
    mask = graph.constant(np.uint8(2**bits - 1), name=f"mask{bits}")
    shifted = graph.node("BitShift", [data, by], direction="RIGHT")
    return graph.node("BitwiseAnd", [shifted, mask])


def _signed(graph: GraphBuilder, fields: str, bits: int) -> str:
    from onnx import TensorProto

    wide = graph.node("Cast", [fields], to=TensorProto.INT32)
    zero = graph.constant(np.int32(2 ** (bits - 1)), name=f"zero{bits}")
    signed = graph.unique("w")
    graph.named("Sub", [wide, zero], [signed])
    return signed


def _write(graph: GraphBuilder, bits: int, entries: list[tuple[str, np.ndarray]]) -> None:
    whole = np.concatenate([rows for _, rows in entries], axis=1)
    signed = _signed(graph, _apart(graph, whole, bits), bits)
    sizes = np.array([rows.shape[1] for _, rows in entries], np.int64)
    lengths = graph.constant(sizes, name=f"sizes{bits}")
    graph.named("Split", [signed, lengths], [target for target, _ in entries], axis=1)
