"""The schedule in which a large network is trained to its end, and then teaches all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.plan import FLOAT_BITS, NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch
from supernet.training.subnets import (
    BitsStage,
    StagedSchedule,
    Teaching,
    float_plan,
)

if TYPE_CHECKING:
    from supernet.elastic import LayerRange

POOL = 4096
"""Architectures from which those of each step are drawn."""

ONE_PAIR = 0.25
"""Share of the subnets that have one pair of bit-widths for all layers."""


class Taught(StagedSchedule):
    """One teacher, then subnets of every size alike, at bits of their own.

    The largest network is trained first, in float, to the end of a learning-rate cycle. From then
    on it is only asked what it thinks, once for each image: no step trains it again, so a step
    costs what its small subnets cost. (The sandwich rule, Yu and Huang, ICCV 2019, trains the
    largest in every step, which takes most of the time where subnets are far smaller.)

    Architectures drawn choice by choice are nearly all of middling size, while a front spreads
    over sizes evenly on a scale of ratios. So a size is drawn first, uniformly in its logarithm,
    and then an architecture that has it, as AttentiveNAS draws by FLOPs (Wang et al., CVPR 2021,
    section 3.2).

    Every subnet has the bits it was drawn with, or those of the stage next to them, but a quarter
    have one pair for all layers: such are compared with each other, and hardly ever drawn layer by
    layer. What is drawn depends on (seed, step) alone.
    """

    def __init__(
        self,
        space: PlannedSpace,
        ranges: Mapping[str, LayerRange],
        *,
        random_subnets: int = 2,
        **rest: Any,
    ) -> None:
        super().__init__(space, ranges, random_subnets=max(1, random_subnets), **rest)
        pool = space.sample_genes(derive_rng(self.seed, "taught", "pool"), POOL)
        ends = space.genes([space.smallest(), space.largest()])
        pool = np.unique(np.concatenate([pool, ends]), axis=0)
        sizes = np.log(space.costs(pool)["weights_kib"])
        order = np.argsort(sizes, kind="stable")
        self._pool, self._sizes = pool[order], sizes[order]

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets of ``step``; before the first stage the largest alone, in float."""
        stage = self.stage(progress)
        if stage is None:
            return [float_plan(self.space.plan(self.space.largest()))]
        rng = derive_rng(self.seed, "taught", step)
        return [self._plan(stage, rng) for _ in range(self.random_subnets)]

    def _plan(self, stage: BitsStage, rng: np.random.Generator) -> NetworkPlan:
        plan = self.quantised(self.space.plan(self._drawn(rng)), True, stage, rng)
        in_float = all(layer.weight_bits == FLOAT_BITS for layer in plan.layers())
        if in_float or rng.random() >= ONE_PAIR:
            return plan
        return self.at(plan, *self.bit_odds.draw(stage.bits, rng))

    def teaching(self, progress: float) -> Teaching:
        """Return ``remembered`` once the largest network is trained."""
        return "none" if self.stage(progress) is None else "remembered"

    def watched(self, plans: Sequence[NetworkPlan], progress: float) -> NetworkPlan | None:
        """Return the largest while it is trained; random subnets differ too much to be compared."""
        return plans[0] if self.stage(progress) is None else None

    def _drawn(self, rng: np.random.Generator) -> Arch:
        near = self.draw_near(rng)
        if near is not None:
            return near
        wanted = rng.uniform(self._sizes[0], self._sizes[-1])
        index = int(np.searchsorted(self._sizes, wanted))
        # One of those about as large: the nearest alone would be the same few again and again.
        index += int(rng.integers(-8, 9))
        index = min(max(index, 0), len(self._pool) - 1)
        return self.space.decode(self._pool[index : index + 1])[0]
