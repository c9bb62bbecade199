"""The selection of NSGA-II (Deb et al. 2002), vectorised over arrays.

Constrained domination: a feasible point beats an infeasible one, two infeasible ones are
ordered by total violation.
"""

from __future__ import annotations

import numpy as np

from nas.fronts.pareto import feasible


def rank(objectives: np.ndarray, constraints: np.ndarray) -> np.ndarray:
    """Return the front number of each point, 0 the best: (n, m), (n, k) -> (n,) int."""
    import moocore

    objectives = np.asarray(objectives, dtype=float)
    ok = feasible(constraints, len(objectives))
    out = np.zeros(len(objectives), dtype=np.int64)
    first = 0
    if ok.any():
        points = objectives[ok]
        if points.shape[1] == 1:
            out[ok] = np.unique(points[:, 0], return_inverse=True)[1]
        else:
            out[ok] = moocore.pareto_rank(points)
        first = int(out[ok].max()) + 1
    if not ok.all():
        out[~ok] = first + np.unique(total_violation(constraints)[~ok], return_inverse=True)[1]
    return out


def total_violation(constraints: np.ndarray) -> np.ndarray:
    """Return the sum of positive violations: (n, k) -> (n,); NaN counts as infinite."""
    return np.maximum(np.nan_to_num(constraints, nan=np.inf), 0.0).sum(axis=1)


def crowding(objectives: np.ndarray, ranks: np.ndarray) -> np.ndarray:
    """Return the crowding distance of each point within its front: (n, m), (n,) -> (n,).

    Infinite at the ends of each objective. All fronts are worked out at once.
    """
    n, m = objectives.shape
    distance = np.zeros(n)
    for j in range(m):
        order = np.lexsort((objectives[:, j], ranks))
        f, r = objectives[order, j], ranks[order]
        starts = np.concatenate([[True], r[1:] != r[:-1]])
        ends = np.concatenate([starts[1:], [True]])
        group = np.cumsum(starts) - 1
        span = (f[ends] - f[starts])[group]
        gap = np.empty(n)
        gap[1:-1] = f[2:] - f[:-2]
        gap[starts | ends] = np.inf
        distance[order] += np.where(np.isinf(gap), np.inf, gap / np.where(span > 0, span, 1.0))
    return distance


def survive(
    objectives: np.ndarray, constraints: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the best ``n`` points: indices, their ranks and crowding distances, best first."""
    ranks = rank(objectives, constraints)
    distances = crowding(objectives, ranks)
    kept = np.lexsort((-distances, ranks))[:n]
    return kept, ranks[kept], distances[kept]


def tournament(
    ranks: np.ndarray, distances: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Return ``n`` winners of binary tournaments: lower rank, then larger crowding distance."""
    pairs = rng.integers(0, len(ranks), size=(n, 2))
    a, b = pairs[:, 0], pairs[:, 1]
    a_wins = (ranks[a] < ranks[b]) | ((ranks[a] == ranks[b]) & (distances[a] >= distances[b]))
    return np.where(a_wins, a, b)
