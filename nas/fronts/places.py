"""Who gets a place on a front: candidates that serve most budgets, and what lies between them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from nas.fronts.budgets import CostBudget, served
from nas.fronts.coverage import most_useful
from nas.fronts.metrics import Constraint, Goal, violations
from nas.fronts.pareto import nondominated
from search_spaces.space import Arch

_AS_FAR = 0.8
"""Of the widest gap between the chosen: candidates that fill so much of it are compared by
quality."""

_GAP = float(np.log(1.3))
"""Least distance to the next of the chosen, in factors of costs, that is a gap worth filling."""


def pick_spread(
    archs: Sequence[Arch],
    metrics: Sequence[Mapping[str, float]],
    goals: Sequence[Goal],
    constraints: Sequence[Constraint],
    count: int,
    *,
    metric: str,
    infeasible_too: bool = True,
    budgets: Sequence[CostBudget] = (),
    each: int = 1,
    noise: float = 0.0,
) -> list[Arch]:
    """Return up to ``count`` candidates, spread over the first fronts of the feasible ones.

    The best within each of ``budgets`` come first, ``each`` of them. Then
    fronts are peeled off until there are enough. Within one, of one quality and costs, those go
    first that offer most over all budgets (:func:`nas.fronts.coverage.most_useful`), but one that
    costs about what another does leaves its place to what fills a gap (:func:`_farther`), and
    after them what ``noise`` alone may have put behind and lies in the gaps between them
    (:func:`_between`); then, or with other objectives, points far from those chosen, distances
    after scaling each objective to 0..1, costs by their logarithm: from 5 to 10 KiB is as far as
    from 50 to 100. Where none is feasible: with ``infeasible_too`` those that miss the constraints
    by least, for a measurement may be kinder than a prediction; otherwise none.

    Args:
        archs, metrics: the candidates.
        goals, constraints: of the front.
        count: places.
        metric: name of the task's, which is what quality is, like all that is better when larger.
        infeasible_too: see above.
        budgets, each: see :func:`nas.fronts.budgets.served`.
        noise: standard error of a difference of two candidates in quality.
    """
    objectives = np.array([[g.sign * m[str(g.metric)] for g in goals] for m in metrics])
    missed = np.array([list(violations(constraints, m).values()) for m in metrics])
    missed = missed.reshape(len(metrics), len(constraints))
    total = np.clip(missed, 0, None).sum(axis=1)
    left = np.flatnonzero(total <= 0)
    if left.size == 0:
        if not infeasible_too:
            return []
        return [archs[i] for i in np.argsort(total, kind="stable")[:count]]
    # What is better when larger has the sign turned: it is a share, not a cost. What the task is
    # judged by may be better when smaller, an error rate say, and is none either.
    costs = [
        j
        for j, goal in enumerate(goals)
        if goal.metric.name != metric and (objectives[:, j] > 0).all()
    ]
    scaled = objectives.copy()
    scaled[:, costs] = np.log(objectives[:, costs])
    low = scaled[left].min(axis=0)
    span = np.maximum(scaled[left].max(axis=0) - low, 1e-12)
    chosen: list[int] = []
    if budgets:
        chosen = served(budgets, metrics, left.tolist(), each=each)[:count]
        left = np.setdiff1d(left, chosen)
    while left.size and len(chosen) < count:
        front = left[nondominated(objectives[left])]
        if costs and len(costs) == len(goals) - 1:
            (quality,) = set(range(len(goals))).difference(costs)
            useful = most_useful(
                -objectives[front][:, quality], objectives[front][:, costs], count - len(chosen)
            )
            first = len(chosen)
            chosen += [int(front[i]) for i in useful]
            for place in range(len(chosen) - 1, first, -1):
                chosen[place] = _farther(
                    objectives[:, quality], scaled[:, costs], front, chosen, place
                )
            chosen += _between(
                objectives[:, quality],
                scaled[:, costs],
                _within_noise(objectives, quality, np.setdiff1d(left, chosen), front, noise),
                chosen,
                count - len(chosen),
            )
        left, front = np.setdiff1d(left, [*front, *chosen]), np.setdiff1d(front, chosen)
        chosen += _farthest_first((scaled - low) / span, front, chosen, count - len(chosen))
    return [archs[i] for i in chosen]


def _within_noise(
    objectives: np.ndarray, quality: int, left: np.ndarray, front: np.ndarray, noise: float
) -> np.ndarray:
    """Return which of ``left`` would be on the front if they were better by ``noise``.

    Args:
        objectives: (n, m), minimised.
        quality: column of the task's metric.
        left, front: rows.
        noise: in the unit of the metric; 0 finds none.
    """
    if noise <= 0:
        return left[:0]
    bettered = objectives[left].copy()
    bettered[:, quality] -= noise
    no_worse = (objectives[front][:, None] <= bettered[None]).all(axis=2)
    better = (objectives[front][:, None] < bettered[None]).any(axis=2)
    found: np.ndarray = left[~(no_worse & better).any(axis=0)]
    return found


def _between(
    quality: np.ndarray, logs: np.ndarray, left: np.ndarray, chosen: Sequence[int], count: int
) -> list[int]:
    """Return up to ``count`` of ``left`` that fill gaps between the costs of ``chosen``.

    A user's budget may lie in a gap, where the next smaller model is all that there is for it;
    which of two candidates of different costs is better is not known within noise, and training
    on their own does more for the larger one. What is dearer than all chosen fills no gap.

    Args:
        quality: (n,), minimised.
        logs: (n, costs), logarithms: a factor of two is as far in every cost.
        left: rows to choose from.
        chosen: rows.
        count: at most so many.
    """
    left = left[(logs[left] <= logs[list(chosen)].max(axis=0)).all(axis=1)]
    picked: list[int] = []
    while left.size and len(picked) < count:
        distance = _distances(logs, left, [*chosen, *picked])
        if distance.max() < _GAP:
            break
        far = left[distance >= _AS_FAR * distance.max()]
        best = int(far[np.argmin(quality[far])])
        picked.append(best)
        left = left[left != best]
    return picked


def _farther(
    quality: np.ndarray, logs: np.ndarray, front: np.ndarray, chosen: Sequence[int], place: int
) -> int:
    """Return who gets ``place``: who has it, or what fills a gap of more than twice its distance.

    A quarter of its training says little of a large network, so by what it has reached then it
    hardly adds anything to a small one, and there would be no model for whole decades of budgets.

    Args:
        quality, logs: as for :func:`_between`.
        front: rows that may fill gaps.
        chosen: rows.
        place: of ``chosen``.
    """
    others = [*chosen[:place], *chosen[place + 1 :]]
    own = _distances(logs, np.array([chosen[place]]), others)[0]
    for filler in _between(quality, logs, np.setdiff1d(front, chosen), others, 1):
        if _distances(logs, np.array([filler]), others)[0] > 2 * own:
            return filler
    return chosen[place]


def _distances(logs: np.ndarray, rows: np.ndarray, chosen: Sequence[int]) -> np.ndarray:
    """Return the distance of each of ``rows`` to the next of ``chosen``, (rows,)."""
    found: np.ndarray = np.abs(logs[rows][:, None] - logs[list(chosen)][None]).sum(axis=2)
    return found.min(axis=1)


def _farthest_first(
    points: np.ndarray, candidates: np.ndarray, chosen: Sequence[int], count: int
) -> list[int]:
    picked: list[int] = []
    remaining = list(candidates)
    if not chosen:
        # The extremes are what a reader looks for first.
        for j in range(points.shape[1]):
            best = min(remaining, key=lambda i: points[i, j]) if remaining else None
            if best is not None and len(picked) < count:
                picked.append(int(best))
                remaining.remove(best)
    while remaining and len(picked) < count:
        known = points[[*chosen, *picked]]
        distance = [np.abs(known - points[i]).sum(axis=1).min() for i in remaining]
        picked.append(int(remaining.pop(int(np.argmax(distance)))))
    return picked
