"""An ONNX file as plain frozen data: nodes, folded constants, what each tensor is quantised to.

It is built once from a file, and runtimes, the packer, float twins and checks read it. Whoever
writes ONNX copies the nodes of the file itself, and asks here what is constant.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError, MissingExtraError
from search_spaces.model_files.folding import folded, narrowed
from search_spaces.model_files.messages import NUMBERS, array_of, plain, shape_of, type_of, value_of
from search_spaces.model_files.older import as_today

if TYPE_CHECKING:
    import onnx

PRODUCTS = ("Conv", "Gemm", "MatMul")
"""Operators that multiply by weights, or two activations by each other."""

_UINT8 = 2
_LATEST = 10_000
_CODES = ("int8", "uint8", "int16", "uint16")
_SPELLING = (
    "Cast", "Identity", "Mul", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "BitShift",
)  # fmt: skip
"""Operations that say how stored weights are used, and make no others of them."""


@dataclass(frozen=True)
class Node:
    """An operation. ``inputs`` hold "" where an optional one is left out.

    Attributes:
        name: "" where the file gives none.
        notes: of the node, by key; its ``metadata_props``.
    """

    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)

    @property
    def output(self) -> str:
        """The first output."""
        return self.outputs[0]

    def input(self, index: int) -> str:
        """Return an input's name, "" when it is left out."""
        return self.inputs[index] if index < len(self.inputs) else ""


@dataclass(frozen=True)
class Codes:
    """A constant that is stored as codes: ``floats = (codes - zero) * scale``.

    Attributes:
        codes: integers; small floats are float32 here.
        scale: float32 of each channel, (channels,); of the whole tensor, (1,); of blocks along an
            axis, in the shape of ``codes`` but for that axis.
        zero: in the shape of ``scale``, as floats.
        axis: of the channels, or of the blocks.
        kind: element type in the file: "int8", "int4", "float8_e4m3fn".
        factored: the integers before a factor of each channel multiplied them, where one did.
        block: values of a block; 0 where there are none.
        type: NumPy type of the floats.
    """

    codes: np.ndarray
    scale: np.ndarray
    zero: np.ndarray
    axis: int
    kind: str
    factored: np.ndarray | None = None
    block: int = 0
    type: str = "float32"

    @property
    def symmetric(self) -> bool:
        """Whether the codes are integers whose 0 is 0, with a scale a channel or a tensor."""
        return self.codes.dtype.kind in "iu" and not self.block and not self.zero.any()

    def floats(self) -> np.ndarray:
        """Return what the network computes with, worked out in float32."""
        centred = self.codes.astype(np.float32)
        if self.zero.any():
            centred = centred - self._wide(self.zero)
        return np.asarray(centred * self._wide(self.scale), self.type)

    def _wide(self, numbers: np.ndarray) -> np.ndarray:
        """Return a number of each channel or block in a shape that fits the codes."""
        if self.block:
            wide = np.repeat(numbers, self.block, self.axis)
            return wide.take(np.arange(self.codes.shape[self.axis]), self.axis)
        return numbers.reshape(_column(self.codes, self.axis) if numbers.size > 1 else ())

    def transposed(self, order: list[int]) -> Codes:
        """Return the codes with their axes in another order."""
        factored = None if self.factored is None else self.factored.transpose(order)
        found = replace(
            self, codes=self.codes.transpose(order), axis=order.index(self.axis), factored=factored
        )
        if not self.block:
            return found
        return replace(found, scale=self.scale.transpose(order), zero=self.zero.transpose(order))


@dataclass(frozen=True)
class Grid:
    """What a node rounds to: ``codes = round(value / scale) + zero``.

    Attributes:
        scale: float32, of the whole tensor or of each channel.
        zero: integers in its shape.
        kind: element type of the codes.
    """

    scale: np.ndarray
    zero: np.ndarray
    kind: str

    def from_lowest(self) -> bool:
        """Whether the lowest code stands for zero, so that nothing negative has one."""
        signed, bits = not self.kind.startswith("u"), self.kind.rpartition("int")[2]
        return bits.isdigit() and bool((self.zero == -signed * 2 ** (int(bits) - 1)).all())

    def described(self) -> dict[str, Any]:
        """Return the grid of a whole tensor of unsigned codes, as packed models hold it."""
        return {
            "scale": float(self.scale.item()),
            "zero_point": int(self.zero.item()),
            "bits": 16 if self.kind == "uint16" else 8,
        }


@dataclass(frozen=True)
class Graph:
    """Nodes in order of execution; what depends on constants alone is a constant already.

    Nodes that dequantise constants stay among the nodes; ``codes`` says what they make.

    Attributes:
        inputs: names of the model's inputs, without constants.
        outputs: names of its outputs.
        constants: name -> value; integers of less than a byte, and small floats, are widened.
        types: name of an input -> NumPy type.
        shapes: name of an input -> shape, None where open.
        codes: constant tensor -> the codes that it is stored as.
        grids: output of a node that quantises or dequantises by constants -> its grid.
        computed: constant that operations made of others -> which first, in words; not those that
            only cast, scale and rearrange one.
        metadata: of the file.
        rounds: whether the file has a node that quantises.
    """

    nodes: tuple[Node, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    constants: Mapping[str, np.ndarray]
    types: Mapping[str, str]
    shapes: Mapping[str, tuple[int | None, ...]]
    codes: Mapping[str, Codes] = field(default_factory=dict)
    grids: Mapping[str, Grid] = field(default_factory=dict)
    computed: Mapping[str, str] = field(default_factory=dict)
    metadata: Mapping[str, str] = field(default_factory=dict)
    rounds: bool = False

    @cached_property
    def users(self) -> Mapping[str, tuple[Node, ...]]:
        """Tensor name -> the nodes that read it; only of names that are read."""
        users: dict[str, list[Node]] = {}
        for node in self.nodes:
            for name in set(node.inputs):
                users.setdefault(name, []).append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @cached_property
    def makers(self) -> Mapping[str, Node]:
        """Tensor name -> the node that makes it."""
        return {name: node for node in self.nodes for name in node.outputs}

    @property
    def quantised(self) -> bool:
        """Whether a node quantises or dequantises."""
        return any(node.op in ("QuantizeLinear", "DequantizeLinear") for node in self.nodes)

    def is_constant(self, name: str) -> bool:
        """Whether a tensor is known before the network runs."""
        return name in self.constants or name in self.codes

    def constant(self, name: str) -> np.ndarray | None:
        """Return the value of a constant, dequantised where it is stored as codes."""
        if name in self.constants:
            return self.constants[name]
        return self.codes[name].floats() if name in self.codes else None


def read_graph(path: Path, *, beside: bool = False) -> Graph:
    """Read an ONNX file.

    Args:
        path: of the file.
        beside: whether constants may lie in files beside it, as torch.onnx.export writes them; of
            files from elsewhere they may not.

    Raises:
        InputError: the file is no ONNX model, or its constants are not where it says.
        MissingExtraError: the package onnx is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingExtraError("onnx", "search") from error
    from google.protobuf.message import DecodeError

    try:
        model = onnx.load(path, load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise InputError(f"{path}: no ONNX model: {error}") from error
    if not model.graph.node:
        raise InputError(f"{path}: no ONNX model: it has no nodes")
    if beside:
        try:
            onnx.load_external_data_for_model(model, str(Path(path).parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(f"{path}: a file of its constants is missing: {error}") from error
    return graph_of(model)


def graph_of(model: onnx.ModelProto) -> Graph:
    """Return an ONNX model as a graph.

    Raises:
        InputError: constants lie in another file, or do not fit an operation on them, or an input
            is no tensor.
    """
    return _Reader(model).graph()


def inputs_of(graph: onnx.GraphProto) -> list[onnx.ValueInfoProto]:
    """Return the inputs of an ONNX graph that are no constants."""
    constants = {item.name for item in graph.initializer}
    return [value for value in graph.input if value.name not in constants]


class _Reader:
    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self._constants: dict[str, np.ndarray] = {}
        self._kinds: dict[str, str] = {}
        self._codes: dict[str, Codes] = {}
        self._grids: dict[str, Grid] = {}
        # Constant -> the integers that were widened to it, and those before a factor.
        self._integers: dict[str, tuple[np.ndarray, str]] = {}
        self._factored: dict[str, np.ndarray] = {}
        self._computed: dict[str, str] = {}
        sets = {each.domain: each.version for each in model.opset_import}
        self._opset = sets.get("", sets.get("ai.onnx", _LATEST))

    def graph(self) -> Graph:
        """Read the whole file."""
        source = self._model.graph
        for item in source.initializer:
            self._add(item.name, array_of(item))
        nodes = [node for node in map(self._node, source.node) if not self._known(node)]
        values = inputs_of(source)
        return Graph(
            nodes=tuple(nodes),
            inputs=tuple(v.name for v in values),
            outputs=tuple(v.name for v in source.output),
            constants=MappingProxyType(self._constants),
            types={
                v.name: type_of(v.type.tensor_type.elem_type, f"the input {v.name!r}").name
                for v in values
            },
            shapes={v.name: shape_of(v) for v in values},
            codes=MappingProxyType(self._codes),
            grids=MappingProxyType(self._grids),
            computed=MappingProxyType(self._computed),
            metadata={entry.key: entry.value for entry in self._model.metadata_props},
            rounds=any(node.op_type == "QuantizeLinear" for node in source.node),
        )

    def _node(self, proto: onnx.NodeProto) -> Node:
        """Return a node as today's operator set has it; its new inputs are constants."""
        attributes = {a.name: value_of(a) for a in proto.attribute}
        attributes, moved = as_today(proto.op_type, attributes, self._opset)
        inputs = list(proto.input)
        for key, value in moved.items():
            inputs.append(f"{proto.output[0]}/{key}")
            self._add(inputs[-1], value)
        notes = {entry.key: entry.value for entry in proto.metadata_props}
        return Node(
            proto.op_type, tuple(inputs), tuple(proto.output), attributes, proto.name, notes
        )

    def _add(self, name: str, value: np.ndarray) -> None:
        self._constants[name] = plain(value)
        if value.dtype.kind not in NUMBERS:
            self._kinds[name] = value.dtype.name

    def _kind(self, name: str) -> str:
        return self._kinds.get(name, self._constants[name].dtype.name)

    def _known(self, node: Node) -> bool:
        try:
            return self._fold(node)
        except InputError:
            raise
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise InputError(
                f"{node.op} of constants ({', '.join(node.outputs)}) cannot be computed: {error}"
            ) from error

    def _fold(self, node: Node) -> bool:
        """Note what is known of a node's output; whether it is a constant of its own."""
        if node.op in ("QuantizeLinear", "DequantizeLinear"):
            self._note_grid(node)
            if node.op == "QuantizeLinear":
                return self._quantised(node)
            self._note_codes(node)
            return False
        source = node.input(0)
        if node.op == "Transpose" and source in self._codes:
            found = self._codes[source]
            order = node.attributes.get("perm") or list(range(found.codes.ndim))[::-1]
            self._codes[node.output] = found.transposed(order)
        if not all(name in self._constants for name in node.inputs if name):
            return False
        values = [self._constants.get(name) for name in node.inputs]
        made = folded(node.op, node.attributes, values)
        if made is None:
            return False
        narrow = narrowed(node.op, node.attributes, values, self._kinds.get(node.input(0), ""))
        before = next((self._computed[name] for name in node.inputs if name in self._computed), "")
        for name, value in zip(node.outputs, made, strict=True):
            self._add(name, value)
            if narrow:
                self._kinds[name] = narrow
            elif before or node.op not in (*_SPELLING, "Constant"):
                self._computed[name] = before or f"{node.op} of constants ({name})"
        self._note_source(node)
        return True

    def _quantised(self, node: Node) -> bool:
        """Note the codes of a constant that the file quantises."""
        grid, value = self._grids.get(node.output), self._constants.get(node.input(0))
        if grid is None or value is None or grid.scale.ndim > 1 or grid.kind not in _CODES:
            return False
        step, zero = _by_channel(node, value, grid.scale), _by_channel(node, value, grid.zero)
        limits = np.iinfo(grid.kind)
        codes = np.clip(np.round(value / step) + zero, limits.min, limits.max)
        self._constants[node.output] = codes.astype(grid.kind)
        return True

    def _note_source(self, node: Node) -> None:
        """Remember the integers behind constants that are cast, or multiplied."""
        first, out = node.input(0), node.output
        if node.op == "Cast":
            if first in self._factored:
                self._factored[out] = self._factored[first]
            if self._constants[first].dtype.kind in "iu":
                codes, kind = self._constants[first], self._kind(first)
                # Bytes were taken apart to wider integers than they need.
                codes = codes.astype(np.int8) if kind in ("int2", "int4") else codes
                self._integers[out] = codes, kind
        elif node.op == "Mul":
            other = self._constants[node.input(1)]
            if other.dtype.kind in "iu":
                self._factored[out] = self._constants[first]
            elif first in self._integers:
                self._note_scaled(out, *self._integers[first], other, self._factored.get(first))

    def _note_scaled(
        self, out: str, codes: np.ndarray, kind: str, scale: np.ndarray,
        factored: np.ndarray | None,
    ) -> None:  # fmt: skip
        wide = [axis for axis, size in enumerate(scale.shape) if size > 1]
        if len(wide) <= 1 and self._constants[out].shape == codes.shape:
            axis = wide[0] + codes.ndim - scale.ndim if wide else 0
            steps = scale.astype(np.float32).reshape(-1)
            zero, floats = np.zeros_like(steps), self._constants[out].dtype.name
            self._codes[out] = Codes(codes, steps, zero, axis, kind, factored, type=floats)

    def _note_grid(self, node: Node) -> None:
        names = [name for name in node.inputs[1:] if name]
        if not names or not all(name in self._constants for name in names):
            return
        scale = np.asarray(self._constants[names[0]], np.float32)
        if len(names) > 1:
            zero, kind = self._constants[names[1]], self._kind(names[1])
        else:
            kind = self._unnamed_kind(node)
            zero = np.zeros(scale.shape, kind if kind in _CODES else np.uint8)
        if zero.size not in (1, scale.size):
            raise InputError(f"{node.output}: {scale.size} scales, and {zero.size} zero points")
        self._grids[node.output] = Grid(scale, zero, kind)

    def _unnamed_kind(self, node: Node) -> str:
        """Return the type of codes whose zero point, which would tell it, is left out."""
        source = node.input(0)
        if node.op == "DequantizeLinear" and source in self._grids:
            return self._grids[source].kind
        if node.op == "DequantizeLinear" and source in self._constants:
            return self._kind(source)
        return type_of(node.attributes.get("output_dtype") or _UINT8, node.output).name

    def _note_codes(self, node: Node) -> None:
        grid, source = self._grids.get(node.output), node.input(0)
        codes = self._constants.get(source)
        if grid is None or codes is None:
            return
        axis, block = node.attributes.get("axis", 1) % max(1, codes.ndim), 0
        if grid.scale.ndim > 1:
            block = node.attributes.get("block_size", 0)
            blocks = list(codes.shape)
            blocks[axis] = -(-blocks[axis] // max(1, block))
            if not block or list(grid.scale.shape) != blocks:
                return
        else:
            _by_channel(node, codes, grid.scale)
        scale = grid.scale if block else grid.scale.reshape(-1)
        zero = grid.zero.astype(np.float32)
        zero = np.broadcast_to(zero if block else zero.reshape(-1), scale.shape)
        self._codes[node.output] = Codes(
            codes, scale, zero, axis, self._kind(source), self._factored.get(source), block,
            self._constants[node.input(1)].dtype.name,
        )  # fmt: skip


def _by_channel(node: Node, values: np.ndarray, numbers: np.ndarray) -> np.ndarray:
    """Return a number of each channel in a shape that fits the values."""
    if numbers.size == 1:
        return numbers.reshape(())
    axis = node.attributes.get("axis", 1) % max(1, values.ndim)
    if numbers.ndim != 1 or not values.ndim or values.shape[axis] != numbers.size:
        raise InputError(
            f"{node.output}: {numbers.size} scales do not fit axis {axis} of a constant of shape "
            f"{values.shape}; the file is no valid ONNX model"
        )
    return numbers.reshape(_column(values, axis))


def _column(values: np.ndarray, axis: int) -> list[int]:
    return [-1 if i == axis else 1 for i in range(values.ndim)]
