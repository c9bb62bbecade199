"""What each choice of a space changes in its networks, found from the plans."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search_spaces.plan import NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng

_SAMPLES = 64


def choice_kinds(space: PlannedSpace) -> dict[str, str]:
    """Return the kind of every choice of ``space``.

    A choice that changes several things has the first kind that fits, in the order
    resolution, depth, width (any change of channels, the expansion of a block included), kernel,
    bits; one that changes none of them is ``other``.
    """
    return {
        choice.name: _kind(variants(space, column)) for column, choice in enumerate(space.choices)
    }


def variants(space: PlannedSpace, column: int) -> list[NetworkPlan]:
    """Return one plan for each option of a choice, all else equal.

    All else is as in the largest architecture, or as in a sampled one where the choice is not
    active in the largest; empty where it is active in none.
    """
    rows = space.option_counts[None, :] - 1
    if not space.active(rows)[0, column]:
        rows = space.sample_genes(derive_rng(0, "choice kinds"), _SAMPLES)
        rows = rows[space.active(rows)[:, column]][:1]
        if not len(rows):
            return []
    options = np.repeat(rows, len(space.choices[column].options), axis=0)
    options[:, column] = np.arange(len(options))
    return [space.plan(arch) for arch in space.decode(options)]


def without_bits(plan: NetworkPlan) -> NetworkPlan:
    """Return ``plan`` with every bit-width 0, to compare plans apart from bits."""
    return replace(
        plan,
        blocks=tuple(
            replace(
                block,
                layers=tuple(
                    replace(layer, weight_bits=0, activation_bits=0) for layer in block.layers
                ),
            )
            for block in plan.blocks
        ),
    )


def _kind(plans: list[NetworkPlan]) -> str:
    def differ(values: list[object]) -> bool:
        return any(value != values[0] for value in values[1:])

    layers = [list(plan.layers()) for plan in plans]
    if not plans or not differ(list(plans)):
        return "other"
    if differ([plan.input_shape for plan in plans]):
        return "resolution"
    if differ([tuple(layer.name for layer in each) for each in layers]):
        return "depth"
    if differ([tuple((x.in_channels, x.out_channels) for x in each) for each in layers]):
        return "width"
    if differ([tuple(layer.kernel for layer in each) for each in layers]):
        return "kernel"
    return "other" if differ([without_bits(plan) for plan in plans]) else "bits"
