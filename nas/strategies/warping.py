"""Objectives brought to a normal distribution before a model is fitted to them.

Accuracies saturate: most architectures of a good space lie within a point of the best and a
few fall far below. A model of the raw values spends itself on those few and cannot tell the
best apart, which is all that a front is made of. Normal scores (each value's rank, as a
quantile of the normal distribution) spread values evenly wherever they crowd. Fitted to them
a Gaussian process is the Gaussian copula process of Wilson and Ghahramani (2010), used for
optimisation by Salinas et al. (2020); HEBO (Cowen-Rivers et al. 2022) warps with power
transforms to the same end.
"""

from __future__ import annotations

import numpy as np


class NormalScores:
    """A monotone map between values and normal scores, piecewise linear and invertible.

    Beyond the values seen it goes on with the slope of the outer tenth of them.
    """

    def __init__(self, values: np.ndarray) -> None:
        """Learn the map from values (n,), finite, at least one."""
        from scipy.special import ndtri

        values = np.asarray(values, dtype=float)
        self._values, count = np.unique(values, return_counts=True)
        # Equal values share the middle of their ranks.
        self._scores = ndtri((np.cumsum(count) - 0.5 * count) / len(values))
        self._low, self._high = 1.0, 1.0
        if len(self._values) > 1:
            outer = max(1, (len(self._values) - 1) // 10)
            self._low = self._slope(0, outer)
            self._high = self._slope(-1 - outer, -1)

    def scores(self, values: np.ndarray) -> np.ndarray:
        """Return normal scores of values (n,)."""
        values = np.asarray(values, dtype=float)
        inside = np.interp(values, self._values, self._scores)
        above = self._scores[-1] + (values - self._values[-1]) / self._high
        below = self._scores[0] + (values - self._values[0]) / self._low
        return np.where(
            values > self._values[-1], above, np.where(values < self._values[0], below, inside)
        )

    def values(self, scores: np.ndarray) -> np.ndarray:
        """Return the values that have the given normal scores (n,)."""
        scores = np.asarray(scores, dtype=float)
        inside = np.interp(scores, self._scores, self._values)
        above = self._values[-1] + (scores - self._scores[-1]) * self._high
        below = self._values[0] + (scores - self._scores[0]) * self._low
        return np.where(
            scores > self._scores[-1], above, np.where(scores < self._scores[0], below, inside)
        )

    def _slope(self, first: int, last: int) -> float:
        rise = self._values[last] - self._values[first]
        return float(rise / (self._scores[last] - self._scores[first]))
