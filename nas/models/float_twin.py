"""The float network that a quantised ONNX file stands for: what it must be faster than."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from search_spaces.errors import InputError, MissingExtraError
from search_spaces.model_files.graph import graph_of

if TYPE_CHECKING:
    import onnx


def write_float_twin(source: Path, path: Path) -> Path:
    """Write the float twin of a quantised ONNX file; returns ``path``.

    Raises:
        InputError: the file is not quantised.
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "search") from error
    onnx.save(float_twin(onnx.load(str(source))), str(path))
    return path


def float_twin(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` with float weights and activations: same layers, same weights' values.

    Weights are dequantised. Tensors between layers are no longer rounded; one whose codes begin
    at zero passes a ReLU, which that quantiser stands for. So the twin costs what the network
    would cost in float, and differs in its outputs by what rounding activations does.

    Raises:
        InputError: the model is not quantised, or codes are computed from constants in a way that
            is not known here.
    """
    from onnx import helper, numpy_helper

    graph = graph_of(model)
    if not graph.quantised:
        raise InputError("the model holds no quantised tensor; it has no float twin but itself")
    renamed: dict[str, str] = {}
    codes: set[str] = set()  # what were codes: a Clip on them is a quantiser's
    positive: set[str] = set()
    fixed: set[str] = set()  # what follows from constants and stays computed
    nodes: list[onnx.NodeProto] = []

    def source(name: str) -> str:
        return renamed.get(name, name)

    for node in model.graph.node:
        if graph.is_constant(node.output[0]):
            continue
        if node.input and all(n in fixed or graph.is_constant(n) for n in node.input if n):
            fixed.update(node.output)
            if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
                raise InputError(
                    f"{node.output[0]}: the {node.op_type} of constants cannot be computed here, "
                    "so the model has no float twin; let its exporter fold constants"
                )
        first = source(node.input[0]) if node.input else ""
        if node.op_type == "QuantizeLinear":
            codes.add(node.output[0])
            renamed[node.output[0]] = first
            grid = graph.grids.get(node.output[0])
            if first not in positive and (grid is None or grid.from_lowest()):
                name = f"{node.output[0]}.relu"
                nodes.append(helper.make_node("Relu", [first], [name], name=name))
                positive.add(name)
                renamed[node.output[0]] = name
            continue
        if node.op_type == "DequantizeLinear" or (
            node.op_type == "Clip" and node.input[0] in codes
        ):
            if node.op_type == "Clip":
                codes.add(node.output[0])
            renamed[node.output[0]] = first
            continue
        kept = type(node)()
        kept.CopyFrom(node)
        for i, name in enumerate(node.input):
            kept.input[i] = source(name)
        moved = node.op_type in ("MaxPool", "Reshape", "Flatten", "Transpose", "Identity")
        if node.op_type == "Relu" or (moved and first in positive):
            positive.update(node.output)
        nodes.append(kept)
    used = {name for node in nodes for name in node.input}
    twin = type(model)()
    twin.CopyFrom(model)
    del twin.graph.node[:], twin.graph.initializer[:], twin.graph.value_info[:]
    twin.graph.node.extend(nodes)
    stored = [tensor for tensor in model.graph.initializer if tensor.name in used]
    made = used - {tensor.name for tensor in stored}
    for node in model.graph.node:
        for name in made.intersection(node.output):
            value = graph.constant(name)
            if value is not None:
                stored.append(numpy_helper.from_array(value, name))
    twin.graph.initializer.extend(stored)
    return twin
