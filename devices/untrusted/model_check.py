"""Whether a model file from elsewhere may be loaded, decided before anything loads it.

The ONNX library's checker is no integrity check, and a file of 77 bytes can ask for 2^40
floats. So the file is walked as a protocol buffer (field numbers of ``onnx.proto``),
without the ONNX library, which a board lacks: everything must lie inside its frame, weights
must be there in full, nothing may point outside the file, and only known operators run.

This bounds what a file *says*. What an inference then takes is bounded by the measuring
process, which has a memory limit and a deadline.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from devices.untrusted.flatbuffer_check import check_executorch, check_litert, element_count
from devices.untrusted.onnx_operators import MICROSOFT, STANDARD
from search_spaces.errors import InputError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_MAX_DEPTH = 12
_MAX_SIZE_DEPTH = 64
_DEFAULT_DOMAINS = ("", "ai.onnx")
# Elements of TensorProto.data_type in bits; strings and undefined are refused.
_BITS = {1: 32, 2: 8, 3: 8, 4: 16, 5: 16, 6: 32, 7: 64, 9: 8, 10: 16, 11: 64, 12: 32, 13: 64,
         14: 64, 15: 128, 16: 16, 17: 8, 18: 8, 19: 8, 20: 8, 21: 4, 22: 4, 23: 4, 24: 8,
         25: 2, 26: 2}  # fmt: skip
_INT64 = 7
# Operators whose output is as large as the values of an input say: which input that is.
_SIZED_BY = {"ConstantOfShape": (0,), "Expand": (1,), "Tile": (1,), "OneHot": (1,),
             "Range": (0, 1, 2), "Pad": (1,), "Resize": (2, 3), "Upsample": (1,)}  # fmt: skip
# What may compute such an input: it moves sizes about and cannot multiply them.
_SHAPE_OPERATORS = frozenset(
    {"Shape", "Size", "Gather", "Concat", "Slice", "Unsqueeze", "Squeeze", "Cast", "Identity",
     "Where", "Equal", "Reshape", "Constant", "ConstantOfShape"}
)  # fmt: skip
_INDEXED = frozenset({"Gather", "Slice", "Unsqueeze", "Squeeze", "Reshape"})
_SIZED_ATTRIBUTES = frozenset({"pads", "output_padding", "output_shape", "kernel_shape", "repeats"})


@dataclass(frozen=True)
class ModelLimits:
    """What a file may ask for.

    Attributes:
        bytes: size of the file.
        elements: of all its tensors together, and of any one that an operator is told to make.
        fields: fields of the whole file, which bounds the time of the check.
        operators: domain -> operators that may run.
    """

    bytes: int = 256 << 20
    elements: int = 1 << 27
    fields: int = 500_000
    operators: Mapping[str, frozenset[str]] = field(
        default_factory=lambda: {"": STANDARD, "com.microsoft": MICROSOFT}
    )


SUFFIXES = {"onnx": ".onnx", "litert": ".tflite", "executorch": ".pte"}
"""Format -> suffix that runtimes know its files by."""

# Flatbuffers: the four bytes after the offset of the root -> format.
_FLATBUFFERS = {b"TFL3": "litert", b"ET12": "executorch"}


def check_model(path: Path, limits: ModelLimits | None = None) -> str:
    """Check a model file and return its format, one of :data:`SUFFIXES`.

    Raises:
        InputError: the file is refused; the message says why in a line.
    """
    limits = limits or ModelLimits()
    size = path.stat().st_size
    if size > limits.bytes:
        raise InputError(f"the model has {size} bytes, more than the {limits.bytes} allowed")
    if size == 0:
        raise InputError("the model file is empty")
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        kind = _FLATBUFFERS.get(data[4:8])
        if kind is not None:
            _check_flatbuffer(kind, data, limits)
            return kind
        view = memoryview(data)
        try:
            _Walk(view, limits).model()
        finally:
            view.release()
    return "onnx"


def _check_flatbuffer(kind: str, data: mmap.mmap, limits: ModelLimits) -> None:
    check = {"litert": check_litert, "executorch": check_executorch}[kind]
    check(data, elements=limits.elements, steps=limits.fields)


class _Refused(InputError):
    pass


class _Walk:
    def __init__(self, data: memoryview, limits: ModelLimits) -> None:
        self.data, self.limits = data, limits
        self.fields = 0
        self.elements = 0

    def model(self) -> None:
        """Check the message of the whole model; raises where it is refused."""
        seen: set[int] = set()
        graph: tuple[int, int] | None = None
        for number, kind, start, end in self._fields(0, len(self.data)):
            seen.add(number)
            if number == 7:
                self._expect(kind, _BYTES)
                if graph is not None:
                    raise _Refused("the model has two graphs")
                graph = (start, end)
            elif number in (20, 25):
                what = "training information" if number == 20 else "functions of its own"
                raise _Refused(f"the model holds {what}; export a plain graph")
        if graph is None or 1 not in seen or 8 not in seen:
            raise _Refused("the file is no whole ONNX model (no graph, version or operator set)")
        self._graph(*graph, depth=1)

    def _graph(self, start: int, end: int, depth: int) -> None:
        if depth > _MAX_DEPTH:
            raise _Refused("graphs are nested too deeply")
        scope = _Scope()
        for number, kind, a, b in self._fields(start, end):
            if number in (1, 5, 11, 12, 13, 14, 15):
                self._expect(kind, _BYTES)
            if number == 1:
                scope.add(self._node(a, b, depth))
            elif number == 5:
                name, values = self._tensor(a, b)
                scope.constants[name] = values
            elif number == 11:
                self._input(a, b)
            elif number == 15:
                raise _Refused("sparse weights are not allowed")
        scope.check_sizes(self.limits.elements)

    def _node(self, start: int, end: int, depth: int) -> _Node:
        node = _Node()
        attributes = []
        for number, kind, a, b in self._fields(start, end):
            if number in (1, 2, 4, 5, 7):
                self._expect(kind, _BYTES)
            if number == 1:
                node.inputs.append(self._text(a, b))
            elif number == 2:
                node.outputs.append(self._text(a, b))
            elif number == 4:
                node.operator = self._text(a, b)
            elif number == 7:
                node.domain = self._text(a, b)
            elif number == 5:
                attributes.append((a, b))
        domain = "" if node.domain in _DEFAULT_DOMAINS else node.domain
        if node.operator not in self.limits.operators.get(domain, ()):
            full = f"{node.domain}.{node.operator}" if domain else node.operator
            raise _Refused(f"operator {full[:80]!r} is not allowed")
        for a, b in attributes:
            self._attribute(node, a, b, depth)
        return node

    def _attribute(self, node: _Node, start: int, end: int, depth: int) -> None:
        name, ints = "", []
        values: np.ndarray | None = None
        for number, kind, a, b in self._fields(start, end):
            if number == 1:
                self._expect(kind, _BYTES)
                name = self._text(a, b)
            elif number == 3:
                self._expect(kind, _VARINT)
                ints.append(_signed(a))
            elif number == 8:
                ints += self._varints(kind, a, b)
            elif number in (5, 10):
                self._expect(kind, _BYTES)
                _, values = self._tensor(a, b)
            elif number in (6, 11):
                self._expect(kind, _BYTES)
                self._graph(a, b, depth + 1)
            elif number in (22, 23):
                raise _Refused("sparse tensors are not allowed")
        if name in _SIZED_ATTRIBUTES and (
            any(abs(value) > 4096 for value in ints) and name != "output_shape"
        ):
            raise _Refused(f"attribute {name!r} of {node.operator} is out of all proportion")
        if name == "output_shape" and _product(ints) > self.limits.elements:
            raise _Refused(f"{node.operator} asks for more elements than allowed")
        if node.operator == "Constant":
            node.constant = values if values is not None else _small(ints)

    def _tensor(self, start: int, end: int) -> tuple[str, np.ndarray | None]:
        """Check a tensor; return its name, and its values where they can be sizes."""
        dims: list[int] = []
        data_type, name, location = 0, "", 0
        raw: tuple[int, int] | None = None
        typed: dict[int, int] = {}
        int64: list[int] = []
        for number, kind, a, b in self._fields(start, end):
            if number == 1:
                dims += self._varints(kind, a, b)
            elif number == 2:
                self._expect(kind, _VARINT)
                data_type = a
            elif number == 8:
                self._expect(kind, _BYTES)
                name = self._text(a, b)
            elif number == 9:
                self._expect(kind, _BYTES)
                raw = (a, b)
            elif number in (4, 5, 7, 10, 11):
                typed[number] = typed.get(number, 0) + self._count(number, kind, a, b)
                if number == 7 and typed[number] <= 64:
                    int64 += self._varints(kind, a, b)
            elif number == 13:
                raise _Refused(f"tensor {name[:80]!r} lies in an external file, which is not taken")
            elif number == 14:
                self._expect(kind, _VARINT)
                location = a
            elif number in (3, 6):
                raise _Refused("segmented tensors and strings are not allowed")
        if location:
            raise _Refused(f"tensor {name[:80]!r} lies in an external file, which is not taken")
        if data_type not in _BITS:
            raise _Refused(f"tensor {name[:80]!r} has a type ({data_type}) that is not allowed")
        if any(size < 0 for size in dims):
            raise _Refused(f"tensor {name[:80]!r} has a negative size")
        elements = element_count(dims)
        self.elements += elements
        if elements > self.limits.elements or self.elements > self.limits.elements:
            raise _Refused(
                f"its tensors have more than the {self.limits.elements} elements allowed"
            )
        self._require_data(name, elements, data_type, raw, typed)
        if data_type != _INT64 or elements > 64:
            return name, None
        if raw is not None:
            return name, np.frombuffer(self.data[raw[0] : raw[1]], dtype="<i8").copy()
        return name, np.asarray(int64, dtype=np.int64)

    def _require_data(
        self,
        name: str,
        elements: int,
        data_type: int,
        raw: tuple[int, int] | None,
        typed: Mapping[int, int],
    ) -> None:
        bits = _BITS[data_type]
        if raw is not None:
            have, want = raw[1] - raw[0], -(-elements * bits // 8)
        else:
            # Complex numbers are two entries each; packed types share an entry.
            want = elements * 2 if data_type in (14, 15) else elements
            have = sum(typed.values())
            if bits < 8:
                want = -(-elements * bits // 8)
        if have != want:
            raise _Refused(f"tensor {name[:80]!r} does not hold the data its shape names")

    def _input(self, start: int, end: int) -> None:
        sizes: list[int] = []
        # ValueInfo.type.tensor_type.shape.dim.dim_value
        spans = [(start, end)]
        for wanted in (2, 1, 2, 1):
            spans = [
                (a, b)
                for span in spans
                for number, kind, a, b in self._fields(*span)
                if number == wanted and kind == _BYTES
            ]
        for span in spans:
            sizes += [_signed(a) for n, kind, a, _ in self._fields(*span) if (n, kind) == (1, 0)]
        if _product(sizes) > self.limits.elements:
            raise _Refused("an input has more elements than allowed")

    def _count(self, number: int, kind: int, a: int, b: int) -> int:
        """Return how many entries a typed data field holds."""
        if number in (4, 10):
            width = 4 if number == 4 else 8
            if kind == _BYTES:
                if (b - a) % width:
                    raise _Refused("a tensor's data is cut off")
                return (b - a) // width
            self._expect(kind, _FIXED32 if number == 4 else _FIXED64)
            return 1
        if kind == _BYTES:
            return int(np.count_nonzero(np.frombuffer(self.data[a:b], dtype=np.uint8) < 128))
        self._expect(kind, _VARINT)
        return 1

    def _varints(self, kind: int, a: int, b: int) -> list[int]:
        if kind == _VARINT:
            return [_signed(a)]
        self._expect(kind, _BYTES)
        values = []
        while a < b:
            value, a = self._varint(a, b)
            values.append(_signed(value))
            self._spend()
        return values

    def _fields(self, start: int, end: int) -> Iterator[tuple[int, int, int, int]]:
        """Yield number, wire type and (value, end) or (start, end) of each field in a frame."""
        position = start
        while position < end:
            self._spend()
            key, position = self._varint(position, end)
            number, kind = key >> 3, key & 7
            if number == 0:
                raise _Refused("the file is no ONNX model")
            if kind == _VARINT:
                value, position = self._varint(position, end)
                yield number, kind, value, position
            elif kind in (_FIXED64, _FIXED32):
                stop = position + (8 if kind == _FIXED64 else 4)
                if stop > end:
                    raise _Refused("the file is truncated")
                yield number, kind, position, stop
                position = stop
            elif kind == _BYTES:
                length, position = self._varint(position, end)
                if length > end - position:
                    raise _Refused("the file is truncated")
                yield number, kind, position, position + length
                position += length
            else:
                raise _Refused("the file is no ONNX model")

    def _varint(self, position: int, end: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            if position >= end:
                raise _Refused("the file is truncated")
            byte = self.data[position]
            position += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value & (2**64 - 1), position
            shift += 7
            if shift > 63:
                raise _Refused("the file is no ONNX model")

    def _spend(self) -> None:
        self.fields += 1
        if self.fields > self.limits.fields:
            raise _Refused(f"the model has more than {self.limits.fields} fields")

    def _expect(self, kind: int, wanted: int) -> None:
        if kind != wanted:
            raise _Refused("the file is no ONNX model (a field has the wrong type)")

    def _text(self, start: int, end: int) -> str:
        if end - start > 4096:
            raise _Refused("a name is longer than 4096 bytes")
        try:
            return bytes(self.data[start:end]).decode("utf-8")
        except UnicodeDecodeError:
            raise _Refused("a name is not valid UTF-8") from None


@dataclass
class _Node:
    operator: str = ""
    domain: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    constant: np.ndarray | None = None


@dataclass
class _Scope:
    """The nodes and small integer constants of one graph."""

    constants: dict[str, np.ndarray | None] = field(default_factory=dict)
    producers: dict[str, _Node] = field(default_factory=dict)
    sized: list[_Node] = field(default_factory=list)

    def add(self, node: _Node) -> None:
        """Note what a node makes, and whether an input says the size of its output."""
        for output in node.outputs:
            self.producers[output] = node
        if node.operator == "Constant" and node.outputs:
            self.constants[node.outputs[0]] = node.constant
        if node.operator in _SIZED_BY:
            self.sized.append(node)

    def check_sizes(self, elements: int) -> None:
        """Refuse sizes that are too large, or computed by anything that can multiply."""
        bounds: dict[str, int] = {}
        for node in self.sized:
            for place in _SIZED_BY[node.operator]:
                if place >= len(node.inputs) or not node.inputs[place]:
                    continue
                if self._bound(node, node.inputs[place], elements, bounds, 0) > elements:
                    raise _Refused(f"{node.operator} asks for more elements than allowed")

    def _bound(
        self, user: _Node, name: str, elements: int, bounds: dict[str, int], depth: int
    ) -> int:
        """Return a bound on the product of the constants in a size, at most ``elements + 1``.

        Sizes of the input, which ``Shape`` gives, count as 1: they are bounded already.
        """
        if name in bounds:
            return bounds[name]
        if depth > _MAX_SIZE_DEPTH:
            raise _Refused(f"the size of {user.operator} is computed in too many steps")
        product = 1
        if name in self.constants:
            values = self.constants[name]
            product = 1 if values is None else max(1, _product(values.tolist()))
        elif name in self.producers:
            node = self.producers[name]
            if node.operator not in _SHAPE_OPERATORS:
                raise _Refused(f"the size of {user.operator} is computed by {node.operator}")
            inputs = node.inputs[:1] if node.operator in _INDEXED else node.inputs
            for source in inputs if node.operator not in ("Shape", "Size") else ():
                product *= self._bound(user, source, elements, bounds, depth + 1)
                product = min(product, elements + 1)
        bounds[name] = min(product, elements + 1)
        return bounds[name]


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def _product(sizes: list[int]) -> int:
    return element_count([size for size in sizes if size])


def _small(ints: list[int]) -> np.ndarray | None:
    return np.asarray(ints[:64], dtype=np.int64) if ints else None
