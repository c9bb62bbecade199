"""Whom to train where shared weights have learnt nothing yet: what costs tell.

In a short budget, or with many or uneven classes, no subnet of the shared weights may be better
than who always names the most frequent class. Their accuracies are then those of chance, and by
them the smallest network is as good as any: the front would hold it and its neighbours alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np
import torch

from nas.fronts.fault_rate import FAULTY
from nas.stages.search_stage import WORST

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.job.schema import Job
    from nas.record.evaluations import StudyRecord
    from nas.stages.evaluator import Evaluator
    from search_spaces.space import Arch

RISK = 0.025
"""Of taking what is chance for something learnt."""

LEARNT = 0.05
"""Of what a constant answer leaves, the share that the best must have learnt."""

LESS_FOR_OPERATIONS = 0.25
"""Of as many KiB, how much networks are held back for operations, as a share of what they gain by
size: in a budget in which shared weights learn nothing, steps decide. Of coloured letters over
photographs, after 50 s of their own, networks of 15 KiB with .6 to .8 million operations and 900
to 1,200 steps had 77 to 79 % of the validation images right, one of 2.3 million and 511 steps 74;
of clothes in 11.5 KiB, after 40 s, one of .57 million 91.0, one of 1.2 million 90.0."""


def constant_share(splits: DataSplits) -> float | None:
    """Return the share of the validation examples that are of the most frequent class there.

    None where examples have no class of their own.
    """
    if splits.targets != "classes":
        return None
    subset = splits.validation
    counts = torch.bincount(subset.labels[subset.indices])
    return float(counts.max() / counts.sum())


def beyond_chance(best: float, constant: float, images: int, *, of: int = 1) -> bool:
    """Return whether an accuracy says more than that of a constant answer.

    It is better by more than chance, of the best of many at 95 % (Bonferroni), and by a part of
    what the constant answer leaves: networks that have hardly begun to learn differ by how far
    they happen to have come, not by what they become.

    Args:
        best: accuracy of the best.
        constant: share of the most frequent class.
        images: that accuracies are shares of.
        of: how many it is the best of.
    """
    z = NormalDist().inv_cdf(1 - RISK / max(1, of))
    error = math.sqrt(constant * (1 - constant) / images)
    return best > constant + max(z * error, LEARNT * (1 - constant))


def untold(
    metrics: Iterable[Mapping[str, float]], name: str, splits: DataSplits, images: int
) -> bool:
    """Return whether no accuracy is better than that of who always gives the same answer.

    Args:
        metrics: of each network, by the shared weights.
        name: of the task's metric; of another than accuracy, nothing is said.
        splits: whose validation images accuracies are of.
        images: how many of them, see :func:`judged_images`.
    """
    found = [each[name] for each in metrics]
    if name != "accuracy" or not found:
        return False
    constant = constant_share(splits)
    return constant is not None and not beyond_chance(max(found), constant, images, of=len(found))


def judged_images(job: Job, splits: DataSplits) -> int:
    """Return of how many images accuracies of the search are shares."""
    images = len(splits.validation)
    return min(images, job.search.validation_images or images)


def in_vain(job: Job, evaluator: Evaluator, study: StudyRecord) -> Callable[[int], bool]:
    """Return what says after so many evaluations whether the search goes on in vain.

    After the first batch, which is spread over the space, rounds would only look for more of what
    is good by chance, in time that training makes more of.
    """

    def vain(done: int) -> bool:
        if done < job.search.first:
            return False
        splits, name = evaluator.splits, evaluator.task.metric_name
        found = [evaluation.metrics for evaluation in study.evaluations("search")]
        return untold(found, name, splits, judged_images(job, splits))

    return vain


def by_costs(
    metrics: Mapping[Arch, Mapping[str, float]], name: str
) -> dict[Arch, dict[str, float]]:
    """Return ``metrics`` with a guess at which networks become better for their accuracies.

    The guess grows with the logarithm of size, and of one size falls with that of operations
    (:data:`LESS_FOR_OPERATIONS`), each scaled to 0..1 over the networks. Guesses end
    at the best accuracy there is, so that a bound that none of them keeps is kept by none.

    Args:
        metrics: of each network, with ``weights_kib`` and ``macs``, or one of them.
        name: of the accuracy; that of the worst class and that under faults go with it.
    """
    each = list(metrics.values())
    if "weights_kib" not in each[0]:
        guess = _scaled([one["macs"] for one in each])
    else:
        guess = _scaled([one["weights_kib"] for one in each])
        if "macs" in each[0]:
            guess = guess - LESS_FOR_OPERATIONS * _scaled([one["macs"] for one in each])
    # Differences are what counts, so that all may be raised alike.
    guess = guess - guess.min()
    guess = guess / max(float(guess.max()), 1e-12)
    best = max(one[name] for one in each)
    found = {}
    for (arch, known), share in zip(metrics.items(), guess, strict=True):
        like = {c: float(best * share) for c in (name, WORST, FAULTY) if c in known}
        found[arch] = {**known, **like}
    return found


def _scaled(costs: Sequence[float]) -> np.ndarray:
    """Return the logarithms of ``costs``, scaled to 0..1; 0 where all are alike."""
    logs = np.log(np.maximum(costs, np.finfo(float).tiny))
    return (logs - logs.min()) / max(float(np.ptp(logs)), 1e-12)
