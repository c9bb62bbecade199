"""Whom to train where shared weights have learnt nothing yet: what costs tell.

In a short budget, or with many or uneven classes, no subnet of the shared weights may be better
than who always names the most frequent class. Their accuracies are then those of chance, and by
them the smallest network is as good as any: the front would hold it and its neighbours alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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


def in_vain(
    job: Job, evaluator: Evaluator, study: StudyRecord, *, tell: Callable[[str], None]
) -> Callable[[int], bool]:
    """Return what says after so many evaluations whether the search goes on in vain.

    After the first batch, which is spread over the space, rounds would only look for more of what
    is good by chance, in time that training makes more of.

    Args:
        job, evaluator, study: of the run.
        tell: told when it does.
    """

    def vain(done: int) -> bool:
        if done < job.search.first:
            return False
        splits, name = evaluator.splits, evaluator.task.metric_name
        found = [evaluation.metrics for evaluation in study.evaluations("search")]
        if not untold(found, name, splits, judged_images(job, splits)):
            return False
        tell(f"the search ends after {done} evaluations: its networks have learnt next to nothing")
        return True

    return vain


def by_costs(
    metrics: Mapping[Arch, Mapping[str, float]], name: str, *, worth: float | None = None
) -> dict[Arch, dict[str, float]]:
    """Return ``metrics`` with a guess at which networks become better for their accuracies.

    The guess is the mean of the logarithms of size and of operations, each scaled to 0..1 over the
    networks; operations beyond ``worth`` count against a network as much as those below count for
    it. Guesses end at the best accuracy there is, so that a bound that none of them keeps is kept
    by none.

    Args:
        metrics: of each network, with ``weights_kib`` and ``macs``, or one of them.
        name: of the accuracy; that of the worst class and that under faults go with it.
        worth: multiply-accumulates of a network that takes steps enough in its time
            (:data:`nas.stages.winners.share.TRAINED_SOMEWHAT_STEPS`); None where that is not known.
    """
    each = list(metrics.values())
    logs = {
        cost: np.log(np.maximum([one[cost] for one in each], np.finfo(float).tiny))
        for cost in ("weights_kib", "macs")
        if cost in each[0]
    }
    if worth is not None and "macs" in logs:
        logs["macs"] = np.minimum(logs["macs"], 2 * math.log(worth) - logs["macs"])
    guess = np.mean([_scaled(values) for values in logs.values()], axis=0)
    best = max(one[name] for one in each)
    found = {}
    for (arch, known), share in zip(metrics.items(), guess, strict=True):
        like = {c: float(best * share) for c in (name, WORST, FAULTY) if c in known}
        found[arch] = {**known, **like}
    return found


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return ``values`` scaled to 0..1; 0 where all are alike."""
    return (values - values.min()) / max(float(np.ptp(values)), 1e-12)
