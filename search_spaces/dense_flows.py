"""How memory is used by blocks that join feature maps of several sizes: detection, segmentation."""

from __future__ import annotations

from search_spaces.block_kinds import BLOCK_KINDS, BlockKind
from search_spaces.layers import FLOAT_BITS
from search_spaces.memory import NOTHING, SUM, Roles, Tape, Tensor

MOST_LAYERS = 3
"""Pairs of convolutions in the tower of a level, at most."""


def _fork(tape: Tape, roles: Roles, x: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    # Of an architecture without the fork the tensor is read by nobody later, and costs nothing.
    return (*x, x[0])


def _detect(tape: Tape, roles: Roles, x: tuple[Tensor, ...]) -> Tensor:
    current, *kept = x
    current = roles.chain(tape, current, ["top"], tape.stream_bits)
    found = []
    if "lateral" in roles:
        lateral = roles.layers["lateral"]
        side = roles.chain(tape, kept[0], ["lateral"], tape.stream_bits)
        # Enlarging and adding is one operation: a value is read where it is added.
        joined = tape.op([side, current], side.count, tape.stream_bits, lateral.active, keeps=SUM)
        found.append(_tower(tape, roles, joined, "fine"))
    if "coarse_predict" in roles:
        found.append(_tower(tape, roles, current, "coarse"))
    if len(found) == 1:
        return found[0]
    both = roles.layers["fine_predict"].active & roles.layers["coarse_predict"].active
    return tape.op(found, found[0].count + found[1].count, FLOAT_BITS, both, keeps=NOTHING)


def _tower(tape: Tape, roles: Roles, x: Tensor, level: str) -> Tensor:
    pairs = range(1, MOST_LAYERS + 1)
    parts = [f"{level}_{part}{i}" for i in pairs for part in ("depthwise", "pointwise")]
    return roles.chain(tape, x, [*parts, f"{level}_predict"], FLOAT_BITS)


def _decode(tape: Tape, roles: Roles, x: tuple[Tensor, ...]) -> Tensor:
    current, *kept = x
    current = roles.chain(tape, current, ["top"], tape.stream_bits)
    for i in range(1, len(kept) + 1):
        lateral = roles.layers[f"lateral{i}"]
        side = roles.chain(tape, kept[-i], [f"lateral{i}"], tape.stream_bits)
        joined = tape.op([current, side], side.count, tape.stream_bits, lateral.active, keeps=SUM)
        last = roles.point(f"out{i}")
        pair = [f"depthwise{i}", f"pointwise{i}"]
        current = roles.chain(tape, joined, pair, tape.stream_bits, activation=last)
    return roles.chain(tape, current, ["classify"], tape.stream_bits)


for _name, _flow in (("fork", _fork), ("detect", _detect), ("decode", _decode)):
    BLOCK_KINDS.register(_name)(
        BlockKind(f"supernet.dense:{_name}", _flow, kept=True)  # type: ignore[arg-type]
    )
