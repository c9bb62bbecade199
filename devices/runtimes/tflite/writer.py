"""ONNX graphs as LiteRT (TensorFlow Lite) files, quantised ones on int8 throughout.

The official converters start from a framework's module and bring several hundred MiB of it,
and none reads the QDQ form; a network's few operators map to LiteRT's one to one. Images are
(batch, height, width, channels) in LiteRT, so feature maps keep that order from the first
convolution to the last, and a tensor is turned only where an operator needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtime import TensorSpec
from devices.runtimes.graph import largest_axis, require_float, resized
from devices.runtimes.tflite.file import TO_NHWC, LiteRtWriter, Value
from devices.runtimes.tflite.weighted import (
    activation_of,
    float_relu,
    write_conv,
    write_linear,
    write_matmul,
)
from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node

_ONE = 64
"""Code of the number 1 in the constant that codes are multiplied by to reach another grid."""


def _quantize(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    scale, zero = writer.grid(node)
    if (x.scale, x.zero) == (scale, zero):
        writer.values[node.output] = x
        return
    if not writer.integers_only:
        x = writer.floats(x)
    result = writer.result(node, replace(x, scale=scale, zero=zero))
    if x.scale is None:
        writer.operator("QUANTIZE", [x.index], [result.index], "QuantizeOptions")
        return
    # QUANTIZE knows the ratio of two steps to 1/256 in XNNPACK, and elsewhere rounds twice, wrongly
    # for up to 7 % of the codes; a product has six bits more before it rounds.
    one = writer.constant(np.array([_ONE], np.int8), scale=1 / _ONE)
    writer.operator(
        "MUL", [x.index, one], [result.index], "MulOptions",
        fusedActivationFunction=activation_of(writer, False),
    )  # fmt: skip


def _dequantize(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    scale, zero = writer.grid(node)
    if x.scale is None:
        raise InputError("a tensor is dequantised that was never quantised")
    # The codes may have been cut or moved since; the grid is the file's.
    writer.values[node.output] = replace(x, scale=scale, zero=zero)


def _clip(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    low = writer.graph.constants.get(node.input(1))
    high = writer.graph.constants.get(node.input(2))
    if x.scale is not None:
        if low is not None or high is None:
            raise InputError("codes are cut from above only")
        top = int(high) - (128 if high.dtype == np.uint8 else 0)
        limit = writer.constant(np.array(top, np.int8), scale=x.scale, zero=x.zero)
        result = writer.result(node, x)
        writer.operator("MINIMUM", [x.index, limit], [result.index], "MaximumMinimumOptions")
        return
    for name, bound in (("MAXIMUM", low), ("MINIMUM", high)):
        if bound is not None:
            out = writer.new(x, name.lower())
            limit = writer.constant(np.asarray(bound, dtype=np.float32))
            writer.operator(name, [x.index, limit], [out.index], "MaximumMinimumOptions")
            x = out
    writer.values[node.output] = x


def _binary(name: str, options: str, *, quantised: bool) -> Callable[[LiteRtWriter, Node], None]:
    def write(writer: LiteRtWriter, node: Node) -> None:
        x, y = (writer.value(n) for n in node.inputs)
        both = x.scale is not None and y.scale is not None and quantised
        x, y = _aligned(writer, x, y)
        shape = np.broadcast_shapes(x.shape, y.shape)
        like = Value(-1, shape, x.turned or y.turned)
        found = writer.quantised_result(node, like) if both else None
        if found is not None:
            result, relu = found
        else:
            x, y = writer.floats(x), writer.floats(y)
            output, relu = float_relu(writer, node)
            result = writer.values[output] = writer.new(like, output)
        writer.operator(
            name, [x.index, y.index], [result.index], options,
            fusedActivationFunction=activation_of(writer, relu),
        )  # fmt: skip

    return write


def _aligned(writer: LiteRtWriter, x: Value, y: Value) -> tuple[Value, Value]:
    """Return both operands in one order of axes."""
    if x.turned == y.turned:
        return x, y
    turned, other = (x, y) if x.turned else (y, x)
    if int(np.prod(other.shape)) == 1:
        return x, y
    if len(other.shape) == 4:
        other = writer.turn(other)
    elif len(other.shape) < 4:
        full = (*[1] * (4 - len(other.shape)), *other.shape)
        other = writer.turn(writer.reshape(other, full, "expanded"))
    return (turned, other) if x.turned else (other, turned)


def _unary(name: str, options: str = "") -> Callable[[LiteRtWriter, Node], None]:
    def write(writer: LiteRtWriter, node: Node) -> None:
        x = writer.floats(writer.value(node.input(0)))
        result = writer.result(node, x)
        writer.operator(name, [x.index], [result.index], options)

    return write


def _hswish(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    like = replace(x, scale=None)
    found = writer.quantised_result(node, like) if x.scale is not None else None
    if found is None:
        x = writer.floats(x)
        result = writer.result(node, x)
    else:
        result, _ = found
    writer.operator("HARD_SWISH", [x.index], [result.index], "HardSwishOptions")


def _hsigmoid(writer: LiteRtWriter, node: Node) -> None:
    x = writer.floats(writer.value(node.input(0)))
    for name, options, key, default in (
        ("MUL", "MulOptions", "alpha", 0.2),
        ("ADD", "AddOptions", "beta", 0.5),
    ):
        out = writer.new(x, name.lower())
        number = writer.constant(np.float32(node.attributes.get(key, default)).reshape(1))
        writer.operator(name, [x.index, number], [out.index], options)
        x = out
    result = writer.result(node, x)
    writer.operator("RELU_0_TO_1", [x.index], [result.index])


def _global_pool(writer: LiteRtWriter, node: Node) -> None:
    x = writer.turn(writer.value(node.input(0)))
    like = replace(x, shape=(*x.shape[:2], 1, 1), scale=None)
    found = writer.quantised_result(node, like) if x.scale is not None else None
    if found is None:
        x = writer.floats(x)
        result = writer.result(node, like)
    else:
        result, _ = found
    axes = writer.constant(np.array([1, 2], dtype=np.int32))
    # Kept axes would choose a kernel of LiteRT that rounds the share of the zero point by itself,
    # by up to half a code.
    flat = writer.new(replace(result, shape=x.shape[:2], turned=False), "mean")
    writer.operator("MEAN", [x.index, axes], [flat.index], "ReducerOptions", keepDims=False)
    shape = np.array(result.stored, dtype=np.int32)
    writer.operator(
        "RESHAPE", [flat.index, writer.constant(shape)], [result.index], "ReshapeOptions",
        newShape=shape,
    )  # fmt: skip


def _reduce_mean(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    named = writer.graph.constants.get(node.input(1))
    numbers = named if named is not None else node.attributes["axes"]
    axes = [int(n) % len(x.shape) for n in numbers]
    keep = bool(node.attributes.get("keepdims", 1))
    if x.turned and keep and sorted(axes) == [2, 3]:
        _global_pool(writer, node)
        return
    x = writer.plain(writer.floats(x))
    shape = tuple(1 if i in axes else n for i, n in enumerate(x.shape) if keep or i not in axes)
    result = writer.result(node, Value(-1, shape))
    where = writer.constant(np.array(axes, dtype=np.int32))
    writer.operator("MEAN", [x.index, where], [result.index], "ReducerOptions", keepDims=keep)


def _pool(name: str) -> Callable[[LiteRtWriter, Node], None]:
    def write(writer: LiteRtWriter, node: Node) -> None:
        a = node.attributes
        x = writer.turn(writer.value(node.input(0)))
        kernel, strides = a["kernel_shape"], a.get("strides", [1, 1])
        if any(a.get("pads", [])) or a.get("ceil_mode"):
            raise InputError(f"{node.op} with padding has no LiteRT counterpart")
        size = [(x.shape[2 + i] - kernel[i]) // strides[i] + 1 for i in (0, 1)]
        result = writer.result(node, replace(x, shape=(*x.shape[:2], *size)))
        writer.operator(
            name, [x.index], [result.index], "Pool2DOptions",
            padding=writer.schema.Padding.VALID, filterHeight=kernel[0], filterWidth=kernel[1],
            strideH=strides[0], strideW=strides[1],
        )  # fmt: skip

    return write


def _flatten(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    axis = node.attributes.get("axis", 1)
    shape = (int(np.prod(x.shape[:axis])), int(np.prod(x.shape[axis:])))
    writer.values[node.output] = writer.reshape(x, shape, node.output)


def _reshape(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    wanted = [int(n) for n in writer.graph.constants[node.input(1)]]
    shape = [x.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    if -1 in shape:
        known = -int(np.prod(shape))
        shape[shape.index(-1)] = int(np.prod(x.shape)) // known
    writer.values[node.output] = writer.reshape(x, shape, node.output)


def _transpose(writer: LiteRtWriter, node: Node) -> None:
    x = writer.plain(writer.value(node.input(0)))
    order = node.attributes["perm"]
    result = writer.result(node, replace(x, shape=tuple(x.shape[i] for i in order)))
    permutation = writer.constant(np.array(order, dtype=np.int32))
    writer.operator("TRANSPOSE", [x.index, permutation], [result.index], "TransposeOptions")


def _softmax(writer: LiteRtWriter, node: Node) -> None:
    x = writer.plain(writer.floats(writer.value(node.input(0))))
    if node.attributes.get("axis", -1) not in (-1, len(x.shape) - 1):
        raise InputError("Softmax over an axis other than the last has no LiteRT counterpart")
    result = writer.result(node, x)
    writer.operator("SOFTMAX", [x.index], [result.index], "SoftmaxOptions", beta=1.0)


def _concat(writer: LiteRtWriter, node: Node) -> None:
    parts = [writer.floats(writer.value(name)) for name in node.inputs]
    turned = all(part.turned for part in parts)
    parts = parts if turned else [writer.plain(part) for part in parts]
    axis = node.attributes["axis"] % len(parts[0].shape)
    shape = list(parts[0].shape)
    shape[axis] = sum(part.shape[axis] for part in parts)
    result = writer.result(node, Value(-1, tuple(shape), turned))
    at = TO_NHWC.index(axis) if turned else axis
    indices = [part.index for part in parts]
    writer.operator("CONCATENATION", indices, [result.index], "ConcatenationOptions", axis=at)


def _split(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    axis = node.attributes.get("axis", 0) % len(x.shape)
    count, total = len(node.outputs), x.shape[axis]
    part = -(-total // count)
    equal = [min(part, total - i * part) for i in range(count)]
    sizes = [int(n) for n in writer.graph.constants.get(node.input(1), equal)]
    at = TO_NHWC.index(axis) if x.turned else axis
    results = []
    for name, size in zip(node.outputs, sizes, strict=True):
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        results.append(writer.new(replace(x, shape=shape), name))
        writer.values[name] = results[-1]
    writer.operator(
        "SPLIT_V",
        [
            x.index,
            writer.constant(np.array(sizes, dtype=np.int32)),
            writer.constant(np.array(at, dtype=np.int32)),
        ],
        [result.index for result in results],
        "SplitVOptions",
        numSplits=count,
    )


def _resize(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    scales, sizes = (writer.graph.constants.get(node.input(i)) for i in (2, 3))
    height, width = resized(node, x.shape, scales, sizes)
    x = writer.turn(x)
    result = writer.result(node, replace(x, shape=(*x.shape[:2], height, width)))
    size = writer.constant(np.array([height, width], dtype=np.int32))
    writer.operator(
        "RESIZE_NEAREST_NEIGHBOR",
        [x.index, size],
        [result.index],
        "ResizeNearestNeighborOptions",
        alignCorners=False,
        halfPixelCenters=False,
    )


def _layer_norm(writer: LiteRtWriter, node: Node) -> None:
    x = writer.plain(writer.floats(writer.value(node.input(0))))
    rank = len(x.shape)
    first = node.attributes.get("axis", -1) % rank
    axes = writer.constant(np.arange(first, rank, dtype=np.int32))
    reduced = Value(-1, (*x.shape[:first], *[1] * (rank - first)))

    def step(name: str, inputs: list[int], like: Value, options: str = "", **fields: Any) -> Value:
        out = writer.new(like, name.lower())
        writer.operator(name, inputs, [out.index], options, **fields)
        return out

    mean = step("MEAN", [x.index, axes], reduced, "ReducerOptions", keepDims=True)
    centred = step("SUB", [x.index, mean.index], x, "SubOptions")
    squared = step("MUL", [centred.index, centred.index], x, "MulOptions")
    variance = step("MEAN", [squared.index, axes], reduced, "ReducerOptions", keepDims=True)
    epsilon = writer.constant(np.float32(node.attributes.get("epsilon", 1e-5)).reshape(1))
    shifted = step("ADD", [variance.index, epsilon], reduced, "AddOptions")
    root = step("RSQRT", [shifted.index], reduced)
    normal = step("MUL", [centred.index, root.index], x, "MulOptions")
    scaled = step("MUL", [normal.index, writer.value(node.input(1)).index], x, "MulOptions")
    if node.input(2):
        bias = writer.value(node.input(2)).index
        scaled = step("ADD", [scaled.index, bias], x, "AddOptions")
    writer.values[node.output] = scaled


def _cast(writer: LiteRtWriter, node: Node) -> None:
    require_float(node, "LiteRT")
    x = writer.value(node.input(0))
    result = writer.result(node, x)
    writer.operator("CAST", [x.index], [result.index], "CastOptions")


def _arg_max(writer: LiteRtWriter, node: Node) -> None:
    x = writer.plain(writer.floats(writer.value(node.input(0))))
    axis = largest_axis(node, "LiteRT") % len(x.shape)
    shape = tuple(n for i, n in enumerate(x.shape) if i != axis)
    index = writer.tensor(shape, np.dtype(np.int64), node.output)
    writer.operator(
        "ARG_MAX", [x.index, writer.constant(np.array(axis, np.int32))], [index],
        "ArgMaxOptions", outputType=writer.schema.TensorType.INT64,
    )  # fmt: skip
    writer.values[node.output] = Value(index, shape)


def _identity(writer: LiteRtWriter, node: Node) -> None:
    writer.values[node.output] = writer.value(node.input(0))


_WRITERS: dict[str, Callable[[LiteRtWriter, Node], None]] = {
    "Conv": write_conv,
    "Gemm": write_linear,
    "MatMul": write_matmul,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Clip": _clip,
    "Add": _binary("ADD", "AddOptions", quantised=True),
    "Sub": _binary("SUB", "SubOptions", quantised=True),
    "Mul": _binary("MUL", "MulOptions", quantised=True),
    "Div": _binary("DIV", "DivOptions", quantised=False),
    "Relu": _unary("RELU"),
    "Sigmoid": _unary("LOGISTIC"),
    "Tanh": _unary("TANH"),
    "Gelu": _unary("GELU", "GeluOptions"),
    "HardSwish": _hswish,
    "HardSigmoid": _hsigmoid,
    "GlobalAveragePool": _global_pool,
    "ReduceMean": _reduce_mean,
    "MaxPool": _pool("MAX_POOL_2D"),
    "AveragePool": _pool("AVERAGE_POOL_2D"),
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Softmax": _softmax,
    "Concat": _concat,
    "Split": _split,
    "Resize": _resize,
    "LayerNormalization": _layer_norm,
    "Identity": _identity,
    "Cast": _cast,
    "ArgMax": _arg_max,
    "Log": _unary("LOG"),
}


def write_litert(
    schema: Any,
    graph: Graph,
    path: Path,
    inputs: Sequence[TensorSpec],
    *,
    output_grids: Mapping[str, tuple[float, int]] | None = None,
    integers_only: bool = False,
) -> LiteRtWriter:
    """Write a graph as a LiteRT file; returns the writer, which knows what became int8."""
    writer = LiteRtWriter(
        schema,
        graph,
        inputs,
        operators=_WRITERS,
        output_grids=output_grids,
        integers_only=integers_only,
    )
    path.write_bytes(writer.write())
    return writer
