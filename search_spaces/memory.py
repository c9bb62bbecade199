"""What a network needs on a microcontroller: the peak of its activations, and its flash.

The peak is exact for the graph as it is written: a tensor lives from the operation that
makes it to the last one that reads it, every operation has its inputs and its output in
memory at once, and activation functions, quantisation and batch norm work in place. What
an allocator loses to fragmentation, and the runtime's own structures, come on top.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from search_spaces.block_kinds import BLOCK_KINDS, MemoryFlow, on_alive, on_current
from search_spaces.columns import BlockColumn, LayerColumn, OperatorColumn
from search_spaces.errors import InputError
from search_spaces.layers import FLOAT_BITS, STREAM_BITS, LayerPlan, Numbers, OperatorPlan
from search_spaces.registry import Registry

if TYPE_CHECKING:
    from search_spaces.plan import NetworkPlan
    from search_spaces.planned import PlannedSpace


SUM, NOTHING, INPUTS, PLACES, UNKNOWN = "sum", "nothing", "inputs", "places", "unknown"
"""What the gradients of an operation need of its forward pass: nothing, and the gradient of the
output is that of each input (sums); nothing (means, enlarging, joining); its inputs (products,
attention, norms); which of the places of a window was largest (maxima); or nobody said."""


@dataclass(frozen=True)
class Tensor:
    """A tensor over ``n`` architectures; where an operation is inactive it is its input.

    Attributes:
        storage: (n,) number of the memory it occupies in each architecture.
        count: (n,) elements.
    """

    storage: np.ndarray
    count: np.ndarray


class Tape:
    """Records operations and the tensors they read and make.

    Args:
        rows: number of architectures.
        stream_bits: (rows,) bits of the tensors between blocks.
        bit_aware: tensors of less than 8 bits are stored packed; otherwise in bytes.
    """

    def __init__(self, rows: int, stream_bits: np.ndarray, *, bit_aware: bool = False) -> None:
        self.rows = rows
        self.stream_bits = stream_bits
        self.bit_aware = bit_aware
        self._sizes: list[np.ndarray] = []
        self._last: list[np.ndarray] = []

    def tensor(self, count: np.ndarray | int, bits: np.ndarray | int) -> Tensor:
        """Add a tensor that is there before the first operation, as the input is."""
        return self._make([], count, bits, np.ones(self.rows, dtype=bool))

    def op(
        self,
        inputs: Sequence[Tensor],
        count: np.ndarray | int,
        bits: np.ndarray | int,
        active: np.ndarray | None = None,
        *,
        keeps: str = UNKNOWN,
        activation: str = "none",
        layer: LayerColumn | None = None,
    ) -> Tensor:
        """Add an operation and return its output.

        Args:
            inputs: what it reads.
            count: elements of the output.
            bits: of the output's elements.
            active: (n,) which architectures have it; the others pass their first input on.
            keeps: what its gradients need, for training on a device: :data:`SUM`,
                :data:`NOTHING`, :data:`INPUTS` or :data:`PLACES`.
            activation: non-linearity of its output, where no layer that reads it says so.
            layer: where it is one; see :meth:`layer`.
        """
        every = np.ones(self.rows, dtype=bool)
        return self._make(inputs, count, bits, every if active is None else active)

    def layer(
        self,
        x: Tensor,
        column: LayerColumn,
        count: np.ndarray | int,
        bits: np.ndarray | int,
        activation: str,
    ) -> Tensor:
        """Add a convolution or linear layer and return its output; as :meth:`op`."""
        return self.op(
            [x], count, bits, column.active, keeps=INPUTS, activation=activation, layer=column
        )

    def _make(
        self,
        inputs: Sequence[Tensor],
        count: np.ndarray | int,
        bits: np.ndarray | int,
        active: np.ndarray,
    ) -> Tensor:
        time = len(self._sizes)
        rows = np.arange(self.rows)
        count = np.broadcast_to(np.asarray(count, dtype=np.int64), (self.rows,))
        bits = np.broadcast_to(np.asarray(bits, dtype=np.int64), (self.rows,))
        if not self.bit_aware:
            bits = np.maximum(8, -(-bits // 8) * 8)
        self._sizes.append(np.where(active, -(-count * bits // 8), 0))
        self._last.append(np.full(self.rows, time))
        last = self._last
        for tensor in inputs:
            for storage in np.unique(tensor.storage):
                used = active & (tensor.storage == storage)
                last[storage] = np.where(used, time, last[storage])
        if not inputs:
            return Tensor(np.full(self.rows, time), count)
        first = inputs[0]
        return Tensor(
            np.where(active, time, first.storage)[rows], np.where(active, count, first.count)
        )

    def peak_bytes(self) -> np.ndarray:
        """Return the most bytes that live at once: (n,) int64."""
        steps = len(self._sizes)
        change = np.zeros((steps + 1, self.rows), dtype=np.int64)
        rows = np.arange(self.rows)
        for time, (size, last) in enumerate(zip(self._sizes, self._last, strict=True)):
            change[time] += size
            change[last + 1, rows] -= size
        return change.cumsum(0).max(0)


MEMORY_FLOWS: Registry[MemoryFlow] = Registry("memory flow", group="nas.memory_flows")
"""Flows of kinds that are not in :data:`~search_spaces.block_kinds.BLOCK_KINDS`."""


def memory_flow(kind: str) -> MemoryFlow | None:
    """Return how tensors run through blocks of ``kind``, or None where nobody said."""
    if kind in BLOCK_KINDS:
        record = BLOCK_KINDS.get(kind)
        if record.memory is None:
            return None
        return (on_alive if record.kept else on_current)(record.memory, 2)
    return on_current(MEMORY_FLOWS.get(kind), 2) if kind in MEMORY_FLOWS else None


class Roles:
    """The layers and operators of a block by role."""

    def __init__(self, block: BlockColumn) -> None:
        self.block = block
        self.layers: dict[str, LayerColumn] = {c.layer.role: c for c in block.layers}

    def __contains__(self, role: str) -> bool:
        return role in self.layers

    def point(self, name: str) -> str:
        """Return the non-linearity of a point of the block, ``none`` where it has no such point."""
        return dict(self.block.points).get(name, "none")

    def chain(
        self,
        tape: Tape,
        x: Tensor,
        roles: Sequence[str],
        bits: np.ndarray | int,
        *,
        activation: str = "none",
    ) -> Tensor:
        """Run layers one after another; a tensor has the bits of the layer that reads it.

        Args:
            bits: of the last one's output.
            activation: non-linearity of the last one's output, as of :meth:`Tape.op`.
        """
        present = [self.layers[role] for role in roles if role in self.layers]
        if not present:
            return x
        after: list[np.ndarray | int] = [bits]
        for column in reversed(present[1:]):
            following = np.where(column.active, column.layer.activation_bits, after[0])
            after.insert(0, following)
        for column, width in zip(present, after, strict=True):
            layer = column.layer
            count = layer.output_count
            last = column is present[-1]
            x = tape.layer(x, column, count, width, activation if last else "none")
        return x

    def bits(self, role: str) -> np.ndarray | int:
        """Bits of the input of a layer."""
        return self.layers[role].layer.activation_bits


def peak_memory_bytes(
    space: PlannedSpace, genes: np.ndarray, *, bit_aware: bool = False
) -> np.ndarray:
    """Return the peak of activations in bytes of gene rows (n, choices): (n,) int64.

    Args:
        bit_aware: activations below 8 bits are packed; by default each takes a byte, as in the
            kernels that microcontrollers have.

    Raises:
        InputError: a kind of block has no memory flow.
    """
    genes = np.asarray(genes)
    return peak_of_blocks(
        space.block_columns(genes),
        space.input_channels * space.resolution_column(genes) * space.height_column(genes),
        bit_aware=bit_aware,
    )


def has_memory_flows(blocks: Sequence[BlockColumn]) -> bool:
    """Whether :func:`peak_of_blocks` knows every kind of block."""
    return all(memory_flow(block.kind) is not None for block in blocks)


def peak_of_blocks(
    blocks: Sequence[BlockColumn], input_count: np.ndarray, *, bit_aware: bool = False
) -> np.ndarray:
    """Return the peak of activations in bytes of blocks in a row; see above."""
    tape = Tape(len(input_count), stream_bits(blocks, len(input_count)), bit_aware=bit_aware)
    run_blocks(tape, blocks, input_count)
    return tape.peak_bytes()


def stream_bits(blocks: Sequence[BlockColumn], rows: int) -> np.ndarray:
    """Return the bits of the tensors between blocks, (rows,)."""
    quantised = np.zeros(rows, dtype=bool)
    for block in blocks:
        for column in block.layers:
            quantised |= column.active & np.less(column.layer.activation_bits, FLOAT_BITS)
    return np.where(quantised, STREAM_BITS, FLOAT_BITS)


def run_blocks(tape: Tape, blocks: Sequence[BlockColumn], input_count: np.ndarray) -> None:
    """Record on ``tape`` what blocks in a row do with an input of ``input_count`` elements, (n,).

    Raises:
        InputError: a kind of block has no memory flow.
    """
    first = blocks[0].layers
    # Numbers of tokens are no activations of a layer.
    x = tape.tensor(input_count, first[0].layer.activation_bits if first else FLOAT_BITS)
    for block in blocks:
        flow = memory_flow(block.kind)
        if flow is None:
            raise InputError(
                f"blocks of kind {block.kind!r} have no memory flow; give one with the kind "
                "(entry point nas.block_kinds)"
            )
        x = flow(tape, Roles(block), x)


def flash_bytes(blocks: Sequence[BlockColumn], rows: int) -> np.ndarray:
    """Return the bytes of constants in flash: (n,) float64.

    Weights in the narrowest integers that kernels read (4, 8, 16 bits, or float32), and for
    each output channel an int32 bias, multiplier and shift, as CMSIS-NN and LiteRT Micro keep
    them; operators' parameters in float32. An input of other codes than it is stored in (fewer
    bits than a tensor between blocks has, or a function of them) is read through a table of 256;
    a GELU of a layer's sums is a staircase, see ``devices.lowbit.integers.steps``. Functions of
    networks that were read have the tables of their operators.
    The code is the same for all networks of a space and not counted.
    """
    total = np.zeros(rows)
    integers = stream_bits(blocks, rows) < FLOAT_BITS
    for block in blocks:
        for column in block.layers:
            layer = column.layer
            bits = np.asarray(layer.weight_bits)
            width = np.select([bits <= 4, bits <= 8, bits <= 16], [4, 8, 16], FLOAT_BITS)
            weights = -(-layer.weight_count * width // 8)
            channels = np.where(bits >= FLOAT_BITS, 4, 8 + 4 * layer.scales) * layer.out_channels
            total += column.active * (weights + channels + _table_bytes(layer))
        for item in block.operators:
            # Floats need no tables.
            tables = item.operator.table_bytes * integers
            total += item.active * (4 * item.operator.parameters + tables)
    return total


def _table_bytes(layer: LayerPlan[Numbers]) -> np.ndarray:
    """Return the bytes of the table that the input's codes are read through: (n,) or ()."""
    bits, source = np.asarray(layer.activation_bits), np.asarray(layer.source)
    stored = np.where(source == "stream", STREAM_BITS, FLOAT_BITS)
    read = (bits < stored) & (source != "relu") & (source != "none")
    # A stair is a float32 number and a code; where GELU falls and rises, codes come twice.
    stairs = 5 * 5 * 2.0 ** np.minimum(bits, STREAM_BITS) / 4
    return read * np.where(source == "gelu", stairs, 256)


def plan_peak_bytes(plan: NetworkPlan, *, bit_aware: bool = False) -> float:
    """Return the peak of activations of one network in bytes; NaN as for a space."""
    blocks = plan_columns(plan)
    if not has_memory_flows(blocks):
        return math.nan
    count = np.array([math.prod(plan.input_shape)])
    return float(peak_of_blocks(blocks, count, bit_aware=bit_aware)[0])


def plan_flash_bytes(plan: NetworkPlan) -> float:
    """Return the bytes of constants of one network in flash."""
    return float(flash_bytes(plan_columns(plan), 1)[0])


def plan_columns(plan: NetworkPlan) -> list[BlockColumn]:
    """Return one network as a description with one row."""
    on = np.ones(1, dtype=bool)
    return [
        BlockColumn(
            block.name,
            block.kind,
            tuple(LayerColumn(cast("LayerPlan[Numbers]", one), on) for one in block.layers),
            on,
            on & block.residual,
            block.points,
            tuple(
                OperatorColumn(cast("OperatorPlan[Numbers]", one), on) for one in block.operators
            ),
        )
        for block in plan.blocks
    ]
