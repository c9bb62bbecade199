"""Giving up on an architecture after a part of the validation images, with a stated risk.

The first n of the N validation images are a random sample of them without replacement (the
split draws its order by seed), so the number of right answers among them follows the
hypergeometric distribution, and an exact upper confidence limit for the number among all N
follows from it: the finite-population form of Clopper and Pearson (1934).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from nas.fronts.metrics import Goal, Metric, violations
from nas.fronts.spec import FrontSpec


def accuracy_upper_limit(right: int, seen: int, total: int, *, risk: float) -> float:
    """Return the largest accuracy on all images that the first ones leave plausible.

    Args:
        right: right answers among the images seen.
        seen: images seen, at least 1.
        total: images altogether.
        risk: probability, in (0, 1), that the true accuracy lies above the limit.

    Returns:
        K / total for the largest K with P(at most ``right`` among ``seen`` | K of ``total``
        right) >= ``risk``.

    Raises:
        ValueError: counts that cannot be.
    """
    from scipy.stats import hypergeom

    if not 0 <= right <= seen <= total or seen < 1 or not 0.0 < risk < 1.0:
        raise ValueError(f"right {right}, seen {seen}, total {total}, risk {risk} do not fit")
    low, high = right, total - (seen - right)
    # The probability falls as K grows, so the last K that keeps it is found by bisection.
    while low < high:
        middle = (low + high + 1) // 2
        if hypergeom.cdf(right, total, middle, seen) >= risk:
            low = middle
        else:
            high = middle - 1
    return low / total


def accuracy_needed(
    known: Mapping[str, float],
    evaluated: Sequence[Mapping[str, float]],
    fronts: Sequence[FrontSpec],
    *,
    metric: str = "accuracy",
) -> float:
    """Return the value of a task's metric beyond which an architecture is on none of the fronts.

    Args:
        known: the architecture's metrics other than the task's, by ``str(metric)``.
        evaluated: metrics of the architectures evaluated so far, the task's included.
        fronts: that the job asks for.
        metric: the task's.

    Returns:
        the easiest over the fronts of the value that an evaluated, feasible architecture
        reaches which is no worse in every other objective, or that a bound asks for. Where the
        metric decides nothing: minus infinity, or infinity if less of it is better.
    """
    # As for accuracy throughout: more is better of ``sign`` times the metric.
    sign = -Goal(Metric(metric)).sign
    needed = math.inf
    for front in fronts:
        names = [str(g.metric) for g in front.goals]
        asked = [
            sign * c.bound
            for c in front.constraints
            if str(c.metric) == metric and c.upper == (sign < 0)
        ]
        other = [g for g in front.goals if str(g.metric) != metric]
        settled = [c for c in front.constraints if str(c.metric) in known]
        if any(str(g.metric) not in known for g in other):
            return -sign * math.inf
        if any(v > 0 for v in violations(settled, known).values()):
            continue
        best = max(asked, default=-math.inf)
        if metric in names and evaluated:
            feasible = (front.violations(evaluated) <= 0).all(axis=1)
            values = np.array([[g.sign * m[str(g.metric)] for g in other] for m in evaluated])
            mine = np.array([g.sign * known[str(g.metric)] for g in other])
            better = feasible & (values.reshape(len(evaluated), len(other)) <= mine).all(axis=1)
            accuracies = sign * np.array([m[metric] for m in evaluated])
            best = max(best, float(accuracies[better].max(initial=-math.inf)))
        needed = min(needed, best)
    return sign * needed if math.isfinite(needed) else -sign * math.inf
