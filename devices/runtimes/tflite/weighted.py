"""Operators with weights: convolutions, linear layers and products of matrices."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from devices.runtimes.tflite.file import LiteRtWriter, Value
from search_spaces.errors import InputError
from search_spaces.model_files.graph import Node


def activation_of(writer: LiteRtWriter, relu: bool) -> int:
    """Return LiteRT's number of the activation that an operator ends with."""
    kinds = writer.schema.ActivationFunctionType
    return kinds.RELU if relu else kinds.NONE


def float_relu(writer: LiteRtWriter, node: Node) -> tuple[str, bool]:
    """Return the name of the node's result and whether a ReLU is part of it."""
    users = writer.users.get(node.output, ())
    if len(users) == 1 and users[0].op == "Relu" and node.output not in writer.graph.outputs:
        writer.done.add(users[0].output)
        return users[0].output, True
    return node.output, False


def write_conv(writer: LiteRtWriter, node: Node) -> None:
    """Write a convolution, depthwise or full, with its padding, bias and ReLU."""
    a = node.attributes
    x = writer.turn(writer.value(node.input(0)))
    codes, scale = writer.weight(node.input(1))
    if codes.ndim != 4:
        raise InputError("LiteRT has two-dimensional convolutions only")
    groups = a.get("group", 1)
    out, (kh, kw) = codes.shape[0], codes.shape[2:]
    depthwise = groups > 1 and groups == x.shape[1]
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    x, same, size = _padded(writer, x, (kh, kw), strides, dilations, a.get("pads", [0] * 4))
    like = replace(x, shape=(x.shape[0], out, *size), scale=None, turned=True)
    quantised = None
    if x.scale is not None and scale is not None:
        quantised = writer.quantised_result(node, like)
    if quantised is not None and scale is not None:
        result, relu = quantised
        order = (1, 2, 3, 0) if depthwise else (0, 2, 3, 1)
        kernel = codes.transpose(2, 3, 1, 0).reshape(1, kh, kw, out) if depthwise else None
        data = kernel if kernel is not None else codes.transpose(order)
        weight = writer.constant(
            data.astype(np.int8), scale=_full(scale, out), axis=3 if depthwise else 0
        )
        bias = _bias_codes(writer, node, x.scale, scale, out)
        writer.products["int8"] += 1
    else:
        x = writer.floats(x)
        name, relu = float_relu(writer, node)
        data = writer.float_weight(node.input(1))
        kernel = (
            data.transpose(2, 3, 1, 0).reshape(1, kh, kw, out)
            if depthwise
            else data.transpose(0, 2, 3, 1)
        )
        weight = writer.constant(np.ascontiguousarray(kernel))
        bias = writer.constant(_bias(writer, node, out))
        result = writer.values[name] = writer.new(replace(like, scale=None), name)
        writer.products["float32"] += 1
    padding = writer.schema.Padding.SAME if same else writer.schema.Padding.VALID
    fields = {
        "padding": padding,
        "strideH": strides[0],
        "strideW": strides[1],
        "dilationHFactor": dilations[0],
        "dilationWFactor": dilations[1],
        "fusedActivationFunction": activation_of(writer, relu),
    }
    inputs = [x.index, weight, bias]
    if depthwise:
        fields["depthMultiplier"] = out // groups
        writer.operator(
            "DEPTHWISE_CONV_2D", inputs, [result.index], "DepthwiseConv2DOptions", **fields
        )
    else:
        writer.operator("CONV_2D", inputs, [result.index], "Conv2DOptions", **fields)


def _padded(
    writer: LiteRtWriter,
    x: Value,
    kernel: tuple[int, int],
    strides: Sequence[int],
    dilations: Sequence[int],
    pads: Sequence[int],
) -> tuple[Value, bool, tuple[int, int]]:
    """Return the input, padded if need be; whether padding is SAME; the output's size."""
    size, wanted = [], []
    for i in (0, 1):
        extent = dilations[i] * (kernel[i] - 1) + 1
        size.append((x.shape[2 + i] + pads[i] + pads[2 + i] - extent) // strides[i] + 1)
        total = max((size[i] - 1) * strides[i] + extent - x.shape[2 + i], 0)
        same_size = -(-x.shape[2 + i] // strides[i])
        wanted.append((total // 2, total - total // 2) if same_size == size[i] else None)
    given = [(pads[0], pads[2]), (pads[1], pads[3])]
    if not any(pads):
        return x, False, (size[0], size[1])
    if wanted == given:
        return x, True, (size[0], size[1])
    amounts = np.array([(0, 0), *given, (0, 0)], dtype=np.int32)
    shape = (*x.shape[:2], x.shape[2] + sum(given[0]), x.shape[3] + sum(given[1]))
    out = writer.new(replace(x, shape=shape), "padded")
    writer.operator("PAD", [x.index, writer.constant(amounts)], [out.index], "PadOptions")
    return out, False, (size[0], size[1])


def _full(scale: np.ndarray, out: int) -> np.ndarray:
    return np.broadcast_to(scale, (out,)).copy()


def _bias(writer: LiteRtWriter, node: Node, out: int) -> np.ndarray:
    if not node.input(2):
        return np.zeros(out, dtype=np.float32)
    return writer.float_weight(node.input(2)).reshape(out)


def _bias_codes(
    writer: LiteRtWriter, node: Node, step: float | None, scale: np.ndarray, out: int
) -> int:
    steps = np.float32(step) * _full(scale, out)
    codes = np.round(_bias(writer, node, out) / steps.astype(np.float64))
    limit = 2**31 - 1
    data = np.clip(codes, -limit, limit).astype(np.int32)
    return writer.constant(data, scale=steps, axis=0)


def write_linear(writer: LiteRtWriter, node: Node) -> None:
    """Gemm, or MatMul with a constant weight."""
    a = node.attributes
    if node.op == "Gemm" and (a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0):
        raise InputError("Gemm with alpha or beta has no LiteRT counterpart")
    if node.op == "Gemm" and a.get("transA"):
        raise InputError("Gemm with a transposed input has no LiteRT counterpart")
    x = writer.plain(writer.value(node.input(0)))
    turned = node.op == "Gemm" and bool(a.get("transB"))
    codes, scale = writer.weight(node.input(1), 0 if turned else 1)
    codes = codes if turned else codes.T
    out = codes.shape[0]
    like = replace(x, shape=(*x.shape[:-1], out), scale=None, turned=False)
    quantised = None
    if x.scale is not None and scale is not None:
        quantised = writer.quantised_result(node, like)
    if quantised is not None and scale is not None:
        result, relu = quantised
        weight = writer.constant(codes.astype(np.int8), scale=_full(scale, out), axis=0)
        bias = _bias_codes(writer, node, x.scale, scale, out)
        writer.products["int8"] += 1
    else:
        x = writer.floats(x)
        name, relu = float_relu(writer, node)
        data = writer.float_weight(node.input(1))
        weight = writer.constant(np.ascontiguousarray(data if turned else data.T))
        bias = writer.constant(_bias(writer, node, out))
        result = writer.values[name] = writer.new(like, name)
        writer.products["float32"] += 1
    writer.operator(
        "FULLY_CONNECTED",
        [x.index, weight, bias],
        [result.index],
        "FullyConnectedOptions",
        fusedActivationFunction=activation_of(writer, relu),
        keepNumDims=len(x.shape) > 2,
    )


def write_matmul(writer: LiteRtWriter, node: Node) -> None:
    """Write a product of matrices: a linear layer where one is constant."""
    if writer.graph.is_constant(node.input(1)):
        write_linear(writer, _with_bias(writer, node))
        return
    x, y = (writer.plain(writer.floats(writer.value(name))) for name in node.inputs)
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    shape = (*batch, x.shape[-2], y.shape[-1])
    result = writer.result(node, Value(-1, shape))
    writer.products["float32"] += 1
    writer.operator("BATCH_MATMUL", [x.index, y.index], [result.index], "BatchMatMulOptions")


def _with_bias(writer: LiteRtWriter, node: Node) -> Node:
    """Return a MatMul with the bias that is added to it, if one is, as its third input."""
    users = writer.users.get(node.output, ())
    if len(users) != 1 or users[0].op != "Add" or node.output in writer.graph.outputs:
        return node
    bias = next((name for name in users[0].inputs if name != node.output), "")
    if not writer.graph.is_constant(bias) or writer.weight(bias)[0].ndim != 1:
        return node
    writer.done.add(users[0].output)
    return Node(node.op, (*node.inputs[:2], bias), users[0].outputs, node.attributes)
