"""Weights of fewer than 8 bits, stored as bytes for runtimes that know no smaller type."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from search_spaces.errors import InputError, MissingExtraError
from search_spaces.model_files.graph import graph_of
from search_spaces.model_files.messages import plain

_APART = ("BitShift", "BitwiseAnd")
"""Operators that take bytes apart to smaller integers."""

_SMALL = ("INT2", "INT4", "UINT2", "UINT4")


def with_whole_bytes(path: Path, *, extra: str) -> bytes | None:
    """Return an ONNX file whose constants of 2 and 4 bits are wider, value for value.

    They may be tensors of such a type, or bytes that operations take apart.

    Args:
        path: of the file.
        extra: which to install where the package onnx is missing.

    Returns:
        the serialised model, or None when the file has no such constant and can be read as
        it is.

    Raises:
        InputError: it is no ONNX file.
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", extra) from error
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(str(path))
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path} is no ONNX file: {str(error).splitlines()[0]}") from error
    small = {number for name, number in onnx.TensorProto.DataType.items() if name in _SMALL}
    changed = False
    for tensor in _constants(model.graph):
        if tensor.data_type in small:
            values = plain(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
            changed = True
    if any(node.op_type in _APART for node in model.graph.node):
        changed = _fold(model) or changed
    return model.SerializeToString() if changed else None


def _fold(model: Any) -> bool:
    """Compute the integers that follow from constants alone; whether there were any."""
    from onnx import numpy_helper

    graph = graph_of(model)
    known = {n for n, value in graph.constants.items() if value.dtype.kind in "iu"}
    kept = [node for node in model.graph.node if not known.issuperset(node.output)]
    if len(kept) == len(model.graph.node):
        return False
    made = {name for node in model.graph.node for name in node.output}
    made -= {name for node in kept for name in node.output}
    wanted = {name for node in kept for name in node.input}
    wanted |= {output.name for output in model.graph.output}
    held = [item for item in model.graph.initializer if item.name in wanted]
    held += [numpy_helper.from_array(graph.constants[n], n) for n in sorted(made & wanted)]
    del model.graph.node[:], model.graph.initializer[:]
    model.graph.node.extend(kept)
    model.graph.initializer.extend(held)
    return True


def _constants(graph: Any) -> Iterator[Any]:
    """Yield the constant tensors of a graph, those of its inner graphs too."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                yield attribute.t
            for inner in (attribute.g, *attribute.graphs):
                yield from _constants(inner)
