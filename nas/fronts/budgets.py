"""Budgets that a front is to serve: for each of them the best network within it has a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from nas.fronts.metrics import Constraint, Goal, Metric

NEAR = 0.8
"""Share of a budget that a candidate should use: less leaves accuracy unused."""


@dataclass(frozen=True)
class CostBudget:
    """So much a network may cost on one product: the flash of a board, or its time.

    Attributes:
        metric: what is limited.
        limit: in the metric's unit, inclusive.
        goal: by which networks within the budget are compared.
        confidence: probability with which a predicted value must keep the limit; None asks the
            mean to.
    """

    metric: Metric
    limit: float
    goal: Goal
    confidence: float | None = None

    def keeps(self, metrics: Mapping[str, float]) -> bool:
        """Return whether a network with ``metrics`` keeps the budget."""
        return metrics[str(self.metric)] <= self.limit

    def is_used_by(self, metrics: Mapping[str, float]) -> bool:
        """Return whether a network with ``metrics`` needs most of the budget, or more."""
        return metrics[str(self.metric)] >= NEAR * self.limit

    def within(self, constraints: Sequence[Constraint]) -> tuple[Constraint, ...]:
        """Return ``constraints`` with those between which networks use this budget well."""
        window = (
            Constraint(self.metric, self.limit, confidence=self.confidence),
            Constraint(self.metric, NEAR * self.limit, upper=False),
        )
        names = [bound.name for bound in window]
        return (*(c for c in constraints if c.name not in names), *window)


def served(
    budgets: Sequence[CostBudget],
    metrics: Sequence[Mapping[str, float]],
    allowed: Sequence[int],
    *,
    each: int = 1,
) -> list[int]:
    """Return the best of n networks within each budget, each network once, in budgets' order.

    Args:
        budgets: to serve; one that nothing keeps is left out.
        metrics: of the networks.
        allowed: indices of those that may be chosen.
        each: networks for a budget; those after its best use between NEAR of it and the whole.
    """
    chosen: list[int] = []
    for turn in range(each):
        for budget in budgets:
            name, sign = str(budget.goal.metric), budget.goal.sign
            fits = [
                i
                for i in allowed
                if budget.keeps(metrics[i])
                and (turn == 0 or (i not in chosen and budget.is_used_by(metrics[i])))
            ]
            best = min(fits, key=lambda i: sign * metrics[i][name], default=None)
            if best is not None and best not in chosen:
                chosen.append(best)
    return chosen


def unserved(
    budgets: Sequence[CostBudget], metrics: Sequence[Mapping[str, float]], *, among: str
) -> list[str]:
    """Return a sentence for each budget that none of n networks keeps.

    Args:
        budgets: of a job, or of a front.
        metrics: of the networks; a budget of something that they lack is left out.
        among: what the networks are, in words.
    """
    found = []
    for budget in dict.fromkeys(budgets):
        known = [one for one in metrics if str(budget.metric) in one]
        if known and not any(budget.keeps(one) for one in known):
            values = [one[str(budget.metric)] for one in known]
            closest = Constraint(budget.metric, budget.limit).describe(min(values))
            found.append(
                f"search.budgets: nothing {among} keeps {budget.metric} {budget.limit:g}; the "
                f"closest {closest}"
            )
    return found
