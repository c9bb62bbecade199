"""Which subnets a training step runs, and at which bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from search_spaces.plan import FLOAT_BITS, LayerPlan, NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng

if TYPE_CHECKING:
    from supernet.elastic import LayerRange

Teaching = Literal["first", "frozen", "none"]
"""Whom the subnets of a step learn from: the first of them, a copy of the largest that no longer
changes (beside the targets), or the targets alone."""


@dataclass(frozen=True)
class BitsStage:
    """From the share ``start`` of training on, layers are trained at ``bits`` and no others."""

    start: float
    bits: tuple[int, ...]


def default_stages(ranges: Mapping[str, LayerRange], *, warmup: float) -> list[BitsStage]:
    """Return the bits of each part of training: the highest, then two, then all.

    Lower bits so start from weights and steps that are good at higher ones. ``warmup`` is
    the share of training that the float warm-up takes.
    """
    found = {b for r in ranges.values() for b in (*r.weight_bits, *r.activation_bits)}
    bits = sorted((b for b in found if b < FLOAT_BITS), reverse=True)
    if not bits:
        return [BitsStage(warmup, (FLOAT_BITS,))]
    if FLOAT_BITS in found:
        # A layer that may stay float is trained as such beside the quantised ones.
        bits.append(FLOAT_BITS)
    rest = 1 - warmup
    stages = [BitsStage(warmup + 0.15 * i * rest, tuple(bits[: i + 1])) for i in range(2)]
    stages.append(BitsStage(warmup + 0.3 * rest, tuple(bits)))
    return stages[: len(bits)]


class Schedule(ABC):
    """Which subnets each training step runs; the same for the same step, whatever ran before."""

    @abstractmethod
    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets of ``step``, the teacher first; ``progress`` is from 0 to 1."""

    def teaching(self, progress: float) -> Teaching:
        """Return whom the subnets learn from at this point of training."""
        return "first"


class StagedSchedule(Schedule):
    """The base of schedules whose bit-widths follow :class:`BitsStage`.

    Args:
        space: where subnets are drawn from.
        ranges: what each layer can be, see :func:`supernet.network.layer_ranges`.
        stages: which bits are trained when; before the first everything is float.
        random_subnets: drawn in each step.
        seed: of the job.
    """

    def __init__(
        self,
        space: PlannedSpace,
        ranges: Mapping[str, LayerRange],
        *,
        stages: Sequence[BitsStage],
        random_subnets: int = 2,
        seed: int = 0,
    ) -> None:
        self.space = space
        self.ranges = ranges
        self.stages = sorted(stages, key=lambda stage: stage.start)
        self.random_subnets = random_subnets
        self.seed = seed

    @property
    def warmup(self) -> float:
        """Share of training before the first stage."""
        return self.stages[0].start if self.stages else 1.0

    def stage(self, progress: float) -> BitsStage | None:
        """Return the stage under way; None before the first."""
        begun = [stage for stage in self.stages if progress >= stage.start]
        return begun[-1] if begun else None

    def at(self, plan: NetworkPlan, weight_bits: int, activation_bits: int) -> NetworkPlan:
        """Return ``plan`` with every layer as near to the bits as its range allows."""
        return self._with_bits(plan, lambda layer: (weight_bits, activation_bits))

    def at_random_bits(
        self, plan: NetworkPlan, stage: BitsStage, rng: np.random.Generator
    ) -> NetworkPlan:
        """Return ``plan`` at bits of the stage: half of the time one pair for all layers."""
        if rng.random() < 0.5:
            return self.at(plan, *rng.choice(stage.bits, size=2).tolist())
        return self._with_bits(plan, lambda layer: tuple(rng.choice(stage.bits, size=2).tolist()))

    def _with_bits(
        self, plan: NetworkPlan, wanted: Callable[[LayerPlan], tuple[int, int]]
    ) -> NetworkPlan:
        def bits(layer: LayerPlan) -> tuple[int, int]:
            extent = self.ranges[layer.name]
            weight, activation = wanted(layer)
            return _nearest(weight, extent.weight_bits), _nearest(
                activation, extent.activation_bits
            )

        return _map_layers(plan, bits)


class SandwichSampler(StagedSchedule):
    """The sandwich rule (Yu & Huang, ICCV 2019): largest, smallest and random subnets.

    The largest runs at its highest bits and teaches the others. The smallest runs at bits
    drawn like those of the random ones: half of the time every layer has the same pair of
    bit-widths, otherwise each layer its own. What is drawn depends on (seed, step) alone.
    Before the first stage only the largest is trained, in float.
    """

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets of ``step``, the teacher first; ``progress`` is from 0 to 1."""
        largest = self.space.plan(self.space.largest())
        stage = self.stage(progress)
        if stage is None:
            return [float_plan(largest)]
        rng = derive_rng(self.seed, "subnets", step)
        highest = max(stage.bits)
        others = [self.space.plan(self.space.smallest())]
        others += [self.space.plan(self.space.sample(rng)) for _ in range(self.random_subnets)]
        plans = [self.at(largest, highest, highest)]
        return plans + [self.at_random_bits(plan, stage, rng) for plan in others]


def at_bits(plan: NetworkPlan, weight_bits: int, activation_bits: int) -> NetworkPlan:
    """Return ``plan`` with every layer at the given bits, the edges included; 32 is float."""
    return _map_layers(plan, lambda layer: (weight_bits, activation_bits))


def float_plan(plan: NetworkPlan) -> NetworkPlan:
    """Return ``plan`` without quantisation: the float twin of an architecture."""
    return at_bits(plan, FLOAT_BITS, FLOAT_BITS)


def _nearest(bits: int, options: Sequence[int]) -> int:
    # Upwards first: a layer that lacks a bit-width is not squeezed below what was asked for.
    higher = [option for option in options if option >= bits]
    return min(higher) if higher else max(options)


def _map_layers(plan: NetworkPlan, bits: Callable[[LayerPlan], tuple[int, int]]) -> NetworkPlan:
    def change(layer: LayerPlan) -> LayerPlan:
        weight, activation = bits(layer)
        return replace(layer, weight_bits=int(weight), activation_bits=int(activation))

    blocks = tuple(
        replace(block, layers=tuple(change(layer) for layer in block.layers))
        for block in plan.blocks
    )
    return replace(plan, blocks=blocks)
