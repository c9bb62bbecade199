"""Ridge regression in closed form; the penalty by leave-one-out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

PENALTIES = 10.0 ** np.arange(-4, 3.1, 0.5)


@dataclass(frozen=True)
class RidgeFit:
    """A linear model.

    Attributes:
        centre: of the columns: (k,).
        weights: (k,).
        offset: mean of the targets.
        left_out: prediction of each target from the others, the penalty as chosen: (n,).
    """

    centre: np.ndarray
    weights: np.ndarray
    offset: float
    left_out: np.ndarray

    def __call__(self, x: np.ndarray) -> np.ndarray:
        """Return predictions of rows (m, k): (m,)."""
        return self.offset + (x - self.centre) @ self.weights


def fit_ridge(x: np.ndarray, y: np.ndarray, penalties: np.ndarray = PENALTIES) -> RidgeFit:
    """Fit targets (n,) on columns (n, k).

    Each penalty is scored by its exact leave-one-out errors, from the leverages (Hastie,
    Tibshirani and Friedman, *The Elements of Statistical Learning*, 2nd edition, 7.10).

    Args:
        x: columns whose scales are comparable; they share one penalty.
        y: targets.
        penalties: to choose from, in units of the mean squared norm of the rows.
    """
    centre, offset = x.mean(axis=0), float(y.mean())
    design, target = x - centre, y - offset
    left, sizes, right = np.linalg.svd(design, full_matrices=False)
    projected = left.T @ target
    unit = max(float((sizes**2).sum()) / len(y), 1e-300)
    best, fit = np.inf, RidgeFit(centre, np.zeros(x.shape[1]), offset, np.full(len(y), offset))
    for penalty in penalties * unit:
        shrink = sizes**2 / (sizes**2 + penalty)
        leverage = (left**2) @ shrink + 1 / len(y)
        error = (target - left @ (shrink * projected)) / np.maximum(1 - leverage, 1e-6)
        score = float(error @ error)
        if score < best:
            best = score
            weights = right.T @ (sizes / (sizes**2 + penalty) * projected)
            fit = RidgeFit(centre, weights, offset, y - error)
    return fit
