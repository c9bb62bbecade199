"""What networks are expected to come to if each trains on its own for as many steps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy.stats import rankdata

BY = ("macs", "weights_kib")
"""Costs of which more is expected to be better, at equal steps of training."""


def expected(
    values: Sequence[float], costs: Sequence[np.ndarray], *, higher_is_better: bool
) -> list[float]:
    """Return the same ``values``, handed out by three orders together instead of their own.

    Of few steps of shared weights a candidate inherits a metric that orders candidates no better
    than their operations or their size do; the sum of the three ranks orders them better than each
    (but for KiB at 4 bits). Of 30 networks at mixed bits, 30 at 4 bits and 30 of the
    ``28x28-slim`` preset, two trainings each, Kendall's tau with training alone was .89, .78 and
    .81 so, .77, .73 and .71 by what was inherited, .83, .72 and .78 by MACs, .88, .83 and .67 by
    KiB; over pairs of about the same MACs .75, .61 and .28, against .63, .52 and .21
    (``experiments/results/supernet/ranking_*.json``). That operations and parameters are hard to
    beat as predictors is known (Ning et al., NeurIPS 2021; Krishnakumar et al., NeurIPS 2022).

    Winners of a run are not chosen by it: they train for equal seconds, in which those of more
    operations take fewer steps. On letters it chose networks of half as many operations again, and
    the front of one seed lost a point.

    Args:
        values: inherited, one for each candidate.
        costs: :data:`BY`, each (candidates,).
        higher_is_better: direction of the values.

    Returns:
        the values in another order; equal ones stay equal, whoever has them.
    """
    if len(values) == 0:
        return []
    good = np.asarray(values, dtype=float) * (1 if higher_is_better else -1)
    together = rankdata(good) + sum(rankdata(cost) for cost in costs)
    # Among equals what was inherited decides.
    order = np.lexsort((good, together))
    found = np.empty(len(good))
    found[order] = np.sort(good)
    return [float(v) if higher_is_better else -float(v) for v in found]
