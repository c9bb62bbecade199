"""Which fronts a job asks for: one of each device, and one of all devices together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.fronts.budgets import CostBudget
from nas.fronts.metrics import Constraint, Goal, violations
from nas.fronts.pareto import nondominated

JOINT = "joint"
"""Name of the front on which every device's objectives and budgets count."""


@dataclass(frozen=True)
class FrontSpec:
    """What a front trades off, and what its members must keep.

    Attributes:
        name: ``joint``, or the device's name.
        goals: its objectives.
        constraints: its bounds.
        budgets: for each of them the best network within it has a place.
    """

    name: str
    goals: tuple[Goal, ...]
    constraints: tuple[Constraint, ...]
    budgets: tuple[CostBudget, ...] = ()

    def is_part_of(self, other: FrontSpec) -> bool:
        """Return whether ``other`` trades off and bounds the same, and serves at least as much."""
        same = (self.goals, self.constraints) == (other.goals, other.constraints)
        return same and set(self.budgets) <= set(other.budgets)

    def objectives(self, metrics: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Return the minimised objectives of n architectures, (n, goals)."""
        rows = [[g.sign * m[str(g.metric)] for g in self.goals] for m in metrics]
        return np.array(rows, dtype=float).reshape(len(metrics), len(self.goals))

    def violations(self, metrics: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Return the violations of n architectures, (n, constraints); ``<= 0`` is feasible."""
        rows = [list(violations(self.constraints, m).values()) for m in metrics]
        return np.array(rows, dtype=float).reshape(len(metrics), len(self.constraints))

    def members(self, metrics: Sequence[Mapping[str, float]]) -> np.ndarray:
        """Return which of n architectures are feasible and not dominated: (n,) bool."""
        if not len(metrics):
            return np.zeros(0, dtype=bool)
        return np.asarray(nondominated(self.objectives(metrics), self.violations(metrics)))


def metric_names(fronts: Sequence[FrontSpec]) -> set[str]:
    """Return every metric that ``fronts`` trade off or bound."""
    goals = {str(goal.metric) for front in fronts for goal in front.goals}
    bounds = {str(bound.metric) for front in fronts for bound in front.constraints}
    return goals | bounds | {str(b.metric) for front in fronts for b in front.budgets}


def job_fronts(
    goals: Sequence[Goal],
    constraints: Sequence[Constraint],
    devices: Sequence[str],
    *,
    joint: bool = True,
    per_device: bool = True,
    budgets: Sequence[CostBudget] = (),
) -> list[FrontSpec]:
    """Return the fronts of a job, the joint one first.

    A device's front leaves out objectives and bounds of other devices. Fronts that come to
    the same are given once, so a job with one device has one front; and a device that no
    objective, bound or budget names has none of its own beside those of others: it is only
    measured, as reading a sequence beside adding a symbol.

    Args:
        goals, constraints: all of the job's.
        devices: their names.
        joint, per_device: which kinds are wanted.
        budgets: that are to be served; those of a device by its own front and the joint one.
    """
    found: list[FrontSpec] = []
    if joint or len(devices) == 1:
        found.append(FrontSpec(JOINT, tuple(goals), tuple(constraints), tuple(budgets)))
    if per_device:
        wanted = {goal.metric.device for goal in goals}
        wanted |= {bound.metric.device for bound in constraints}
        wanted |= {budget.metric.device for budget in budgets}
        named = [device for device in devices if device in wanted]
        for device in named or devices:
            own_goals = tuple(g for g in goals if g.metric.device in (None, device))
            own_bounds = tuple(c for c in constraints if c.metric.device in (None, device))
            served = tuple(b for b in budgets if b.metric.device in (None, device))
            spec = FrontSpec(device, own_goals, own_bounds, served)
            if own_goals and not any(spec.is_part_of(front) for front in found):
                found.append(spec)
    return found
