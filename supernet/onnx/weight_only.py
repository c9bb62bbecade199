"""Linear layers of weights in 2 or 4 bits as ONNX Runtime's ``MatMulNBits``, with them.

The operator (ONNX Runtime's contrib operators, ``com.microsoft.MatMulNBits``) multiplies floats by
``scale * (field - zero)`` with a scale for each ``block_size`` input channels of an output; at
``accuracy_level`` 4 it quantises activations to 8 bits as the low-bit runtime does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.graph import inputs_of
from search_spaces.model_files.grouped import GroupedWeights

if TYPE_CHECKING:
    import onnx

DOMAIN = "com.microsoft"
BITS = (2, 4)
"""Bits that ONNX Runtime has kernels for."""


def nbits_blob(fields: np.ndarray, bits: int, group: int) -> np.ndarray:
    """Return fields (outputs, channels) as the operator's ``B``, uint8 (outputs, groups, bytes)."""
    outputs, channels = fields.shape
    many = 8 // bits
    parts = np.asarray(fields, np.uint8).reshape(outputs, channels // group, group // many, many)
    shifts = np.arange(many, dtype=np.uint8) * np.uint8(bits)
    return np.bitwise_or.reduce(parts << shifts, axis=3)


def nbits_node(
    name: str, source: str, target: str, weights: GroupedWeights
) -> tuple[onnx.NodeProto, list[onnx.TensorProto]]:
    """Return a ``MatMulNBits`` node and its constants, named after ``name``.

    The bias and the factor of the input are not part of the operator: add them around it.

    Raises:
        InputError: bits, planes or a scale an output, which the operator has no form for.
    """
    from onnx import helper, numpy_helper

    if weights.bits not in BITS or weights.planes != 1:
        raise InputError(
            f"{name}: MatMulNBits holds 2 or 4 bits, not "
            f"{weights.planes} planes of {weights.bits}; such layers run in the runtime lowbit"
        )
    if not weights.group:
        raise InputError(f"{name}: MatMulNBits needs groups of 32, 64 or 128 channels")
    outputs, channels = weights.shape
    zero = weights.zero
    scales = weights.by_output(weights.scales)[..., 0].astype(np.float32)  # (outputs, groups)
    constants = [
        numpy_helper.from_array(
            nbits_blob(weights.codes()[0], weights.bits, weights.group), f"{name}.fields"
        ),
        numpy_helper.from_array(np.ascontiguousarray(scales), f"{name}.scales"),
    ]
    inputs = [source, f"{name}.fields", f"{name}.scales"]
    if weights.mins is not None:
        mins = weights.by_output(weights.mins[:, :, None])[..., 0].astype(np.float32)
        # A zero point of each group, as a float: scale * (field - zero).
        points = zero - np.divide(mins, scales, where=scales != 0, out=np.zeros_like(mins))
        constants.append(numpy_helper.from_array(points.astype(np.float32), f"{name}.zeros"))
        inputs.append(f"{name}.zeros")
    elif zero != 2 ** (weights.bits - 1):
        points = np.full(scales.shape, zero, np.float32)
        constants.append(numpy_helper.from_array(points, f"{name}.zeros"))
        inputs.append(f"{name}.zeros")
    node = helper.make_node(
        "MatMulNBits",
        inputs,
        [target],
        name,
        domain=DOMAIN,
        K=channels,
        N=outputs,
        bits=weights.bits,
        block_size=weights.group,
        accuracy_level=4,
    )
    return node, constants


def with_nbits(model: onnx.ModelProto, weights: Mapping[str, GroupedWeights]) -> onnx.ModelProto:
    """Return a float ONNX model whose named layers are ``MatMulNBits``.

    Args:
        model: with MatMul nodes, or Gemm nodes with ``transB``, of constant weights.
        weights: by node name, as ``supernet.weight_only.model.quantise_linear`` gives them; what
            they hold of a bias is left to the model's own.

    Raises:
        InputError: a name that no such node has, or a form that the operator does not hold.
    """
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    nodes, constants, used = [], [], set()
    for node in made.graph.node:
        name = node.name or node.output[0]
        grouped = weights.get(name)
        if grouped is None or node.op_type not in ("MatMul", "Gemm"):
            nodes.append(node)
            continue
        used.add(name)
        source, target = node.input[0], node.output[0]
        if grouped.factor is not None:
            constants.append(numpy_helper.from_array(grouped.factor, f"{name}.factor"))
            nodes.append(helper.make_node("Mul", [source, f"{name}.factor"], [f"{name}.scaled"]))
            source = f"{name}.scaled"
        bias = node.input[2] if node.op_type == "Gemm" and len(node.input) > 2 else ""
        product, own = nbits_node(name, source, f"{name}.product" if bias else target, grouped)
        nodes.append(product)
        constants += own
        if bias:
            nodes.append(helper.make_node("Add", [f"{name}.product", bias], [target]))
    if unknown := set(weights) - used:
        raise InputError(f"the model has no MatMul or Gemm named {', '.join(sorted(unknown))}")
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    read = {name for node in nodes for name in node.input}
    kept = [item for item in made.graph.initializer if item.name in read]
    del made.graph.initializer[:]
    made.graph.initializer.extend([*kept, *constants])
    if DOMAIN not in {opset.domain for opset in made.opset_import}:
        made.opset_import.append(helper.make_opsetid(DOMAIN, 1))
    return made


def linear_inputs(
    model: onnx.ModelProto, samples: np.ndarray, names: Iterable[str]
) -> dict[str, np.ndarray]:
    """Return what layers of an ONNX model are given, (rows, channels) by node name.

    Args:
        model: float, with one input.
        samples: for that input, the first axis its batch.
        names: of MatMul or Gemm nodes.
    """
    import onnx
    import onnxruntime as ort

    wanted = set(names)
    probe = onnx.ModelProto()
    probe.CopyFrom(model)
    sources = {
        node.name or node.output[0]: node.input[0]
        for node in probe.graph.node
        if (node.name or node.output[0]) in wanted
    }
    inputs = inputs_of(probe.graph)
    if len(inputs) != 1:
        raise InputError(f"calibration needs a model with one input, not {len(inputs)}")
    there = {inputs[0].name, *(o.name for o in probe.graph.output)}
    for source in dict.fromkeys(sources.values()):
        if source not in there:
            probe.graph.output.append(onnx.ValueInfoProto(name=source))
    session = ort.InferenceSession(probe.SerializeToString(), providers=["CPUExecutionProvider"])
    outputs = [o.name for o in session.get_outputs()]
    values = dict(zip(outputs, session.run(outputs, {inputs[0].name: samples}), strict=True))
    values[inputs[0].name] = samples
    return {
        name: np.asarray(values[source]).reshape(-1, np.shape(values[source])[-1])
        for name, source in sources.items()
    }
