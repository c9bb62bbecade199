"""Rank correlations, and when there is none."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def rank_correlation(
    statistic: Callable[[np.ndarray, np.ndarray], Any], a: np.ndarray, b: np.ndarray
) -> float | None:
    """Return ``statistic(a, b)``, or None where no rank correlation is defined.

    A constant has none with anything, nor has a single point: all architectures with equal
    accuracy are an ordinary result of a small validation set, not a number that is not one.

    Args:
        statistic: ``scipy.stats.kendalltau`` or ``spearmanr``.
        a, b: (n,) values.
    """
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if len(a) < 2 or not (np.isfinite(a).all() and np.isfinite(b).all()):
        return None
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    found = float(statistic(a, b)[0])
    return found if np.isfinite(found) else None
