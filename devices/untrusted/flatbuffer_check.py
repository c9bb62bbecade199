"""LiteRT and ExecuTorch files, walked as flatbuffers before any library loads them.

Only what the schemas say is followed (``schema.fbs`` of LiteRT, ``program.fbs`` of ExecuTorch):
every table, vector and string must lie inside the file, every index must name something, every
weight must have the size of its shape, and no tensor may be larger than allowed. The contents
of a delegate inside an ExecuTorch file are the delegate's own; like all that is computed, they
are loaded in a measuring process with a memory limit and a deadline.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable, Sequence
from typing import Any

from search_spaces.errors import InputError

# LiteRT TensorType -> bits. Strings, resources and variants are refused.
_BITS = {0: 32, 1: 16, 2: 32, 3: 8, 4: 64, 6: 8, 7: 16, 8: 64, 9: 8, 10: 64, 11: 128, 12: 64,
         15: 32, 16: 16, 17: 4, 18: 16, 19: 2}  # fmt: skip


_MAX_RANK = 16
_HUGE = 1 << 62


def element_count(shape: Sequence[int]) -> int:
    """Return the product of the absolute sizes of a shape, at most ``2**62``.

    Python multiplies whole numbers of any length: of a hundred thousand sizes the product has a
    million digits, and the time of making it grows as the square of their number.
    """
    if 0 in shape:
        return 0
    count = 1
    for size in shape:
        count *= abs(size)
        if count > _HUGE:
            return _HUGE
    return count


Bytes = bytes | mmap.mmap


class FlatbufferRefused(InputError):
    """A flatbuffer file that may not be loaded."""


class Flatbuffer:
    """Reads tables of a flatbuffer and refuses whatever leads outside it.

    Args:
        data: the bytes.
        steps: tables and entries that may be looked at, which bounds the time: offsets may
            meet, so a small file can spell a large tree.
    """

    def __init__(self, data: Bytes, steps: int) -> None:
        self.data, self._steps = data, steps

    def root(self) -> Table:
        """Return the root table."""
        return self.table_at(self.number(0, "<I"))

    def number(self, position: int, form: str) -> int:
        """Return the number at a position; ``form`` is as :mod:`struct` has it."""
        if position < 0 or position + struct.calcsize(form) > len(self.data):
            raise FlatbufferRefused("the file is truncated, or leads outside itself")
        return int(struct.unpack_from(form, self.data, position)[0])

    def table_at(self, position: int) -> Table:
        """Return the table at a position, its header checked."""
        self.spend(1)
        start = position - self.number(position, "<i")
        size, extent = self.number(start, "<H"), self.number(start + 2, "<H")
        if size < 4 or size % 2 or extent < 4 or position + extent > len(self.data):
            raise FlatbufferRefused("a table is malformed")
        self.number(start + size - 2, "<H")
        fields = struct.unpack_from(f"<{size // 2 - 2}H", self.data, start + 4)
        if any(field >= extent for field in fields):
            raise FlatbufferRefused("a table is malformed")
        return Table(self, position, fields)

    def vector_at(self, position: int, width: int) -> tuple[int, int]:
        """Return where the entries of a vector begin and how many it has."""
        count = self.number(position, "<I")
        if position + 4 + count * width > len(self.data):
            raise FlatbufferRefused("a vector is longer than the file")
        return position + 4, count

    def spend(self, steps: int) -> None:
        """Count what was looked at."""
        self._steps -= steps
        if self._steps < 0:
            raise FlatbufferRefused("the model has more tables and entries than allowed")


class Table:
    """One table: fields by their number in the schema, the default where one is absent."""

    def __init__(self, buffer: Flatbuffer, position: int, fields: Sequence[int]) -> None:
        self._buffer, self._position, self._fields = buffer, position, fields

    def _at(self, field: int) -> int | None:
        offset = self._fields[field] if field < len(self._fields) else 0
        return self._position + offset if offset else None

    def has(self, field: int) -> bool:
        """Whether a field is there."""
        return self._at(field) is not None

    def number(self, field: int, form: str, default: int = 0) -> int:
        """Return a scalar."""
        at = self._at(field)
        return default if at is None else self._buffer.number(at, form)

    def _follow(self, field: int) -> int | None:
        at = self._at(field)
        return None if at is None else at + self._buffer.number(at, "<I")

    def table(self, field: int) -> Table | None:
        """Return a table, None where there is none."""
        at = self._follow(field)
        return None if at is None else self._buffer.table_at(at)

    def tables(self, field: int) -> list[Table]:
        """Return the tables of a vector."""
        at = self._follow(field)
        if at is None:
            return []
        start, count = self._buffer.vector_at(at, 4)
        self._buffer.spend(count)
        places = range(start, start + 4 * count, 4)
        return [self._buffer.table_at(p + self._buffer.number(p, "<I")) for p in places]

    def numbers(self, field: int, code: str) -> list[int]:
        """Return a vector of scalars; ``code`` is a letter of :mod:`struct`."""
        at = self._follow(field)
        if at is None:
            return []
        start, count = self._buffer.vector_at(at, struct.calcsize(f"<{code}"))
        self._buffer.spend(count)
        return list(struct.unpack_from(f"<{count}{code}", self._buffer.data, start))

    def size(self, field: int, width: int = 1) -> int:
        """Return how many entries a vector or string has; they lie inside the file."""
        at = self._follow(field)
        return 0 if at is None else self._buffer.vector_at(at, width)[1]


def check_litert(data: Bytes, *, elements: int, steps: int) -> None:
    """Check a ``.tflite`` file.

    Args:
        elements: of any one tensor.
        steps: see :class:`Flatbuffer`.

    Raises:
        FlatbufferRefused: the message says why in a line.
    """
    model = Flatbuffer(data, steps).root()
    sizes = [_buffer_size(buffer, len(data)) for buffer in model.tables(4)]
    codes, graphs = model.tables(1), model.tables(2)
    if not graphs:
        raise FlatbufferRefused("the model holds no graph")
    for code in codes:
        code.size(1)
    for graph in graphs:
        tensors = graph.tables(0)
        for tensor in tensors:
            _litert_tensor(tensor, sizes, elements)
        for operator in graph.tables(3):
            _index(operator.number(0, "<I"), len(codes), "operator")
            for field in (1, 2, 8):
                _indices(operator.numbers(field, "i"), len(tensors), "tensor", absent=True)
            for field in (4, 12):
                operator.table(field)
            operator.size(5)
        for field in (1, 2):
            _indices(graph.numbers(field, "i"), len(tensors), "tensor")
        graph.size(4)


def _buffer_size(buffer: Table, file_size: int) -> int:
    offset, size = buffer.number(1, "<Q"), buffer.number(2, "<Q")
    if offset + size > file_size:
        raise FlatbufferRefused("weights lie outside the file")
    return size if offset > 1 else buffer.size(0)


def _litert_tensor(tensor: Table, sizes: Sequence[int], elements: int) -> None:
    shape, kind = tensor.numbers(0, "i"), tensor.number(1, "<b")
    count = _elements(shape, elements)
    if kind not in _BITS:
        raise FlatbufferRefused(f"a tensor has a type ({kind}) that is not allowed")
    if tensor.has(6):
        raise FlatbufferRefused("sparse tensors are not allowed")
    held = sizes[_index(tensor.number(2, "<I"), len(sizes), "buffer")]
    if held and held != -(-count * _BITS[kind] // 8):
        raise FlatbufferRefused("a tensor does not hold the data its shape names")
    tensor.size(3)
    tensor.size(7, 4)
    grid = tensor.table(4)
    if grid is not None:
        for field, width in ((0, 4), (1, 4), (2, 4), (3, 8)):
            grid.size(field, width)


def check_executorch(data: Bytes, *, elements: int, steps: int) -> None:
    """Check a ``.pte`` file; arguments and errors are those of :func:`check_litert`."""
    buffer = Flatbuffer(data, steps)
    base, end = 0, len(data)
    if bytes(data[8:12]) == b"eh00":  # the extended header: sizes of program and segments
        end, base = buffer.number(16, "<Q"), buffer.number(24, "<Q")
        if end > len(data) or base > len(data):
            raise FlatbufferRefused("the executorch file is truncated")
    program = Flatbuffer(data[:end], steps).root()
    for segment in program.tables(4):
        if base + segment.number(0, "<Q") + segment.number(1, "<Q") > len(data):
            raise FlatbufferRefused("the executorch file is truncated: a segment lies outside it")
    for field in (2, 3):
        for inline in program.tables(field):
            inline.size(0)
    segments = len(program.tables(4))
    constants = program.table(5)
    if constants is not None:
        constants.size(1, 8)
        if segments:
            _index(constants.number(0, "<I"), segments, "segment")
    plans = program.tables(1)
    if not plans:
        raise FlatbufferRefused("the model holds no program")
    for plan in plans:
        _plan(plan, elements, segments, program.size(3, 4))


def _plan(plan: Table, elements: int, segments: int, inline: int) -> None:
    values = plan.tables(2)
    for value in values:
        content = value.table(1)
        if content is not None:
            _value(value.number(0, "<B"), content, elements, len(values))
    for field in (3, 4):
        _indices(plan.numbers(field, "i"), len(values), "value")
    memory = plan.numbers(8, "q")
    if any(size < 0 for size in memory) or sum(memory) > 8 * elements:
        raise FlatbufferRefused("the program asks for more memory than allowed")
    operators, delegates = plan.tables(6), plan.tables(7)
    for operator in operators:
        operator.size(0)
        operator.size(1)
    for delegate in delegates:
        delegate.size(0)
        where = delegate.table(1)
        if where is not None:
            _index(where.number(1, "<I"), segments if where.number(0, "<b") else inline, "delegate")
        for spec in delegate.tables(2):
            spec.size(0)
            spec.size(1)
    counts = {1: len(operators), 2: len(delegates)}
    for chain in plan.tables(5):
        instructions = chain.tables(2)
        for instruction in instructions:
            kind, call = instruction.number(0, "<B"), instruction.table(1)
            if call is None:
                raise FlatbufferRefused("an instruction is empty")
            if kind in counts:
                _index(call.number(0, "<i"), counts[kind], "operator")
                _indices(call.numbers(1, "i"), len(values), "value")
            else:
                _index(call.number(0, "<i"), len(values), "value")
                most = len(values) if kind == 3 else len(instructions) + 1
                _index(call.number(1, "<i"), most, "instruction or value")


def _value(kind: int, content: Table, elements: int, values: int) -> None:
    lists: dict[int, Callable[[], Any]] = {
        6: lambda: content.size(0),
        7: lambda: content.size(0, 8),
        8: lambda: content.size(0, 8),
        9: lambda: content.size(0),
        10: lambda: _indices(content.numbers(0, "i"), values, "value"),
        11: lambda: _indices(content.numbers(0, "i"), values, "value", absent=True),
    }
    if kind == 5:
        _elements(content.numbers(2, "i"), elements)
        content.size(3)
        content.table(6)
        extra = content.table(9)
        if extra is not None:
            extra.size(1)
            if extra.number(2, "<b"):
                raise FlatbufferRefused("a tensor lies in an external file, which is not taken")
    elif kind in lists:
        lists[kind]()


def _elements(shape: Sequence[int], most: int) -> int:
    if len(shape) > _MAX_RANK:
        raise FlatbufferRefused(f"a tensor has more than {_MAX_RANK} dimensions")
    if any(size < 0 for size in shape):
        raise FlatbufferRefused("a tensor has a negative size")
    count = element_count(shape)
    if count > most:
        raise FlatbufferRefused(f"a tensor has more than the {most} elements allowed")
    return count


def _index(index: int, count: int, what: str) -> int:
    if not 0 <= index < count:
        raise FlatbufferRefused(f"there is no {what} {index}")
    return index


def _indices(indices: Sequence[int], count: int, what: str, *, absent: bool = False) -> None:
    for index in indices:
        if not (absent and index == -1):
            _index(index, count, what)
