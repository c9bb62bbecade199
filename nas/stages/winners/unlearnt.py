"""Whom to train where shared weights have learnt nothing yet: what costs tell.

In a short budget, or with many or uneven classes, no subnet of the shared weights may be better
than who always names the most frequent class. Their accuracies are then those of chance, and by
them the smallest network is as good as any: the front would hold it and its neighbours alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.fronts.fault_rate import FAULTY
from nas.fronts.noise import Z
from nas.stages.search_stage import WORST

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from search_spaces.space import Arch

TELLING = ("macs", "weights_kib")
"""Costs by which networks of a space are ordered nearly as their trainings alone order them
(Kendall's tau .78 to .88, ``docs/training.md``)."""


def constant_share(splits: DataSplits) -> float | None:
    """Return the share of the validation examples that are of the most frequent class there.

    None where examples have no class of their own.
    """
    if splits.targets != "classes":
        return None
    subset = splits.validation
    counts = torch.bincount(subset.labels[subset.indices])
    return float(counts.max() / counts.sum())


def beyond_chance(best: float, constant: float, images: int) -> bool:
    """Return whether an accuracy is above that of a constant answer by more than chance.

    Args:
        best: accuracy of the best of many.
        constant: share of the most frequent class.
        images: that accuracies are shares of.
    """
    return best > constant + Z * math.sqrt(constant * (1 - constant) / images)


def by_costs(
    metrics: Mapping[Arch, Mapping[str, float]], name: str
) -> dict[Arch, dict[str, float]]:
    """Return ``metrics`` with a guess at which networks become better for their accuracies.

    The guess is the mean of the logarithms of the :data:`TELLING` costs, each scaled to 0..1 over
    the networks: of as many KiB, more operations are better, and the other way round. Guesses end
    at the best accuracy there is, so that a bound that none of them keeps is kept by none.

    Args:
        metrics: of each network, with those costs or some of them.
        name: of the accuracy; that of the worst class and that under faults go with it.
    """
    costs = np.array([[each[c] for c in TELLING if c in each] for each in metrics.values()])
    logs = np.log(np.maximum(costs, np.finfo(float).tiny))
    low = logs.min(axis=0)
    span = np.maximum(logs.max(axis=0) - low, 1e-12)
    best = max(each[name] for each in metrics.values())
    found = {}
    for (arch, each), guess in zip(
        metrics.items(), best * ((logs - low) / span).mean(axis=1), strict=True
    ):
        like = {c: float(guess) for c in (name, WORST, FAULTY) if c in each}
        found[arch] = {**each, **like}
    return found
