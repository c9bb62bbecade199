"""An ONNX graph as a torch module, for the runtimes that start from torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devices.runtimes import torch_graph_sizes as sizes
from devices.runtimes.torch_graph_operators import OPERATORS
from devices.runtimes.torch_graph_windows import WINDOWS
from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node, read_graph
from search_spaces.model_files.older import FLATTENED

Operation = Callable[..., Any]

_SMALL = 64

#: ONNX's numbers of element types.
_TYPES = {
    1: torch.float32, 2: torch.uint8, 3: torch.int8, 5: torch.int16, 6: torch.int32,
    7: torch.int64, 9: torch.bool, 10: torch.float16, 11: torch.float64, 16: torch.bfloat16,
}  # fmt: skip


class GraphModule(nn.Module):
    """Runs the nodes of an ONNX file in order; traceable by torch.export and torch.compile.

    Quantised files keep their rounding but run in floats: torch has no operators for them.

    Args:
        path: the file.
        graph: what it holds, if it was read already.
        operations: ONNX operator -> its translation; by default :data:`OPERATIONS`.

    Raises:
        InputError: the file holds an operator that has no translation.
    """

    def __init__(
        self,
        path: Path,
        *,
        graph: Graph | None = None,
        operations: Mapping[str, Operation] | None = None,
    ) -> None:
        super().__init__()
        graph = graph or read_graph(path)
        operations = operations or OPERATIONS
        known = set(operations) | sizes.NAMES
        unknown = {n.op: n.name or n.output for n in graph.nodes if n.op not in known}
        if unknown:
            told = ", ".join(f"{op} (node {name})" for op, name in sorted(unknown.items()))
            hint = (
                "; give the torch module that the file was made of, whose recurrent layers are read"
            )
            recurrent = set(unknown) & {"GRU", "LSTM", "RNN"}
            raise InputError(f"{path}: no torch translation of {told}{hint * bool(recurrent)}")
        self.inputs, self.outputs = graph.inputs, graph.outputs
        used = {name for node in graph.nodes for name in node.inputs} | set(graph.outputs)
        self._constants: dict[str, str] = {}
        for index, name in enumerate(sorted(used & set(graph.constants))):
            value = graph.constants[name]
            if value.dtype.kind in "fiub":
                self.register_buffer(f"c{index}", torch.from_numpy(np.array(value)))
                self._constants[name] = f"c{index}"
        # Small constants as lists: axes, shapes and limits must be plain numbers to a tracer.
        small = {n: v.tolist() for n, v in graph.constants.items() if v.size <= _SMALL}
        self._nodes = [
            (node, operations.get(node.op), [small.get(name) for name in node.inputs])
            for node in graph.nodes
        ]

    @property
    def nodes(self) -> list[Node]:
        """The nodes in order."""
        return [node for node, _, _ in self._nodes]

    @property
    def constants_by_name(self) -> dict[str, str]:
        """Name of a constant in the file -> name of its buffer here."""
        return dict(self._constants)

    def rename_constant(self, name: str, buffer: str) -> None:
        """Call the buffer of a constant of the file ``buffer``, numbered if that is taken."""
        taken, count = dict(self.named_buffers()), 1
        wanted = buffer
        while wanted in taken:
            count += 1
            wanted = f"{buffer.removesuffix('_weight')}_{count}_weight"
        value = getattr(self, self._constants[name])
        delattr(self, self._constants[name])
        self.register_buffer(wanted, value)
        self._constants[name] = wanted

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """Return the outputs for ``inputs`` in the file's order."""
        values: dict[str, Any] = dict(zip(self.inputs, inputs, strict=True))
        for name, attribute in self._constants.items():
            values[name] = getattr(self, attribute)
        for node, operation, fixed in self._nodes:
            given = [values[name] if name else None for name in node.inputs]
            done, result = sizes.of_sizes(node, given, fixed)
            if not done:
                result = self._on_tensors(node, operation, given, fixed)
            if done or not isinstance(result, (tuple, list)):
                result = (result,)
            values.update(zip(node.outputs, result, strict=False))
        return tuple(values[name] for name in self.outputs)

    @staticmethod
    def _on_tensors(
        node: Node, operation: Operation | None, given: list[Any], fixed: list[Any]
    ) -> Any:
        if operation is None:
            raise InputError(f"{node.op} of tensors has no torch translation ({node.outputs[0]})")
        if any(map(sizes.is_size, given)):
            # Sizes are constants to an operation on tensors; one number is as good as a tensor.
            pairs = list(zip(given, fixed, strict=True))
            fixed = [v if sizes.is_size(v) else known for v, known in pairs]
            given = [_alone(v) if isinstance(v, list) else v for v in given]
        return operation(node, given, fixed)


def _alone(sizes: list[Any]) -> Any:
    """Return the one number of a list, which computes with tensors; None for other lists."""
    return sizes[0] if len(sizes) == 1 else None


def _gemm(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    a = node.attributes
    first = x[0].transpose(0, 1) if a.get("transA") else x[0]
    weight = x[1] if a.get("transB") else x[1].transpose(0, 1)
    alpha, beta = a.get("alpha", 1.0), a.get("beta", 1.0)
    bias = x[2] if len(x) > 2 else None
    if alpha == 1.0 and (beta == 1.0 or bias is None):
        return F.linear(first, weight, bias)
    return F.linear(first, alpha * weight, None if bias is None else beta * bias)


def _quantize(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    scale, zero = _grid(node, x, x[0].dim())
    kind = x[2].dtype if len(x) > 2 and x[2] is not None else torch.uint8
    if kind.is_floating_point:
        raise InputError("QuantizeLinear to a float format has no torch translation")
    limits = torch.iinfo(kind)
    codes = torch.round(x[0] / scale) + zero
    # As floats: torch has no arithmetic on these integers, and the codes are exact in floats.
    return torch.clamp(codes, limits.min, limits.max)


def _dequantize(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    scale, zero = _grid(node, x, x[0].dim())
    return (x[0].to(torch.float32) - zero) * scale


def _grid(node: Node, x: list[Tensor], rank: int) -> tuple[Tensor, Tensor | float]:
    scale = x[1]
    zero = x[2].to(torch.float32) if len(x) > 2 and x[2] is not None else 0.0
    if scale.dim() == 1 and rank > 1:
        shape = [1] * rank
        shape[node.attributes.get("axis", 1)] = -1
        scale = scale.reshape(shape)
        zero = zero.reshape(shape) if isinstance(zero, Tensor) else zero
    return scale, zero


def _clip(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    low = fixed[1] if len(fixed) > 1 else None
    high = fixed[2] if len(fixed) > 2 else None
    return torch.clamp(x[0], node.attributes.get("min", low), node.attributes.get("max", high))


def _reshape(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    sizes = [x[0].shape[i] if n == 0 else n for i, n in enumerate(fixed[1])]
    return x[0].reshape(sizes)


def _flatten(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    axis = node.attributes.get("axis", 1)
    return torch.flatten(x[0], axis) if axis == 1 else x[0].reshape(-1, x[0].shape[axis:].numel())


def _reduce_mean(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    axes = fixed[1] if len(fixed) > 1 else None
    return x[0].mean(axes, keepdim=bool(node.attributes.get("keepdims", 1)))


def _layer_norm(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    axis = node.attributes.get("axis", -1) % x[0].dim()
    bias = x[2] if len(x) > 2 else None
    shape = x[0].shape[axis:]
    return F.layer_norm(x[0], shape, x[1], bias, node.attributes.get("epsilon", 1e-5))


def _split(node: Node, x: list[Tensor], fixed: list[Any]) -> tuple[Tensor, ...]:
    axis = node.attributes.get("axis", 0)
    if len(fixed) > 1 and fixed[1] is not None:
        return torch.split(x[0], fixed[1], axis)
    return torch.chunk(x[0], len(node.outputs), axis)


def _slice(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    starts, ends = fixed[1], fixed[2]
    axes = fixed[3] if len(fixed) > 3 and fixed[3] is not None else range(len(starts))
    steps = fixed[4] if len(fixed) > 4 and fixed[4] is not None else [1] * len(starts)
    index = [slice(None)] * x[0].dim()
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        index[axis] = slice(start, min(end, x[0].shape[axis]), step)
    return x[0][tuple(index)]


def _gather(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    axis = node.attributes.get("axis", 0)
    if isinstance(fixed[1], int):
        return x[0].select(axis, fixed[1])
    found = torch.index_select(x[0], axis, x[1].reshape(-1).to(torch.long))
    return found if x[1].dim() == 1 else found.unflatten(axis, x[1].shape)


def _unsqueeze(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    rank = x[0].dim() + len(fixed[1])
    new = {axis % rank for axis in fixed[1]}
    return x[0][tuple(None if i in new else slice(None) for i in range(rank))]


def _squeeze(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    # Without axes: those of length 1, which the batch is none of.
    axes = fixed[1] if len(fixed) > 1 and fixed[1] is not None else None
    ones = [i for i in range(1, x[0].dim()) if x[0].shape[i] == 1]
    return x[0].squeeze(tuple(ones if axes is None else axes))


def _softmax(call: Callable[..., Tensor]) -> Operation:
    def run(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
        axis = node.attributes.get("axis", -1)
        rank = x[0].dim()
        if node.attributes.get(FLATTENED) and axis % rank != rank - 1:
            return call(x[0].flatten(axis % rank), -1).reshape(x[0].shape)
        return call(x[0], axis)

    return run


def _cast(node: Node, x: list[Tensor], fixed: list[Any]) -> Tensor:
    return x[0].to(_TYPES[node.attributes["to"]])


def _plain(call: Callable[..., Any]) -> Operation:
    return lambda node, x, fixed: call(*x)


OPERATIONS: dict[str, Operation] = {
    **OPERATORS,
    **WINDOWS,
    "Gemm": _gemm,
    "QuantizeLinear": _quantize,
    "DequantizeLinear": _dequantize,
    "Clip": _clip,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "ReduceMean": _reduce_mean,
    "LayerNormalization": _layer_norm,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Cast": _cast,
    "Softmax": _softmax(torch.softmax),
    "LogSoftmax": _softmax(torch.log_softmax),
    "Concat": lambda node, x, fixed: torch.cat(x, node.attributes["axis"]),
    "Transpose": lambda node, x, fixed: x[0].permute(
        node.attributes.get("perm") or list(range(x[0].dim()))[::-1]
    ),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Gelu": lambda node, x, fixed: F.gelu(
        x[0], approximate=node.attributes.get("approximate", "none")
    ),
    "HardSigmoid": lambda node, x, fixed: torch.clamp(
        x[0] * node.attributes.get("alpha", 0.2) + node.attributes.get("beta", 0.5), 0, 1
    ),
    "GlobalAveragePool": lambda node, x, fixed: x[0].mean(
        tuple(range(2, x[0].dim())), keepdim=True
    ),
    "Identity": _plain(lambda x: x),
    "Relu": _plain(F.relu),
    "HardSwish": _plain(F.hardswish),
    "Sigmoid": _plain(torch.sigmoid),
    "Tanh": _plain(torch.tanh),
    "Erf": _plain(torch.erf),
    "Sqrt": _plain(torch.sqrt),
    "Exp": _plain(torch.exp),
    "Neg": _plain(torch.neg),
    "Pow": _plain(torch.pow),
    "Add": _plain(torch.add),
    "Sub": _plain(torch.sub),
    "Mul": _plain(torch.mul),
    "Div": _plain(torch.div),
    "Max": _plain(torch.maximum),
    "Min": _plain(torch.minimum),
    "MatMul": _plain(torch.matmul),
}
"""ONNX operator -> f(node, tensors, small constants as lists or None)."""
