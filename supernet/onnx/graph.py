"""Building an ONNX graph node by node, with tensors that know the grid their values lie on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from supernet.onnx.small_codes import SmallCodes

if TYPE_CHECKING:
    import onnx

_SHORT = {
    "QuantizeLinear": "q",
    "DequantizeLinear": "d",
    "Clip": "c",
    "Cast": "i",
    "Reshape": "r",
    "Transpose": "t",
    "BitShift": "b",
    "BitwiseAnd": "a",
}
"""Operators that occur many times -> the first letter of their outputs' names."""

View = Callable[["GraphBuilder", str], str]


@dataclass(frozen=True)
class Grid:
    """Integer codes of a tensor: its values are ``step * (code - zero_point)``.

    Attributes:
        codes: name of the uint8 tensor; uint16 for more than 8 bits.
        step, zero_point: of the grid.
        bits: the codes are below ``2 ** bits``.
    """

    codes: str
    step: float
    zero_point: int
    bits: int


@dataclass(frozen=True)
class Value:
    """A tensor of the network: a float tensor, codes on a grid, or a view of another value.

    Attributes:
        tensor: name of the float tensor, where it has one.
        grid: its codes, where it is quantised.
        base, view: the value this one is a rearrangement of, and the nodes that rearrange it;
            kept apart so that quantising a view rearranges codes and not floats.
    """

    tensor: str = ""
    grid: Grid | None = None
    base: Value | None = None
    view: View | None = None


class GraphBuilder:
    """Collects nodes and initialisers.

    Names of tensors are made unique; constants of equal content are stored once.

    Attributes:
        codes: names of the tensors of codes that views were applied to.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.codes: set[str] = set()
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}
        self._constants: dict[tuple[Any, ...], str] = {}
        self._small = SmallCodes()

    def node(
        self, op: str, inputs: Sequence[str], *, name: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node with one output and return the output's name.

        Args:
            op: operator type.
            inputs: tensor names; empty for an optional input that is left out.
            name: of the node and its output; by default the operator type.
            domain: of the operator.
            attributes: of the node; those that are ``None`` are left out.
        """
        return self.nodes_out(op, inputs, 1, name=name, domain=domain, **attributes)[0]

    def nodes_out(
        self,
        op: str,
        inputs: Sequence[str],
        count: int,
        *,
        name: str = "",
        domain: str = "",
        **attributes: Any,
    ) -> list[str]:
        """Add a node with ``count`` outputs; see :meth:`node`."""
        from onnx import helper

        short = _SHORT.get(op)
        base = self.unique(name or short or op)
        outputs = [base] if count == 1 else [self.unique(f"{base}.{i}") for i in range(count)]
        # What only moves or converts data needs no name in a profile, and names are a good part
        # of the file of a small network.
        label = None if short and not name else base
        self.nodes.append(
            helper.make_node(op, list(inputs), outputs, name=label, domain=domain, **attributes)
        )
        return outputs

    def named(
        self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any
    ) -> None:
        """Add a node whose outputs have names of :meth:`unique` already, and which has none."""
        from onnx import helper

        self.nodes.append(helper.make_node(op, list(inputs), list(outputs), **attributes))

    def constant(self, value: np.ndarray | np.generic, *, name: str = "constant") -> str:
        """Store an array and return its tensor's name; equal arrays share one."""
        from onnx import numpy_helper

        # Not ascontiguousarray: it makes vectors of scalars, and integer kernels want scalars.
        value = np.asarray(value, order="C")
        key = _key(value)
        if key not in self._constants:
            self._constants[key] = self.unique(name)
            self.initializers.append(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    def added(self, value: np.ndarray) -> int:
        """Return the bytes that :meth:`constant` would add to the file, about."""
        return 0 if _key(np.asarray(value, order="C")) in self._constants else value.nbytes + 24

    def packed(self, codes: np.ndarray, bits: int) -> str:
        """Store signed ``codes`` in 2 or 4 bits each; returns them as int32, in their shape."""
        return self._small.add(self, codes, bits)

    def packed_pays(self, codes: np.ndarray, bits: int, *, beside: int = 0) -> bool:
        """Whether :meth:`packed` makes the file smaller, though it adds ``beside`` bytes too."""
        saved = codes.size - codes.size * bits // 8
        return saved > self._small.cost(self, codes) + beside

    def typed(self, codes: np.ndarray, kind: str, *, name: str) -> str:
        """Store bytes as a tensor of an ONNX type of 8 bits, such as ``FLOAT8E4M3FN``."""
        from onnx import TensorProto, helper

        name = self.unique(name)
        data_type = TensorProto.DataType.Value(kind)
        self.initializers.append(
            helper.make_tensor(name, data_type, codes.shape, codes.astype(np.uint8).tobytes(), True)
        )
        return name

    def tensor(self, value: Value) -> str:
        """Return the name of ``value`` as a float tensor, adding what computes it."""
        if value.tensor:
            return value.tensor
        if value.grid is not None:
            return self.dequantize(value.grid)
        assert value.base is not None and value.view is not None
        return value.view(self, self.tensor(value.base))

    def rearrange(self, value: Value, view: View) -> Value:
        """Return ``value`` rearranged by ``view``, which may be applied to floats or codes."""
        if value.grid is not None:
            grid = value.grid
            self.codes.add(grid.codes)
            codes = view(self, grid.codes)
            return Value(grid=Grid(codes, grid.step, grid.zero_point, grid.bits))
        return Value(base=value, view=view)

    def quantize(self, value: Value, *, step: float, zero_point: int, bits: int) -> Value:
        """Return ``value`` rounded to a grid, see :class:`Grid`."""
        if value.base is not None and not value.tensor:
            assert value.view is not None
            whole = self.quantize(value.base, step=step, zero_point=zero_point, bits=bits)
            return self.rearrange(whole, value.view)
        old = value.grid
        if old is not None and (old.step, old.zero_point, old.bits) == (step, zero_point, bits):
            return value
        codes = self.node(
            "QuantizeLinear", [self.tensor(value), *self._grid_constants(step, zero_point, bits)]
        )
        if bits not in (8, 16):
            # uint8 codes saturate at 255, uint16 codes at 65535; fewer bits are cut among the
            # codes, so that the node before still sees a plain quantisation and runs on integers.
            top = self.constant(_code_type(bits)(2**bits - 1))
            codes = self.node("Clip", [codes, "", top])
        return Value(grid=Grid(codes, step, zero_point, bits))

    def dequantize(self, grid: Grid) -> str:
        """Add the node from codes to floats; each user has its own, as runtimes fuse them."""
        return self.node(
            "DequantizeLinear",
            [grid.codes, *self._grid_constants(grid.step, grid.zero_point, grid.bits)],
        )

    def finish(self, outputs: Sequence[str]) -> None:
        """Leave out what nothing of the network's ``outputs`` follows from; write small codes."""
        used, kept = set(outputs), []
        for node in reversed(self.nodes):
            if used.intersection(node.output):
                used.update(node.input)
                kept.append(node)
        self.nodes = []
        self._small.write(self, used)
        used.update(name for node in self.nodes for name in node.input)
        self.nodes += kept[::-1]
        self.initializers = [tensor for tensor in self.initializers if tensor.name in used]

    def unique(self, name: str) -> str:
        """Return ``name``, numbered if it is taken, and take it."""
        candidate = name
        while candidate in self._names:
            self._numbers[name] = self._numbers.get(name, 1) + 1
            candidate = f"{name}_{self._numbers[name]}"
        self._names.add(candidate)
        return candidate

    def _grid_constants(self, step: float, zero_point: int, bits: int) -> tuple[str, str]:
        return (
            self.constant(np.float32(step), name="s"),
            self.constant(_code_type(bits)(zero_point), name="z"),
        )


def _key(value: np.ndarray) -> tuple[Any, ...]:
    return value.dtype.str, value.shape, value.tobytes()


def _code_type(bits: int) -> type[np.uint8] | type[np.uint16]:
    return np.uint8 if bits <= 8 else np.uint16
