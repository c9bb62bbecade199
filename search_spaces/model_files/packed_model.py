"""The low-bit model file: weights packed at their own bit-widths, and the graph that uses them.

One safetensors file. Its tensors are the packed weights, scales and biases, whose bytes are
what ``weights_kib`` promises; its metadata holds the graph as JSON. docs/lowbit-format.md
describes every field. Reading needs NumPy only, so a board reads it without torch.
"""

from __future__ import annotations

import json
import math
import mmap
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.atomic import write_bytes_atomic
from search_spaces.errors import InputError

FORMAT = "edge-nas-lowbit"
VERSION = 1

LARGEST_HEADER = 64 * 2**20
"""Bytes of a header beyond which a file is refused."""

_DTYPES = {
    "U8": "<u1",
    "I8": "<i1",
    "I16": "<i2",
    "I32": "<i4",
    "I64": "<i8",
    "F16": "<f2",
    "F32": "<f4",
}
_DTYPE_NAMES = {np.dtype(text): name for name, text in _DTYPES.items()}


@dataclass(frozen=True)
class Encoding:
    """How integer weight codes are written in few bits: ``code = low + stride * field``.

    Attributes:
        bits: of a field, 1 to 16.
        low: code of the field 0.
        stride: 1; 2 for grids without a zero, such as the -1 and +1 of binary weights.
    """

    bits: int
    low: int
    stride: int = 1

    @classmethod
    def for_codes(cls, codes: np.ndarray, bits: int, *, name: str = "weights") -> Encoding:
        """Return the encoding of ``codes`` in ``bits``: two's complement range, or odd codes.

        Raises:
            InputError: they do not fit.
        """
        low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
        least, most = (int(codes.min()), int(codes.max())) if codes.size else (0, 0)
        if low <= least and most <= high:
            return cls(bits, low)
        odd = 2**bits - 1
        if -odd <= least and most <= odd and (np.asarray(codes) & 1).all():
            return cls(bits, -odd, 2)
        raise InputError(f"{name}: codes {least}..{most} do not fit {bits} bits")


def pack_codes(codes: np.ndarray, encoding: Encoding) -> np.ndarray:
    """Return integer ``codes`` of any shape as a dense bit stream, (ceil(size * bits / 8),) uint8.

    Codes follow each other in row-major order without padding; the least significant bit of a
    field comes first, and fills the least significant bit of a byte.
    """
    fields = (np.asarray(codes, np.int64).reshape(-1) - encoding.low) // encoding.stride
    if fields.size and (fields.min() < 0 or fields.max() >= 2**encoding.bits):
        raise InputError(f"codes do not fit {encoding}")
    single = (fields[:, None] >> np.arange(encoding.bits)) & 1
    return np.packbits(single.astype(np.uint8).reshape(-1), bitorder="little")


def unpack_codes(packed: np.ndarray, encoding: Encoding, shape: tuple[int, ...]) -> np.ndarray:
    """Return the codes that :func:`pack_codes` packed, int32 in ``shape``.

    Raises:
        InputError: the number of bytes does not match the shape.
    """
    count = math.prod(shape)
    if len(packed) != (count * encoding.bits + 7) // 8:
        raise InputError(f"{len(packed)} bytes do not hold {count} codes of {encoding.bits} bits")
    bits = np.unpackbits(packed, count=count * encoding.bits, bitorder="little")
    weights = (1 << np.arange(encoding.bits)).astype(np.int32)
    fields = bits.reshape(count, encoding.bits).astype(np.int32) @ weights
    return (encoding.low + encoding.stride * fields).reshape(shape).astype(np.int32)


def fill_factors(codes: np.ndarray, fill: int) -> np.ndarray:
    """Return the factor of each output channel's codes, (out,) int32.

    ``fill`` is the largest code that a factor may lead to (127 or 64); 0 stands for no factor.
    Scales and biases of a file are in units of the codes times their factor, which makes a
    bias in whole units fine enough.
    """
    if fill == 0:
        return np.ones(len(codes), np.int32)
    size = np.abs(codes.astype(np.int32)).reshape(len(codes), -1).max(1)
    return np.maximum(fill // np.maximum(size, 1), 1).astype(np.int32)


@dataclass(frozen=True)
class PackedModel:
    """A network of packed weights.

    Attributes:
        graph: JSON-able description, see docs/lowbit-format.md.
        tensors: name -> array.
        metadata: further text of the file.
    """

    graph: dict[str, Any]
    tensors: dict[str, np.ndarray]
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def weights_kib(self) -> float:
        """KiB of packed weights, scales and biases, and of other operations' float parameters."""
        packed = sum(tensor.nbytes for tensor in self.tensors.values())
        constants = (c for node in self.nodes() for c in node.get("constants", {}).values())
        arrays = (np.asarray(c) for c in constants)
        floats = sum(a.size for a in arrays if a.ndim and a.dtype.kind == "f")
        return (packed + 4 * floats) / 1024

    def nodes(self) -> list[dict[str, Any]]:
        """Return the nodes in order of execution."""
        return self.graph["nodes"]

    def codes(self, weights: Mapping[str, Any]) -> np.ndarray:
        """Return the unpacked codes, int32 in their shape, of a node's ``weights`` entry."""
        encoding = Encoding(weights["bits"], weights["low"], weights["stride"])
        return unpack_codes(self.tensors[weights["codes"]], encoding, tuple(weights["shape"]))


def write_packed_model(path: Path, model: PackedModel) -> int:
    """Write ``model`` atomically; returns the bytes of the file."""
    header: dict[str, Any] = {
        "__metadata__": {
            **model.metadata,
            "format": FORMAT,
            "version": str(VERSION),
            "graph": json.dumps(model.graph, separators=(",", ":")),
        }
    }
    chunks, offset = [], 0
    # Wide types first, so that every tensor is aligned to its own size.
    for name in sorted(model.tensors, key=lambda n: (-model.tensors[n].itemsize, n)):
        array = np.ascontiguousarray(model.tensors[name])
        array = array.astype(array.dtype.newbyteorder("<"), copy=False)
        if array.dtype not in _DTYPE_NAMES:
            raise InputError(f"{name}: a {array.dtype} tensor has no place in a low-bit model")
        header[name] = {
            "dtype": _DTYPE_NAMES[array.dtype],
            "shape": list(array.shape),
            "data_offsets": [offset, offset + array.nbytes],
        }
        offset += array.nbytes
        chunks.append(array.tobytes())
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    data = b"".join([len(text).to_bytes(8, "little"), text, *chunks])
    write_bytes_atomic(Path(path), data)
    return len(data)


def read_packed_model(path: Path) -> PackedModel:
    """Read a low-bit model file.

    The tensors are views of the file, mapped into memory: they cost none until they are read, and
    their pages go back to the system when nothing refers to them any more. Replace a file in use,
    as :func:`write_packed_model` does; do not write into it.

    Raises:
        InputError: the file is missing, torn, or of another format or version.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            empty = os.fstat(file.fileno()).st_size == 0
            data = b"" if empty else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from error
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(LARGEST_HEADER, len(data) - 8):
        raise InputError(f"{path} is no safetensors file, or is cut off")
    try:
        header = json.loads(data[8 : 8 + size])
        metadata = dict(header.pop("__metadata__", {}))
    except (UnicodeDecodeError, ValueError, AttributeError) as error:
        raise InputError(f"{path} is no safetensors file: {error}") from error
    if metadata.pop("format", None) != FORMAT:
        raise InputError(
            f"{path} is no low-bit model; search_spaces.model_files.packing writes one"
        )
    if (version := metadata.pop("version", None)) != str(VERSION):
        raise InputError(f"{path} has version {version!r}; this program reads version {VERSION}")
    body = memoryview(data)[8 + size :]
    tensors = {name: _tensor(path, name, entry, body) for name, entry in header.items()}
    try:
        graph = json.loads(metadata.pop("graph"))
    except (KeyError, ValueError) as error:
        raise InputError(f"{path} has no readable graph: {error}") from error
    return PackedModel(graph, tensors, metadata)


def _tensor(path: Path, name: str, entry: Any, body: memoryview) -> np.ndarray:
    try:
        dtype, shape = np.dtype(_DTYPES[entry["dtype"]]), tuple(entry["shape"])
        start, stop = entry["data_offsets"]
        fits = 0 <= start <= stop <= len(body) and all(s >= 0 for s in shape)
        fits = fits and stop - start == math.prod(shape) * dtype.itemsize
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{path}: the tensor {name!r} is described wrongly: {error}") from error
    if not fits:
        raise InputError(f"{path}: the tensor {name!r} does not fit the file; it may be cut off")
    return np.frombuffer(body[start:stop], dtype).reshape(shape)
