"""What several runtimes ask of the graph of an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node, read_graph


def resized(
    node: Node,
    shape: Sequence[int],
    scales: Sequence[float] | np.ndarray | None,
    sizes: Sequence[int] | np.ndarray | None,
) -> tuple[int, int]:
    """Return the height and width that a Resize of images makes.

    Args:
        node: the Resize.
        shape: (batch, channels, height, width) of its input.
        scales, sizes: its third and fourth input; one of them is left out.

    Raises:
        InputError: it interpolates, or rounds in another way than towards the first pixel.
    """
    a = node.attributes
    form = (
        a.get("mode", "nearest"),
        a.get("coordinate_transformation_mode", "half_pixel"),
        a.get("nearest_mode", "round_prefer_floor"),
    )
    if form != ("nearest", "asymmetric", "floor") or len(shape) != 4:
        raise InputError(
            f"Resize of {len(shape)} axes in the form {', '.join(form)}; "
            "only nearest, asymmetric, floor on images is supported"
        )
    if sizes is not None and len(sizes):
        wanted = list(sizes)
    elif scales is not None and len(scales):
        # The size of a batch may vary, and is no number then.
        wanted = [n if s == 1 else int(n * s) for n, s in zip(shape, scales, strict=True)]
    else:
        raise InputError("Resize to a computed size; export it with a constant size")
    if wanted[:2] != list(shape[:2]):
        raise InputError(f"Resize of {tuple(shape)} to {tuple(wanted)} is no resizing of images")
    return int(wanted[2]), int(wanted[3])


_FLOAT = 1
"""ONNX's number of float32."""


def require_float(node: Node, runtime: str) -> None:
    """Raise an InputError unless a Cast makes float32."""
    if node.attributes["to"] != _FLOAT:
        raise InputError(f"Cast to another type than float32 has no {runtime} counterpart")


def largest_axis(node: Node, runtime: str) -> int:
    """Return the axis along which an ArgMax looks.

    Raises:
        InputError: it takes the last of equals, or keeps the axis.
    """
    a = node.attributes
    if a.get("select_last_index", 0) or a.get("keepdims", 1):
        raise InputError(
            f"ArgMax of the last of equals, or that keeps its axis, has no {runtime} counterpart"
        )
    return int(a.get("axis", 0))


def read_float_graph(path: Path, runtime: str) -> Graph:
    """Read an ONNX file for a runtime whose conversion keeps no quantisation.

    Raises:
        InputError: the file is no ONNX model, or is quantised: it would be measured in floats
            without a word.
    """
    graph = read_graph(path)
    if graph.quantised:
        raise InputError(
            f"{path}: the conversion for {runtime} keeps no quantisation, so a quantised file "
            f"would be measured in floats without a word; give {runtime} the float file"
        )
    return graph
