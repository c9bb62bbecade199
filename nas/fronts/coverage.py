"""Which few points serve best whoever has a budget that nobody knows yet."""

from __future__ import annotations

import numpy as np


def worth(quality: np.ndarray, costs: np.ndarray, chosen: np.ndarray, nothing: float) -> float:
    """Return the quality that ``chosen`` offers on average over budgets, times their range.

    For each cost, a budget lies anywhere between the least and the greatest of all points with
    the same density on a logarithmic scale, so a cost that hardly varies counts little. What is
    offered is the best chosen point within the budget.

    Args:
        quality: (points,), better when larger.
        costs: (points, kinds), above 0.
        chosen: indices of points.
        nothing: quality where no chosen point is within a budget.
    """
    total = 0.0
    logs = np.log(costs)
    for kind in range(costs.shape[1]):
        low, high = logs[:, kind].min(), logs[:, kind].max()
        order = chosen[np.argsort(logs[chosen, kind], kind="stable")]
        edges = np.append(logs[order, kind], high)
        best = np.maximum.accumulate(np.maximum(quality[order], nothing))
        total += nothing * (edges[0] - low) + float((best * np.diff(edges)).sum())
    return total


def most_useful(quality: np.ndarray, costs: np.ndarray, count: int) -> list[int]:
    """Return up to ``count`` points, each the one that adds most to :func:`worth`.

    The best point comes first. Greedy choice reaches at least 1 - 1/e of the most that any
    ``count`` points are worth beyond nothing (Nemhauser, Wolsey and Fisher, 1978): what a point
    adds never grows when others were chosen before it.

    Args:
        quality: (points,), better when larger.
        costs: (points, kinds), above 0.
        count: at most so many.

    Returns:
        Indices in order of choice; fewer where no further point adds anything.
    """
    # No model within a budget is as far below the worst model as that is below the best: what is
    # within the smallest budget is worth having, however good it is.
    nothing = float(2 * quality.min() - quality.max())
    chosen = [int(np.lexsort((np.log(costs).sum(axis=1), -quality))[0])]
    now = worth(quality, costs, np.array(chosen), nothing)
    left = [i for i in range(len(quality)) if i not in chosen]
    while left and len(chosen) < count:
        values = [worth(quality, costs, np.array([*chosen, i]), nothing) for i in left]
        best = int(np.argmax(values))
        if values[best] <= now + 1e-12:
            break
        now = values[best]
        chosen.append(left.pop(best))
    return chosen[:count]
