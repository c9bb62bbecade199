"""Which subnets a training step runs, and at which bits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import numpy as np

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, LayerPlan, NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch

if TYPE_CHECKING:
    from supernet.elastic import LayerRange

Teaching = Literal["first", "frozen", "remembered", "none"]
"""Whom the subnets of a step learn from: the first of them, a copy of the largest that no longer
changes (beside the targets; ``remembered`` asks it once for each image), or the targets alone."""


@dataclass(frozen=True)
class BitsStage:
    """From the share ``start`` of training on, layers are trained at ``bits`` and no others."""

    start: float
    bits: tuple[int, ...]


@dataclass(frozen=True)
class BitOdds:
    """How often each bit-width is drawn, against the odds of one of those not named.

    Attributes:
        weights: bit-width of a layer's weights -> its odds.
        activations: bit-width of a layer's input -> its odds.
    """

    weights: Mapping[int, float] = field(default_factory=dict)
    activations: Mapping[int, float] = field(default_factory=dict)

    def draw(self, bits: Sequence[int], rng: np.random.Generator) -> tuple[int, int]:
        """Return the bits of weights and activations, each one of ``bits``."""
        if not (self.weights or self.activations):
            weight, activation = rng.choice(bits, size=2).tolist()
            return weight, activation
        chosen = []
        for named in (self.weights, self.activations):
            odds = np.array([named.get(width, 1.0) for width in bits])
            chosen.append(int(rng.choice(bits, p=odds / odds.sum())))
        return chosen[0], chosen[1]


@dataclass(frozen=True)
class Focus:
    """Random subnets near architectures that matter, such as the front of an earlier search.

    Training more where the front is follows AttentiveNAS (Wang et al., CVPR 2021), which has a
    predictor say where that is; here a search has said it.

    Attributes:
        archs: of the space; a subnet near one is a mutation of it, bits included.
        share: probability with which a random subnet is drawn near them, not from the whole space.
        change: probability with which each choice of the architecture is redrawn; one changes
            at least.
    """

    archs: tuple[Arch, ...]
    share: float = 0.5
    change: float = 0.1

    def __post_init__(self) -> None:
        if not self.archs:
            raise InputError("a focus needs one architecture at least")


def default_stages(
    ranges: Mapping[str, LayerRange], *, warmup: float, gradual: bool = True
) -> list[BitsStage]:
    """Return the bits of each part of training: the highest, then two, then all.

    Lower bits so start from weights and steps that are good at higher ones.

    Args:
        ranges: what each layer can be.
        warmup: share of training that the float warm-up takes.
        gradual: False trains all bits from the warm-up on.
    """
    found = {b for r in ranges.values() for b in (*r.weight_bits, *r.activation_bits)}
    bits = sorted((b for b in found if b < FLOAT_BITS), reverse=True)
    if not bits:
        return [BitsStage(warmup, (FLOAT_BITS,))]
    if FLOAT_BITS in found:
        # A layer that may stay float is trained as such beside the quantised ones.
        bits.append(FLOAT_BITS)
    if not gradual:
        return [BitsStage(warmup, tuple(bits))]
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

    def watched(self, plans: Sequence[NetworkPlan], progress: float) -> NetworkPlan | None:
        """Return which of a step's subnets shows whether training goes on well, if any does."""
        return plans[0]


class StagedSchedule(Schedule):
    """The base of schedules whose bit-widths follow :class:`BitsStage`.

    Args:
        space: where subnets are drawn from.
        ranges: what each layer can be, see :func:`supernet.network.layer_ranges`.
        stages: which bits are trained when; before the first everything is float.
        random_subnets: drawn in each step.
        seed: of the job.
        bit_odds: how often which bit-width is drawn; all alike by default.
        focus: architectures near which some of the random subnets are drawn.
        float_share: probability with which a subnet is trained in float instead of at bits, so
            that what bits cost is told against a float that had as much training.

    Raises:
        InputError: odds for a bit-width that no stage trains.
    """

    def __init__(
        self,
        space: PlannedSpace,
        ranges: Mapping[str, LayerRange],
        *,
        stages: Sequence[BitsStage],
        random_subnets: int = 2,
        seed: int = 0,
        bit_odds: BitOdds | None = None,
        focus: Focus | None = None,
        float_share: float = 0.0,
    ) -> None:
        self.space = space
        self.ranges = ranges
        self.stages = sorted(stages, key=lambda stage: stage.start)
        self.random_subnets = random_subnets
        self.seed = seed
        self.bit_odds = BitOdds() if bit_odds is None else bit_odds
        self.focus = focus
        self.float_share = float_share
        trained = {width for stage in stages for width in stage.bits}
        for width in (*self.bit_odds.weights, *self.bit_odds.activations):
            if width not in trained:
                raise InputError(
                    f"bit_odds: no stage trains {width} bits (trained: "
                    f"{', '.join(map(str, sorted(trained, reverse=True)))})"
                )

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

    def draw(self, rng: np.random.Generator) -> tuple[Arch, bool]:
        """Return a random architecture, and whether it is to be trained at bits of its own."""
        near = self.draw_near(rng)
        return (self.space.sample(rng), False) if near is None else (near, True)

    def draw_near(self, rng: np.random.Generator) -> Arch | None:
        """Return an architecture near those of the focus, or None to draw from the whole space."""
        if self.focus is None or rng.random() >= self.focus.share:
            return None
        chosen = self.focus.archs[int(rng.integers(len(self.focus.archs)))]
        return self.space.mutate(chosen, rng, rate=self.focus.change)

    def quantised(
        self, plan: NetworkPlan, own_bits: bool, stage: BitsStage, rng: np.random.Generator
    ) -> NetworkPlan:
        """Return ``plan`` at random bits of the stage, or at those of it next to its own.

        Now and then in float, see ``float_share``.
        """
        if self.float_share > 0 and rng.random() < self.float_share:
            return float_plan(plan)
        if not own_bits:
            return self.at_random_bits(plan, stage, rng)
        return self._with_bits(
            plan,
            lambda layer: (
                _nearest(layer.weight_bits, stage.bits),
                _nearest(layer.activation_bits, stage.bits),
            ),
        )

    def at_random_bits(
        self, plan: NetworkPlan, stage: BitsStage, rng: np.random.Generator
    ) -> NetworkPlan:
        """Return ``plan`` at bits of the stage: half of the time one pair for all layers."""
        if rng.random() < 0.5:
            return self.at(plan, *self.bit_odds.draw(stage.bits, rng))
        return self._with_bits(plan, lambda layer: self.bit_odds.draw(stage.bits, rng))

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
    A subnet near the focus keeps the bits it comes with. Before the first stage only the largest
    is trained, in float.
    """

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets of ``step``, the teacher first; ``progress`` is from 0 to 1."""
        largest = self.space.plan(self.space.largest())
        stage = self.stage(progress)
        if stage is None:
            return [float_plan(largest)]
        rng = derive_rng(self.seed, "subnets", step)
        highest = max(stage.bits)
        others = [(self.space.smallest(), False)]
        others += [self.draw(rng) for _ in range(self.random_subnets)]
        plans = [self.at(largest, highest, highest)]
        return plans + [
            self.quantised(self.space.plan(arch), own_bits, stage, rng) for arch, own_bits in others
        ]


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
