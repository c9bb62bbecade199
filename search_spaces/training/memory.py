"""The peak of memory of training on a device: of spaces, and of one network."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from search_spaces.columns import BlockColumn, LayerColumn
from search_spaces.errors import InputError
from search_spaces.memory import has_memory_flows, plan_columns, run_blocks, stream_bits
from search_spaces.training.tape import StepMemory, TrainingTape
from search_spaces.training.update import Update

if TYPE_CHECKING:
    from search_spaces.plan import NetworkPlan
    from search_spaces.planned import PlannedSpace

ROWS = 4096
"""Architectures that are worked out at once, so that memory stays small."""


def training_memory_kib(space: PlannedSpace, genes: np.ndarray, update: Update) -> np.ndarray:
    """Return the peak in KiB of a step of training for gene rows (n, choices): (n,) float64.

    NaN where the space has blocks without a memory flow, or with operations whose gradients
    nobody described.
    """
    genes = np.asarray(genes)
    parts = [_of_rows(space, genes[i : i + ROWS], update) for i in range(0, len(genes), ROWS)]
    return np.concatenate(parts) if parts else np.zeros(0)


def plan_training_memory(plan: NetworkPlan, update: Update) -> StepMemory:
    """Return the bytes of a step of training of one network, arrays of one row.

    Raises:
        InputError: a layer of ``update.shares`` that the network has not, or a kind of block whose
            memory or gradients nobody described.
    """
    known = {layer.name for layer in plan.layers()}
    for name in update.shares:
        if name not in known:
            raise InputError(f"the network has no layer {name!r} to update; it has {sorted(known)}")
    blocks = plan_columns(plan)
    if not has_memory_flows(blocks):
        raise InputError(
            "the network has blocks whose use of memory nobody described; give a memory flow with "
            "their kind (entry point nas.block_kinds)"
        )
    found = step_memory(blocks, np.array([math.prod(plan.input_shape)]), update)
    if np.isnan(found.peak[0]):
        raise InputError(
            "the network has operations whose gradients nobody described; say keeps= in the memory "
            "flow of their kind of block"
        )
    return found


def step_memory(
    blocks: Sequence[BlockColumn], input_count: np.ndarray, update: Update
) -> StepMemory:
    """Return the bytes of a step of training of blocks in a row.

    Args:
        blocks: of ``n`` architectures.
        input_count: values of their inputs, (n,).
        update: what is trained, and how.
    """
    rows = len(input_count)
    after = _layers_after(blocks, rows)

    def shares(column: LayerColumn) -> tuple[np.ndarray, np.ndarray]:
        if update.shares:
            share = update.shares.get(column.layer.name)
            chosen = np.full(rows, share is not None)
            part = np.full(rows, 0.0 if share is None else share)
        else:
            rank = after[id(column)]
            chosen = np.ones(rows, bool) if update.last is None else rank < update.last
            part = np.where(chosen, update.share, 0.0)
        return part, chosen & update.biases

    tape = TrainingTape(rows, stream_bits(blocks, rows), shares)
    run_blocks(tape, blocks, input_count)
    return tape.step_memory(
        batch=update.batch, gradient_bytes=update.gradient_bits // 8, states=update.states
    )


def _of_rows(space: PlannedSpace, genes: np.ndarray, update: Update) -> np.ndarray:
    blocks = space.block_columns(genes)
    if not has_memory_flows(blocks):
        return np.full(len(genes), np.nan)
    count = space.input_channels * space.resolution_column(genes) * space.height_column(genes)
    return np.asarray(step_memory(blocks, count, update).peak / 1024)


def _layers_after(blocks: Sequence[BlockColumn], rows: int) -> dict[int, np.ndarray]:
    """Return how many active layers come after each, by the identity of its column, (rows,)."""
    found: dict[int, np.ndarray] = {}
    total = np.zeros(rows, dtype=np.int64)
    for block in reversed(blocks):
        for column in reversed(block.layers):
            found[id(column)] = total.copy()
            total = total + column.active
    return found
