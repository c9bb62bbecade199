"""Central intervals as half-widths in standard deviations, and the distribution they say."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

LEVELS = np.array([0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.925, 0.95, 0.975, 0.99])


@dataclass(frozen=True)
class Calibration:
    """Half-widths in standard deviations of central intervals.

    Attributes:
        levels: coverages, increasing, inside (0, 1).
        widths: half-width of the interval at each level, increasing.
    """

    levels: np.ndarray
    widths: np.ndarray

    @classmethod
    def student(cls, degrees: float, scale: float = 1.0) -> Calibration:
        """The widths of Student's t, ``scale`` times."""
        from scipy.stats import t

        return cls(LEVELS, scale * t.ppf(0.5 + LEVELS / 2, degrees))

    def width(self, coverage: float) -> float:
        """Half-width in standard deviations for ``coverage`` in [0, 1)."""
        if coverage <= self.levels[-1]:
            return float(np.interp(coverage, [0, *self.levels], [0, *self.widths]))
        # Beyond the last learned level the tail of a t with four degrees of freedom.
        from scipy.stats import t

        last = t.ppf(0.5 + self.levels[-1] / 2, 4)
        return float(self.widths[-1] * t.ppf(0.5 + coverage / 2, 4) / last)

    def probability_below(self, score: np.ndarray) -> np.ndarray:
        """P(error / std <= score), symmetric about 0: any shape -> same shape."""
        from scipy.stats import t

        score = np.asarray(score, dtype=np.float64)
        size = np.abs(score)
        central = np.interp(size, [0, *self.widths], [0, *self.levels])
        last = t.ppf(0.5 + self.levels[-1] / 2, 4)
        tail = 2 * t.cdf(size / self.widths[-1] * last, 4) - 1
        central = np.where(size > self.widths[-1], tail, central)
        return np.where(score >= 0, 0.5 + central / 2, 0.5 - central / 2)
