"""One LiteRT file under construction: its tensors, operators and buffers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from devices.runtime import TensorSpec
from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node

TO_NHWC, TO_NCHW = (0, 2, 3, 1), (0, 3, 1, 2)

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
        return tuple(self.shape[i] for i in TO_NHWC) if self.turned else self.shape


class LiteRtWriter:
    """Builds one file.

    Args:
        schema: LiteRT's generated flatbuffers module.
        graph: what to write.
        inputs: its inputs, every axis known.
        operators: ONNX operator -> what writes a node of it.
        output_grids: output name -> (scale, zero point) on int8, for a last layer that the
            file leaves in floats; without it that layer runs in floats.
        integers_only: go from one grid to another by one operator on codes, for devices
            without floats; otherwise the values pass through floats.

    Raises:
        InputError: an operator without a counterpart.
    """

    def __init__(
        self,
        schema: Any,
        graph: Graph,
        inputs: Sequence[TensorSpec],
        *,
        operators: Mapping[str, Callable[[LiteRtWriter, Node], None]],
        output_grids: Mapping[str, tuple[float, int]] | None = None,
        integers_only: bool = False,
    ) -> None:
        self.schema = schema
        self._writers = operators
        self.integers_only = integers_only
        self.graph = graph
        self.output_grids = dict(output_grids or {})
        self.buffers: list[bytes] = [b""]
        self.tensors: list[Any] = []
        self.operators: list[Any] = []
        self.codes: dict[int, int] = {}
        self.values: dict[str, Value] = {}
        self.users = graph.users
        # Outputs of nodes that another one's operator computes too.
        self.done: set[str] = set()
        self.products = {"int8": 0, "float32": 0}
        self._consumed_by_conv = {
            node.input(0)
            for node in graph.nodes
            if node.op in ("Conv", "QuantizeLinear", "Cast", "Sub")
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
        for node in self.graph.nodes:
            if node.output in self.done or self.graph.is_constant(node.output):
                continue
            if node.op not in self._writers:
                raise InputError(f"no LiteRT counterpart of the operator {node.op}")
            self._writers[node.op](self, node)
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
            "uint8": s.TensorType.UINT8,
            "int16": s.TensorType.INT16,
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
            data = self.float_weight(name)
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
        return value if value.turned else self._transposed(value, TO_NHWC, turned=True)

    def plain(self, value: Value) -> Value:
        """Return the value stored in ONNX's order."""
        return self._transposed(value, TO_NCHW, turned=False) if value.turned else value

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

    def grid_after(self, node: Node) -> tuple[list[str], float, int, bool] | None:
        """Return what quantises a node's output: tensors up to the codes, grid, whether a ReLU too.

        None where the output is used in any other way.
        """
        behind, name, relu = [], node.output, False
        while True:
            users = self.users.get(name, ())
            if name in self.graph.outputs:
                return None
            if len(users) == 1 and users[0].op == "Relu" and not relu:
                relu = True
                name = users[0].output
                behind.append(name)
                continue
            if len(users) != 1 or users[0].op != "QuantizeLinear":
                return None
            return [*behind, users[0].output], *self.grid(users[0]), relu

    def grid(self, node: Node) -> tuple[float, int]:
        """Return scale and int8 zero point of a QuantizeLinear or DequantizeLinear."""
        grid = self.graph.grids.get(node.output)
        if grid is None or grid.scale.size != 1 or grid.kind not in ("uint8", "int8"):
            raise InputError("LiteRT takes 8-bit activations with one scale a tensor")
        return grid.scale.item(), int(grid.zero.item()) - (128 if grid.kind == "uint8" else 0)

    def quantised_result(self, node: Node, like: Value) -> tuple[Value, bool] | None:
        """Add the int8 output of ``node`` on the grid that follows it; None if none does.

        Returns:
            The output, and whether a ReLU belongs to the operator.
        """
        found = self.grid_after(node)
        if found is not None:
            behind, scale, zero, relu = found
            self.done.update(behind)
            name = behind[-1]
        else:
            last = self._last_name(node)
            if last not in self.output_grids:
                return None
            name, relu = node.output, False
            scale, zero = self.output_grids[last]
        self.values[name] = self.new(replace(like, scale=scale, zero=zero), name)
        return self.values[name], relu

    def _last_name(self, node: Node) -> str:
        users = self.users.get(node.output, ())
        return users[0].output if len(users) == 1 and users[0].op == "Identity" else node.output

    def weight(self, name: str, axis: int = 0) -> tuple[np.ndarray, np.ndarray | None]:
        """Return a weight: int8 codes with the scale of each channel along ``axis``, or floats."""
        found = self.graph.codes.get(name)
        if name not in self.graph.constants and found is not None and found.symmetric:
            by_channel = found.scale.size == 1 or found.axis == axis
            if by_channel and found.codes.dtype == np.int8:
                return found.codes, found.scale
        value = self.graph.constant(name)
        if value is None:
            how = "computed" if name in self.graph.makers else "an input"
            raise InputError(f"the weight {name!r} is {how}, which LiteRT has no form for")
        return value, None

    def float_weight(self, name: str) -> np.ndarray:
        """Return a weight as floats."""
        self.weight(name)
        return np.asarray(self.graph.constant(name), dtype=np.float32)

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
            entry.version = 3 if code in int8_operators(s) else 1
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


def int8_operators(schema: Any) -> set[int]:
    """Return the codes of the operators with weights, whose int8 form is of a later version."""
    names = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
    return {getattr(schema.BuiltinOperator, name) for name in names}


def _supported(data: np.ndarray) -> np.ndarray:
    return data.astype(np.float32) if data.dtype == np.float64 else data
