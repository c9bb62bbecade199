"""Rank correlations with bootstrap intervals, over all pairs or over pairs of like groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from search_spaces.seeds import derive_rng

RESAMPLES = 2000


@dataclass(frozen=True)
class RankCorrelation:
    """Kendall's tau-b.

    Attributes:
        tau: the estimate; NaN where every pair is tied.
        low, high: 95 % percentile bootstrap over the items.
        pairs: pairs compared.
    """

    tau: float
    low: float
    high: float
    pairs: int

    def as_dict(self) -> dict[str, Any]:
        """Return JSON-ready values: NaN as None, four decimals."""
        return {
            name: None if isinstance(v, float) and np.isnan(v) else round(v, 4)
            for name, v in asdict(self).items()
        }


def kendall(
    x: Sequence[float] | np.ndarray,
    y: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[int] | np.ndarray | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> RankCorrelation:
    """Return Kendall's tau-b of ``x`` and ``y`` with a bootstrap interval.

    Args:
        x, y: (n,).
        groups: (n,); pairs of different groups are left out, so that the tau is pooled over
            the pairs inside the groups.
        resamples: of the items, with replacement. A pair of an item with itself is a tie in
            both and so counts for nothing.
        seed: of the resampling.
    """
    x, y = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    n = len(x)
    group = np.zeros(n, dtype=int) if groups is None else np.asarray(groups)
    together = np.triu(group[:, None] == group[None, :], k=1)
    sign_x = np.sign(x[:, None] - x[None, :])
    sign_y = np.sign(y[:, None] - y[None, :])
    same = group[:, None] == group[None, :]
    products = np.where(same, sign_x * sign_y, 0.0)
    untied_x = np.where(same, np.abs(sign_x), 0.0)
    untied_y = np.where(same, np.abs(sign_y), 0.0)

    def tau(weights: np.ndarray) -> float:
        # Items drawn k times stand for k equal items: every sum over pairs is a quadratic form.
        total = weights @ products @ weights
        scale = np.sqrt((weights @ untied_x @ weights) * (weights @ untied_y @ weights))
        return float(total / scale) if scale > 0 else float("nan")

    rng = derive_rng(seed, "kendall bootstrap")
    draws = [tau(np.bincount(rng.integers(0, n, n), minlength=n)) for _ in range(resamples)]
    defined = [value for value in draws if not np.isnan(value)]
    low, high = np.quantile(defined, [0.025, 0.975]) if defined else (np.nan, np.nan)
    return RankCorrelation(tau(np.ones(n)), float(low), float(high), int(together.sum()))
