"""ONNX graphs as LiteRT (TensorFlow Lite) files, quantised ones on int8 throughout.

The official converters start from a framework's module and bring several hundred MiB of it,
and none reads the QDQ form; a network's few operators map to LiteRT's one to one. Images are
(batch, height, width, channels) in LiteRT, so feature maps keep that order from the first
convolution to the last, and a tensor is turned only where an operator needs it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtime import TensorSpec
from devices.runtimes.graph import Graph, Node, resized
from search_spaces.errors import InputError

_TO_NHWC, _TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)
_VERSION = 3

TURNED = ":nhwc"
"""Ends the name of an input that the file takes channels last."""


@dataclass(frozen=True)
class Value:
    """A tensor of the graph being built.

    Attributes:
        index: of the LiteRT tensor.
        shape: as in ONNX.
        turned: whether the LiteRT tensor is stored channels last.
        scale, zero: of int8 codes; ``scale`` None is a float tensor.
    """

    index: int
    shape: tuple[int, ...]
    turned: bool = False
    scale: float | None = None
    zero: int = 0

    @property
    def stored(self) -> tuple[int, ...]:
        """The shape as stored."""
        return tuple(self.shape[i] for i in _TO_NHWC) if self.turned else self.shape


class LiteRtWriter:
    """Builds one file.

    Args:
        schema: LiteRT's generated flatbuffers module.
        graph: what to write.
        inputs: its inputs, every axis known.
        output_grids: output name -> (scale, zero point) on int8, for a last layer that the
            file leaves in floats; without it that layer runs in floats.
        integers_only: go from one grid to another by one operator on codes, for devices
            without floats. XNNPACK knows the ratio of the steps to 1/256 there, which from 8 bits
            to 4 is a few per cent; otherwise the values pass through floats.

    Raises:
        InputError: an operator without a counterpart.
    """

    def __init__(
        self,
        schema: Any,
        graph: Graph,
        inputs: Sequence[TensorSpec],
        *,
        output_grids: Mapping[str, tuple[float, int]] | None = None,
        integers_only: bool = False,
    ) -> None:
        self.schema = schema
        self.integers_only = integers_only
        self.graph = graph
        self.output_grids = dict(output_grids or {})
        self.buffers: list[bytes] = [b""]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.values: dict[str, Value] = {}
        self.users = graph.users()
        self.done: set[int] = set()
        self.products = {"int8": 0, "float32": 0}
        self._consumed_by_conv = {
            node.input(0) for node in graph.nodes if node.op in ("Conv", "QuantizeLinear")
        }
        for spec in inputs:
            turned = len(spec.shape) == 4 and spec.name in self._consumed_by_conv
            value = Value(-1, spec.shape, turned)
            name = spec.name + (TURNED if turned else "")
            index = self.tensor(value.stored, np.dtype(spec.dtype), name)
            self.values[spec.name] = replace(value, index=index)
        self.input_indices = [self.values[spec.name].index for spec in inputs]

    def write(self) -> bytes:
        """Return the file's bytes."""
        for place, node in enumerate(self.graph.nodes):
            if place in self.done or self.graph.quantised_constant(node):
                continue
            if node.op not in _WRITERS:
                raise InputError(f"no LiteRT counterpart of the operator {node.op}")
            _WRITERS[node.op](self, node)
        outputs = [self.plain(self.floats(self.value(name))).index for name in self.graph.outputs]
        return self._pack(outputs)

    # Tensors and operators of the file.

    def tensor(
        self,
        shape: Sequence[int],
        dtype: np.dtype,
        name: str,
        *,
        data: np.ndarray | None = None,
        scale: np.ndarray | float | None = None,
        zero: int = 0,
        axis: int = 0,
    ) -> int:
        """Add a tensor and return its index."""
        s = self.schema
        tensor = s.TensorT()
        tensor.shape = np.array(shape, dtype=np.int32)
        tensor.type = {
            "float32": s.TensorType.FLOAT32,
            "int8": s.TensorType.INT8,
            "int32": s.TensorType.INT32,
            "int64": s.TensorType.INT64,
        }[dtype.name]
        tensor.name = name
        tensor.buffer = 0
        if data is not None:
            self.buffers.append(np.ascontiguousarray(data, dtype=dtype).tobytes())
            tensor.buffer = len(self.buffers) - 1
        if scale is not None:
            q = s.QuantizationParametersT()
            q.scale = np.atleast_1d(np.asarray(scale, dtype=np.float32))
            q.zeroPoint = np.full(len(q.scale), zero, dtype=np.int64)
            q.quantizedDimension = axis
            tensor.quantization = q
        self.tensors.append(tensor)
        return len(self.tensors) - 1

    def constant(self, data: np.ndarray, **options: Any) -> int:
        """Add a constant and return its index."""
        return self.tensor(data.shape, data.dtype, f"c{len(self.tensors)}", data=data, **options)

    def new(self, like: Value, name: str) -> Value:
        """Add the tensor of a value and return the value with its index."""
        dtype = np.dtype(np.float32 if like.scale is None else np.int8)
        index = self.tensor(like.stored, dtype, name, scale=like.scale, zero=like.zero)
        return replace(like, index=index)

    def operator(
        self,
        name: str,
        inputs: Sequence[int],
        outputs: Sequence[int],
        options: str = "",
        **fields: Any,
    ) -> None:
        """Add an operator; ``options`` is the name of its options table, ``fields`` go there."""
        s = self.schema
        code = getattr(s.BuiltinOperator, name)
        op = s.OperatorT()
        op.opcodeIndex = self.codes.setdefault(code, len(self.codes))
        op.inputs = np.array(inputs, dtype=np.int32)
        op.outputs = np.array(outputs, dtype=np.int32)
        if options:
            table = getattr(s, f"{options}T")()
            for key, value in fields.items():
                setattr(table, key, value)
            op.builtinOptionsType = getattr(s.BuiltinOptions, options)
            op.builtinOptions = table
        self.operators.append(op)

    # Values.

    def value(self, name: str) -> Value:
        """Return the value of a tensor name; a constant becomes one."""
        if name in self.values:
            return self.values[name]
        data = self.graph.constants.get(name)
        if data is None:
            data = self.float_weight(name, 0)
        self.values[name] = Value(self.constant(_supported(data)), data.shape)
        return self.values[name]

    def floats(self, value: Value) -> Value:
        """Return the value as floats."""
        if value.scale is None:
            return value
        out = self.new(replace(value, scale=None), "dequantised")
        self.operator("DEQUANTIZE", [value.index], [out.index], "DequantizeOptions")
        return out

    def turn(self, value: Value) -> Value:
        """Return a feature map stored channels last."""
        return value if value.turned else self._transposed(value, _TO_NHWC, turned=True)

    def plain(self, value: Value) -> Value:
        """Return the value stored in ONNX's order."""
        return self._transposed(value, _TO_NCHW, turned=False) if value.turned else value

    def _transposed(self, value: Value, order: Sequence[int], *, turned: bool) -> Value:
        out = self.new(replace(value, turned=turned), "turned")
        if value.shape[2:] == (1, 1) or value.shape[1] == 1:
            self._reshape(value.index, out)
        else:
            permutation = self.constant(np.array(order, dtype=np.int32))
            self.operator("TRANSPOSE", [value.index, permutation], [out.index], "TransposeOptions")
        return out

    def reshape(self, value: Value, shape: Sequence[int], name: str) -> Value:
        """Return the value with another shape, in ONNX's order of elements."""
        one_pixel = value.turned and value.shape[2:] == (1, 1)
        source = value if one_pixel else self.plain(value)
        out = self.new(replace(source, shape=tuple(shape), turned=False), name)
        self._reshape(source.index, out)
        return out

    def _reshape(self, index: int, out: Value) -> None:
        shape = np.array(out.stored, dtype=np.int32)
        self.operator(
            "RESHAPE", [index, self.constant(shape)], [out.index], "ReshapeOptions", newShape=shape
        )

    def result(self, node: Node, like: Value) -> Value:
        """Add the output of a float node."""
        self.values[node.output] = self.new(like, node.output)
        return self.values[node.output]

    # Quantised results: what a runtime fuses is one operator here.

    def grid_after(self, node: Node) -> tuple[list[int], str, float, int, bool] | None:
        """Return what quantises the node's output: places, name, grid, and whether a ReLU precedes.

        None where the output is used in any other way.
        """
        places, name, relu = [], node.output, False
        while True:
            users = self.users.get(name, [])
            if name in self.graph.outputs:
                return None
            if len(users) == 1 and users[0].op == "Relu" and not relu:
                relu = True
                places.append(self._where(users[0]))
                name = users[0].output
                continue
            if len(users) != 1 or users[0].op != "QuantizeLinear":
                return None
            scale, zero = self.grid(users[0])
            return [*places, self._where(users[0])], users[0].output, scale, zero, relu

    def grid(self, node: Node) -> tuple[float, int]:
        """Return scale and int8 zero point of a QuantizeLinear or DequantizeLinear."""
        scale = np.asarray(self.graph.constants[node.input(1)], dtype=np.float32)
        zero = self.graph.constants.get(node.input(2), np.zeros((), np.uint8))
        if scale.size != 1 or zero.dtype.name not in ("uint8", "int8"):
            raise InputError("LiteRT takes 8-bit activations with one scale a tensor")
        return float(scale), int(zero) - (128 if zero.dtype == np.uint8 else 0)

    def _where(self, node: Node) -> int:
        return next(i for i, other in enumerate(self.graph.nodes) if other is node)

    def quantised_result(self, node: Node, like: Value) -> tuple[Value, bool] | None:
        """Add the int8 output of ``node`` on the grid that follows it; None if none does.

        Returns:
            The output, and whether a ReLU belongs to the operator.
        """
        found = self.grid_after(node)
        if found is not None:
            places, name, scale, zero, relu = found
        else:
            last = self._last_name(node)
            if last not in self.output_grids:
                return None
            places, name, relu = [], node.output, False
            scale, zero = self.output_grids[last]
        self.done.update(places)
        self.values[name] = self.new(replace(like, scale=scale, zero=zero), name)
        return self.values[name], relu

    def _last_name(self, node: Node) -> str:
        users = self.users.get(node.output, [])
        return users[0].output if len(users) == 1 and users[0].op == "Identity" else node.output

    def weight(self, name: str) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a weight: floats, or codes with the scale of each output channel."""
        if name in self.graph.constants:
            return self.graph.constants[name], None
        node = next((n for n in self.graph.nodes if name in n.outputs), None)
        if node is None:
            raise InputError(f"the weight {name!r} is an input, which LiteRT has no form for")
        if node.op == "Transpose" and node.attributes["perm"] == [1, 0]:
            codes, scale = self.weight(node.input(0))
            return codes.T, scale
        if not self.graph.quantised_constant(node):
            raise InputError(f"the weight {name!r} is computed, which LiteRT has no form for")
        codes = self.graph.constants[node.input(0)]
        scale = np.atleast_1d(self.graph.constants[node.input(1)]).astype(np.float32)
        return codes, scale

    def float_weight(self, name: str, channel_axis: int) -> np.ndarray:
        """Return a weight as floats."""
        data, scale = self.weight(name)
        if scale is None:
            return np.asarray(data, dtype=np.float32)
        shape = [1] * data.ndim
        shape[channel_axis] = -1
        return (data * scale.reshape(shape)).astype(np.float32)

    def _pack(self, outputs: Sequence[int]) -> bytes:
        import flatbuffers

        s = self.schema
        model = s.ModelT()
        model.version = _VERSION
        model.description = "edge-nas"
        model.operatorCodes = []
        for code in self.codes:
            entry = s.OperatorCodeT()
            entry.builtinCode = code
            entry.deprecatedBuiltinCode = min(code, 127)
            entry.version = 3 if code in _INT8_VERSIONS(s) else 1
            model.operatorCodes.append(entry)
        model.buffers = []
        for data in self.buffers:
            buffer = s.BufferT()
            if data:
                buffer.data = np.frombuffer(data, dtype=np.uint8)
            model.buffers.append(buffer)
        subgraph = s.SubGraphT()
        subgraph.name = "main"
        subgraph.tensors = self.tensors
        subgraph.operators = self.operators
        subgraph.inputs = np.array(self.input_indices, dtype=np.int32)
        subgraph.outputs = np.array(outputs, dtype=np.int32)
        model.subgraphs = [subgraph]
        builder = flatbuffers.Builder(1024)
        builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
        return bytes(builder.Output())


def _INT8_VERSIONS(schema: Any) -> set[int]:
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return {getattr(schema.BuiltinOperator, name) for name in names}


def _supported(data: np.ndarray) -> np.ndarray:
    return data.astype(np.float32) if data.dtype == np.float64 else data


def _activation(writer: LiteRtWriter, relu: bool) -> int:
    kinds = writer.schema.ActivationFunctionType
    return kinds.RELU if relu else kinds.NONE


def _float_relu(writer: LiteRtWriter, node: Node) -> tuple[str, bool]:
    """Return the name of the node's result and whether a ReLU is part of it."""
    users = writer.users.get(node.output, [])
    if len(users) == 1 and users[0].op == "Relu" and node.output not in writer.graph.outputs:
        writer.done.add(writer._where(users[0]))
        return users[0].output, True
    return node.output, False


def _conv(writer: LiteRtWriter, node: Node) -> None:
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
        name, relu = _float_relu(writer, node)
        data = writer.float_weight(node.input(1), 0)
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
        "fusedActivationFunction": _activation(writer, relu),
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
    return writer.float_weight(node.input(2), 0).reshape(out)


def _bias_codes(
    writer: LiteRtWriter, node: Node, step: float | None, scale: np.ndarray, out: int
) -> int:
    steps = np.float32(step) * _full(scale, out)
    codes = np.round(_bias(writer, node, out) / steps.astype(np.float64))
    limit = 2**31 - 1
    data = np.clip(codes, -limit, limit).astype(np.int32)
    return writer.constant(data, scale=steps, axis=0)


def _linear(writer: LiteRtWriter, node: Node) -> None:
    """Gemm, or MatMul with a constant weight."""
    a = node.attributes
    if node.op == "Gemm" and (a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0):
        raise InputError("Gemm with alpha or beta has no LiteRT counterpart")
    if node.op == "Gemm" and a.get("transA"):
        raise InputError("Gemm with a transposed input has no LiteRT counterpart")
    x = writer.plain(writer.value(node.input(0)))
    turned = node.op == "Gemm" and bool(a.get("transB"))
    codes, scale = writer.weight(node.input(1))
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
        name, relu = _float_relu(writer, node)
        data = writer.float_weight(node.input(1), 0 if turned else 1)
        weight = writer.constant(np.ascontiguousarray(data if turned else data.T))
        bias = writer.constant(_bias(writer, node, out))
        result = writer.values[name] = writer.new(like, name)
        writer.products["float32"] += 1
    writer.operator(
        "FULLY_CONNECTED",
        [x.index, weight, bias],
        [result.index],
        "FullyConnectedOptions",
        fusedActivationFunction=_activation(writer, relu),
        keepNumDims=len(x.shape) > 2,
    )


def _matmul(writer: LiteRtWriter, node: Node) -> None:
    constant = node.input(1) in writer.graph.constants or any(
        node.input(1) in other.outputs
        and (writer.graph.quantised_constant(other) or other.op == "Transpose")
        and _is_constant(writer, node.input(1))
        for other in writer.graph.nodes
    )
    if constant:
        _linear(writer, _with_bias(writer, node))
        return
    x, y = (writer.plain(writer.floats(writer.value(name))) for name in node.inputs)
    batch = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    shape = (*batch, x.shape[-2], y.shape[-1])
    result = writer.result(node, Value(-1, shape))
    writer.products["float32"] += 1
    writer.operator("BATCH_MATMUL", [x.index, y.index], [result.index], "BatchMatMulOptions")


def _with_bias(writer: LiteRtWriter, node: Node) -> Node:
    """Return a MatMul with the bias that is added to it, if one is, as its third input."""
    users = writer.users.get(node.output, [])
    if len(users) != 1 or users[0].op != "Add" or node.output in writer.graph.outputs:
        return node
    bias = next((name for name in users[0].inputs if name != node.output), "")
    if not bias or not _is_constant(writer, bias) or writer.weight(bias)[0].ndim != 1:
        return node
    writer.done.add(writer._where(users[0]))
    return Node(node.op, (*node.inputs[:2], bias), users[0].outputs, node.attributes)


def _is_constant(writer: LiteRtWriter, name: str) -> bool:
    try:
        writer.weight(name)
    except InputError:
        return False
    return True


def _quantize(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    scale, zero = writer.grid(node)
    if (x.scale, x.zero) == (scale, zero):
        writer.values[node.output] = x
        return
    if not writer.integers_only:
        x = writer.floats(x)
    result = writer.result(node, replace(x, scale=scale, zero=zero))
    writer.operator("QUANTIZE", [x.index], [result.index], "QuantizeOptions")


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
            output, relu = _float_relu(writer, node)
            result = writer.values[output] = writer.new(like, output)
        writer.operator(
            name, [x.index, y.index], [result.index], options,
            fusedActivationFunction=_activation(writer, relu),
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
    writer.operator("MEAN", [x.index, axes], [result.index], "ReducerOptions", keepDims=True)


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
    if _is_constant(writer, node.output):
        return  # a weight, read by its user
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
    at = _TO_NHWC.index(axis) if turned else axis
    indices = [part.index for part in parts]
    writer.operator("CONCATENATION", indices, [result.index], "ConcatenationOptions", axis=at)


def _split(writer: LiteRtWriter, node: Node) -> None:
    x = writer.value(node.input(0))
    axis = node.attributes.get("axis", 0) % len(x.shape)
    count, total = len(node.outputs), x.shape[axis]
    part = -(-total // count)
    equal = [min(part, total - i * part) for i in range(count)]
    sizes = [int(n) for n in writer.graph.constants.get(node.input(1), equal)]
    at = _TO_NHWC.index(axis) if x.turned else axis
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


def _identity(writer: LiteRtWriter, node: Node) -> None:
    writer.values[node.output] = writer.value(node.input(0))


_WRITERS: dict[str, Callable[[LiteRtWriter, Node], None]] = {
    "Conv": _conv,
    "Gemm": _linear,
    "MatMul": _matmul,
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
        schema, graph, inputs, output_grids=output_grids, integers_only=integers_only
    )
    path.write_bytes(writer.write())
    return writer
