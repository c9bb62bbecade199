"""Which choices of a space set bit-widths, found from what they change in the plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from search_spaces.choice_kinds import variants, without_bits
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace


@dataclass(frozen=True)
class BitChoice:
    """A choice that changes bit-widths and nothing else.

    Attributes:
        column: its position among the choices of the space.
        weight_bits, activation_bits: bits of the layers it governs, one entry an option;
            empty where it leaves them alone.
    """

    column: int
    weight_bits: tuple[int, ...]
    activation_bits: tuple[int, ...]


def bit_choices(space: PlannedSpace) -> dict[str, BitChoice]:
    """Return the choices of ``space`` that decide bit-widths alone, by name."""
    found = {}
    for column, choice in enumerate(space.choices):
        plans = variants(space, column)
        if len({without_bits(plan) for plan in plans}) != 1 or len(plans) < 2:
            continue
        weights, activations = (
            _governed([[getattr(layer, name) for layer in plan.layers()] for plan in plans])
            for name in ("weight_bits", "activation_bits")
        )
        if weights or activations:
            found[choice.name] = BitChoice(column, weights, activations)
    return found


def common_bits(space: PlannedSpace) -> tuple[int, ...]:
    """Return the bits, largest first, that :func:`set_bits` can give weights and inputs alike."""
    each = [
        {w for w, a in zip(c.weight_bits, c.activation_bits, strict=True) if w == a}
        if c.weight_bits and c.activation_bits
        else {*c.weight_bits, *c.activation_bits}
        for c in bit_choices(space).values()
    ]
    return tuple(sorted(set.intersection(*each), reverse=True)) if each else ()


def set_bits(
    space: PlannedSpace,
    genes: np.ndarray,
    weight_bits: int,
    activation_bits: int,
    *,
    choices: Mapping[str, BitChoice] | None = None,
) -> np.ndarray:
    """Return gene rows (n, choices) with every searched layer at the given bits.

    Layers whose bits are not searched (by default the first and the last) keep theirs.

    Raises:
        InputError: the space does not offer these bits.
    """
    genes = np.array(genes)
    for name, choice in (bit_choices(space) if choices is None else choices).items():
        wanted = [
            o
            for o in range(len(space.choices[choice.column].options))
            if (not choice.weight_bits or choice.weight_bits[o] == weight_bits)
            and (not choice.activation_bits or choice.activation_bits[o] == activation_bits)
        ]
        if not wanted:
            raise InputError(
                f"the space {space.name!r} has no option of {name} with {weight_bits}-bit weights "
                f"and {activation_bits}-bit activations "
                f"(options: {list(space.choices[choice.column].options)})"
            )
        genes[:, choice.column] = wanted[0]
    return space.canonical(genes)


def _governed(bits: list[list[int]]) -> tuple[int, ...]:
    """Bits of each option, from the layers in which the options differ."""
    table = np.array(bits)
    differing = np.flatnonzero((table != table[:1]).any(axis=0))
    return tuple(table[:, differing[0]].tolist()) if differing.size else ()
