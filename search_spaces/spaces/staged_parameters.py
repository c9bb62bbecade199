"""The parameters that staged spaces share, their checks, and the bits of blocks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from search_spaces.errors import InputError
from search_spaces.parameters import (
    ACTIVATIONS,
    BITS,
    ascending,
    check_bits,
    odd,
    one_of,
    whole,
)
from search_spaces.plan import FLOAT_BITS
from search_spaces.space import Choice, Condition

Conditions = tuple[Condition, ...]


@dataclass(frozen=True)
class Parameters:
    """What defines a space whatever its blocks are.

    Attributes:
        stages: the elastic stages.
        resolutions: sides of the square input, pixels.
        stem_channels, stem_kernel, stem_stride, stem_activation: of the first convolution.
        stem_pool: a 3x3 max pooling of stride 2 after it.
        head_channels: of a last 1x1 convolution before pooling; 0 for none.
        feature_channels: of a linear layer between pooling and classifier; 0 for none.
        head_activation: after the last convolution (and the feature layer).
        widths: width multipliers of all channel counts but the outputs.
        kernels, expands: for every stage that names none of its own.
        weight_bits, activation_bits: allowed bits of each searchable layer; 32 is float.
        edge_bits: bits of the first and last layers, which are not searched.
        granularity: ``layer`` gives each layer bits of its own, ``block`` one pair to the
            layers of a block.
        divisor: channel counts are rounded to multiples of it.
        exits: numbers of stages, from 1, after which a network may end as well, with a
            convolution of twice the channels, pooling and a classifier of its own.
    """

    stages: tuple[Any, ...]
    resolutions: tuple[int, ...]
    stem_channels: int = 16
    stem_kernel: int = 3
    stem_stride: int = 2
    stem_activation: str = "relu"
    stem_pool: bool = False
    head_channels: int = 0
    feature_channels: int = 0
    head_activation: str = "relu"
    widths: tuple[float, ...] = (1.0,)
    kernels: tuple[int, ...] = (3,)
    expands: tuple[float, ...] = (1,)
    weight_bits: tuple[int, ...] = (2, 3, 4, 8)
    activation_bits: tuple[int, ...] = (2, 3, 4, 8)
    edge_bits: int = 8
    granularity: str = "layer"
    divisor: int = 4
    exits: tuple[int, ...] = ()

    @property
    def edges(self) -> tuple[int, int]:
        """Weight and activation bits of the layers that are not searched."""
        return edges(self.weight_bits, self.activation_bits, self.edge_bits)


def edges(weights: Sequence[int], activations: Sequence[int], edge_bits: int) -> tuple[int, int]:
    """Return the bits of layers that are not searched.

    A space without quantised weights (or activations) has none at its edges either.
    """
    return (
        FLOAT_BITS if tuple(weights) == (FLOAT_BITS,) else edge_bits,
        FLOAT_BITS if tuple(activations) == (FLOAT_BITS,) else edge_bits,
    )


def bits_name(block: str, kind: str, role: str, granularity: str) -> str:
    """Return the name of the choice of a layer's weight (``w``) or activation (``a``) bits."""
    return f"{block}.{kind}" if granularity == "block" else f"{block}.{kind}.{role}"


def bit_choices(
    name: str, parameters: Any, roles: Mapping[str, Conditions], when: Conditions
) -> list[Choice]:
    """Return the bit choices of a block whose layers are ``roles``, by role its conditions."""
    p = parameters
    if p.granularity == "block":
        roles = {"": when}
    return [
        Choice(bits_name(name, kind, role, p.granularity), bits, conditions)
        for role, conditions in roles.items()
        for kind, bits in (("w", p.weight_bits), ("a", p.activation_bits))
    ]


def check_parameters(space: str, p: Parameters, *, shares: bool = False) -> None:
    """Raise :class:`InputError` for a value that no staged space can have.

    Args:
        space, p: its name and parameters.
        shares: resolutions are shares of the data's size.
    """
    if not p.stages:
        raise InputError(f"stages is empty: a {space} needs at least one stage")
    check_common(p, shares=shares)
    for name in ("widths", "kernels", "expands"):
        ascending(name, getattr(p, name))
    for name in ("stem_channels", "stem_stride"):
        whole(name, getattr(p, name))
    for name in ("head_channels", "feature_channels"):
        whole(name, getattr(p, name), least=0)
    odd("stem_kernel", p.stem_kernel)
    one_of("stem_pool", p.stem_pool, (True, False))
    for name in ("stem_activation", "head_activation"):
        one_of(name, getattr(p, name), ACTIVATIONS)
    for i, stage in enumerate(p.stages):
        for name in ("channels", "stride"):
            whole(f"stages[{i}].{name}", getattr(stage, name))
        ascending(f"stages[{i}].depths", stage.depths)
        for depth in stage.depths:
            whole(f"stages[{i}].depths", depth)
        ascending(f"stages[{i}].widths", stage.widths)
        stage.check(f"stages[{i}]", p)
    if p.exits:
        ascending("exits", p.exits)
        for stage in p.exits:
            whole("exits", stage)
        if p.exits[-1] >= len(p.stages):
            raise InputError(
                f"exits={list(p.exits)} must be numbers of stages before the last, "
                f"{len(p.stages)}, which always has a head"
            )


def check_common(p: Any, *, shares: bool = False) -> None:
    """Check bits, granularity, resolutions and divisor."""
    check_searched_bits(p)
    ascending("resolutions", p.resolutions)
    for value in p.resolutions:
        if not shares:
            whole("resolutions", value)
        elif not 0 < value <= 1:
            raise InputError(
                f"resolutions={list(p.resolutions)}: {value:g} is no share of the data's length, "
                "above 0 and at most 1"
            )
    whole("divisor", p.divisor)


def check_searched_bits(p: Any) -> None:
    """Raise :class:`InputError` for a granularity, or bits, that layers cannot have."""
    one_of("granularity", p.granularity, ("layer", "block"))
    check_bits("weight_bits", p.weight_bits)
    check_bits("activation_bits", p.activation_bits)
    one_of("edge_bits", p.edge_bits, BITS)
    if p.edge_bits == 1:
        raise InputError("edge_bits=1: first and last layers need at least 2 bits")


def shared_choices(p: Parameters) -> list[Choice]:
    """Return the choices that all blocks share: resolution, width, exit and depths."""
    choices = [Choice("resolution", p.resolutions), Choice("width", p.widths)]
    ends = (*p.exits, len(p.stages))
    if p.exits:
        choices.append(Choice("exit", ends))
    for s, stage in enumerate(p.stages, start=1):
        reached: Conditions = ()
        if s > ends[0]:
            reached = (Condition("exit", frozenset(e for e in ends if e >= s)),)
        choices.append(Choice(f"s{s}.depth", stage.depths, reached))
        if len(stage.widths) > 1:
            choices.append(Choice(f"s{s}.width", stage.widths, reached))
        for b in range(1, stage.depths[-1] + 1):
            deep_enough = frozenset(d for d in stage.depths if d >= b)
            # The depth's own condition holds where the depth is active.
            when = reached if b <= stage.depths[0] else (Condition(f"s{s}.depth", deep_enough),)
            choices += stage.choices(f"s{s}.b{b}", p, when, b == 1)
    return choices
