"""Training schedules by name: which subnets are trained when.

No torch is loaded by importing this module, so that a job can be checked without it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.choice_kinds import choice_kinds
from search_spaces.plan import NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.registry import Registry
from search_spaces.seeds import derive_rng
from supernet.training.subnets import (
    SandwichSampler,
    StagedSchedule,
    Teaching,
    float_plan,
)
from supernet.training.taught import Taught

if TYPE_CHECKING:
    from supernet.elastic import LayerRange

SCHEDULES: Registry[type[StagedSchedule]] = Registry("training schedule", group="nas.schedules")
"""Name -> class; all take the arguments of :class:`~supernet.training.subnets.StagedSchedule`."""

SCHEDULES.register("sandwich")(SandwichSampler)
SCHEDULES.register("taught")(Taught)


@SCHEDULES.register("single_path")
class SinglePath(StagedSchedule):
    """Single-path uniform sampling (SPOS, Guo et al., ECCV 2020; HAT, Wang et al., ACL 2020).

    One subnet a step, every choice uniform, learning from the targets. A step costs a
    fraction of a sandwich step, and nothing is favoured; low bits have no teacher.
    """

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the one subnet of ``step``."""
        rng = derive_rng(self.seed, "single path", step)
        arch, own_bits = self.draw(rng)
        plan = self.space.plan(arch)
        stage = self.stage(progress)
        return [float_plan(plan) if stage is None else self.quantised(plan, own_bits, stage, rng)]

    def teaching(self, progress: float) -> Teaching:
        """Return ``none``."""
        return "none"


@SCHEDULES.register("progressive")
class ProgressiveShrinking(StagedSchedule):
    """Progressive shrinking (Once-for-All, Cai et al., ICLR 2020, section 3.3).

    The largest network is trained in float first. Then what may vary grows: the resolution
    at once, then kernels, depth and width in equal parts of the rest; each part allows the
    two largest options at first and all from its middle on. Every subnet learns from the
    targets and from a copy of the largest as it was after its training. Bits follow their
    own stages throughout. At least one random subnet is trained in each step.
    """

    ORDER = ("kernel", "depth", "width")

    def __init__(
        self,
        space: PlannedSpace,
        ranges: Mapping[str, LayerRange],
        *,
        random_subnets: int = 2,
        **rest: Any,
    ) -> None:
        super().__init__(space, ranges, random_subnets=max(1, random_subnets), **rest)
        kinds = choice_kinds(space)
        # A choice that is none of the three comes with the last of them.
        self._kinds = [
            kind if kind in (*self.ORDER, "resolution", "bits") else self.ORDER[-1]
            for kind in (kinds[choice.name] for choice in space.choices)
        ]
        self._phases = [kind for kind in self.ORDER if kind in self._kinds]

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the random subnets of ``step``, within what may vary so far."""
        stage = self.stage(progress)
        if stage is None:
            return [float_plan(self.space.plan(self.space.largest()))]
        rng = derive_rng(self.seed, "progressive", step)
        shape = (self.random_subnets, len(self.space.choices))
        allowed = self.allowed(progress)
        genes = self.space.option_counts - 1 - rng.integers(0, allowed, size=shape)
        near = [self.draw_near(rng) for _ in range(self.random_subnets)]
        for i, arch in enumerate(near):
            if arch is not None:
                # What may not vary yet is at its largest near the focus too.
                own = self.space.genes([arch])[0]
                genes[i] = np.maximum(own, self.space.option_counts - allowed)
        archs = self.space.decode(self.space.canonical(genes))
        return [
            self.quantised(self.space.plan(arch), own is not None, stage, rng)
            for arch, own in zip(archs, near, strict=True)
        ]

    def teaching(self, progress: float) -> Teaching:
        """Return ``frozen`` once the largest network is trained."""
        return "none" if self.stage(progress) is None else "frozen"

    def allowed(self, progress: float) -> np.ndarray:
        """Return how many options of each choice, from the largest down, may vary: (choices,)."""
        counts = self.space.option_counts
        share = (progress - self.warmup) / max(1e-9, 1 - self.warmup)
        position = share * max(1, len(self._phases))
        allowed = counts.copy()
        for j, kind in enumerate(self._kinds):
            if kind not in self._phases:
                continue
            into = position - self._phases.index(kind)
            if into < 0:
                allowed[j] = 1
            elif into < 0.5:
                allowed[j] = min(2, counts[j])
        return allowed
