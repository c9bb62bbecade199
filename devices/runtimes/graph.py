"""An ONNX file as plain nodes and NumPy constants, for the runtimes that build from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from search_spaces.errors import InputError, MissingExtraError


@dataclass(frozen=True)
class Node:
    """An operation. ``inputs`` hold "" where an optional one is left out."""

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int) -> str:
        """Return an input's name, "" when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Graph:
    """Nodes in order of execution; what depends on constants alone is a constant already.

    Attributes:
        inputs: names of the model's inputs, without constants.
        outputs: names of its outputs.
        constants: name -> value.
        types: name of an input -> NumPy type.
        shapes: name of an input -> shape, None where open.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]

    def users(self) -> dict[str, list[Node]]:
        """Return tensor name -> the nodes that read it."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in set(node.inputs):
                users.setdefault(name, []).append(node)
        return users

    def quantised_constant(self, node: Node) -> bool:
        """Whether ``node`` dequantises a constant."""
        return node.op == "DequantizeLinear" and node.input(0) in self.constants


def read_graph(path: Path) -> Graph:
    """Read an ONNX file.

    Raises:
        InputError: the file is no ONNX model.
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "search") from error
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: no ONNX model: {error}") from error
    if not model.graph.node:
        raise InputError(f"{path}: no ONNX model: it has no nodes")
    constants = {i.name: _plain(numpy_helper.to_array(i)) for i in model.graph.initializer}
    nodes = []
    for proto in model.graph.node:
        attributes = {a.name: _attribute(onnx, a) for a in proto.attribute}
        node = Node(proto.op_type, tuple(proto.input), tuple(proto.output), attributes)
        value = _fold(node, constants)
        if value is None:
            nodes.append(node)
        else:
            constants[node.output] = value
    values = [v for v in model.graph.input if v.name not in constants]
    return Graph(
        nodes=tuple(nodes),
        inputs=tuple(v.name for v in values),
        outputs=tuple(v.name for v in model.graph.output),
        constants=constants,
        types={v.name: _type(onnx, v.type.tensor_type.elem_type) for v in values},
        shapes={v.name: _shape(v) for v in values},
    )


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
        wanted = [int(n) for n in sizes]
    elif scales is not None and len(scales):
        wanted = [int(n * scale) for n, scale in zip(shape, scales, strict=True)]
    else:
        raise InputError("Resize to a computed size; export it with a constant size")
    if wanted[:2] != list(shape[:2]):
        raise InputError(f"Resize of {tuple(shape)} to {tuple(wanted)} is no resizing of images")
    return wanted[2], wanted[3]


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, onnx.TensorProto):
        return _plain(onnx.numpy_helper.to_array(value))
    return list(value) if hasattr(value, "__len__") and not isinstance(value, str) else value


def _plain(array: np.ndarray) -> np.ndarray:
    """Return 2- and 4-bit integers, which NumPy lacks, as 8-bit ones."""
    if array.dtype.kind in "fiub":
        return array
    name = array.dtype.name
    return array.astype(np.uint8 if name.startswith("u") else np.int8)


def _fold(node: Node, constants: Mapping[str, np.ndarray]) -> np.ndarray | None:
    """Return the node's value where its inputs are constants and it is one of a few."""
    if node.op == "Constant":
        for name in ("value", "value_float", "value_int", "value_floats", "value_ints"):
            if name in node.attributes:
                value = node.attributes[name]
                kind = {"value_float": np.float32, "value_floats": np.float32}.get(name)
                return np.asarray(value, dtype=kind)
        return None
    known = [constants.get(name) for name in node.inputs if name]
    if not known or any(value is None for value in known) or node.op not in _FOLDED:
        return None
    return np.asarray(_FOLDED[node.op](node, *known))


def _cast(node: Node, value: np.ndarray) -> np.ndarray:
    import onnx

    return value.astype(onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"]))


_FOLDED: dict[str, Callable[..., np.ndarray]] = {
    "Cast": _cast,
    "Identity": lambda node, x: x,
    "Mul": lambda node, x, y: x * y,
    "Add": lambda node, x, y: x + y,
    "Transpose": lambda node, x: x.transpose(node.attributes.get("perm")),
    "Reshape": lambda node, x, shape: x.reshape(shape.tolist()),
    "Unsqueeze": lambda node, x, axes: np.expand_dims(x, tuple(axes.tolist())),
}


def _type(onnx: Any, number: int) -> str:
    return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(number)).name


def _shape(value: Any) -> tuple[int | None, ...]:
    dims = value.type.tensor_type.shape.dim
    return tuple(d.dim_value if d.HasField("dim_value") and d.dim_value > 0 else None for d in dims)


def read_float_graph(path: Path, runtime: str) -> Graph:
    """Read an ONNX file for a runtime whose conversion keeps no quantisation.

    Raises:
        InputError: the file is no ONNX model, or is quantised: it would be measured in floats
            without a word.
    """
    graph = read_graph(path)
    if any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in graph.nodes):
        raise InputError(
            f"{path}: the conversion for {runtime} keeps no quantisation, so a quantised file "
            f"would be measured in floats without a word; give {runtime} the float file"
        )
    return graph
