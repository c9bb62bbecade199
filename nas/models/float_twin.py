"""The float network that a quantised ONNX file stands for: what it must be faster than."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    import onnx

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")


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
        InputError: the model is not quantised.
    """
    from onnx import helper

    graph = model.graph
    if not any(node.op_type in _QUANTIZERS for node in graph.node):
        raise InputError("the model holds no quantised tensor; it has no float twin but itself")
    constants = _folded(model)
    zero_point = {t.name: t for t in graph.initializer}
    renamed: dict[str, str] = {}
    codes: set[str] = set()  # what were codes: a Clip on them is a quantiser's
    positive: set[str] = set()
    nodes: list[onnx.NodeProto] = []

    def source(name: str) -> str:
        return renamed.get(name, name)

    for node in graph.node:
        if all(name in constants for name in node.output):
            continue
        first = source(node.input[0]) if node.input else ""
        if node.op_type == "QuantizeLinear":
            codes.add(node.output[0])
            renamed[node.output[0]] = first
            zero = zero_point.get(node.input[2]) if len(node.input) > 2 else None
            if (zero is None or not _signed(zero)) and first not in positive:
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
    twin.graph.initializer.extend(
        _tensor(value, name) for name, value in constants.items() if name in used
    )
    return twin


def _signed(zero: onnx.TensorProto) -> bool:
    from onnx import numpy_helper

    value = numpy_helper.to_array(zero)
    low = np.iinfo(value.dtype).min
    return bool(np.any(value != low))


def _tensor(value: np.ndarray, name: str) -> onnx.TensorProto:
    from onnx import numpy_helper

    return numpy_helper.from_array(value, name)


def _folded(model: onnx.ModelProto) -> dict[str, np.ndarray]:
    """Return the values of all constants, those included that nodes compute from constants."""
    import onnxruntime
    from onnx import helper, numpy_helper

    graph = model.graph
    known = {t.name for t in graph.initializer}
    plain = {
        t.name: numpy_helper.to_array(t) for t in graph.initializer if t.data_type in _whole_bytes()
    }
    nodes = []
    for node in graph.node:
        inputs = [name for name in node.input if name]
        if all(name in known for name in inputs) and (inputs or node.op_type == "Constant"):
            nodes.append(node)
            known.update(node.output)
    needed = {name for node in graph.node if node not in nodes for name in node.input}
    wanted = [name for node in nodes for name in node.output if name in needed]
    if not wanted:
        return plain
    part = type(model)()
    part.CopyFrom(model)
    for field in ("node", "input", "output", "value_info"):
        del getattr(part.graph, field)[:]
    part.graph.node.extend(nodes)
    part.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    values = dict(zip(wanted, session.run(wanted, {}), strict=True))
    # What only constants use is not needed; naming it here drops the nodes that compute it.
    others = {name: np.zeros(0) for node in nodes for name in node.output if name not in values}
    return plain | others | values


def _whole_bytes() -> tuple[int, ...]:
    from onnx import TensorProto

    small = {
        getattr(TensorProto, name)
        for name in ("INT2", "INT4", "UINT2", "UINT4")
        if hasattr(TensorProto, name)
    }
    return tuple(v for v in TensorProto.DataType.values() if v not in small and v)
