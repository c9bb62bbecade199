"""Whom to train where shared weights have learnt nothing yet: what costs tell.

In a short budget, or with many or uneven classes, no subnet of the shared weights may be better
than who always names the most frequent class, or tells the mean of the values. Their metrics are
then those of chance, and by them the smallest network is as good as any: the front would hold it
and its neighbours alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

from nas.fronts.fault_rate import FAULTY
from nas.stages.search_stage import WORST

if TYPE_CHECKING:
    from nas.data.splits import DataSplits
    from nas.job.schema import Job
    from nas.record.evaluations import StudyRecord
    from nas.stages.evaluator import Evaluator
    from nas.tasks.base import Task
    from search_spaces.space import Arch

RISK = 0.025
"""Of taking what is chance for something learnt."""

LEARNT = 0.05
"""Of what a constant answer leaves, the share that the best must have learnt."""


def beyond_chance(best: float, constant: float, images: int, *, of: int = 1) -> bool:
    """Return whether a share says more than that of a constant answer.

    It is better by more than chance, of the best of many at 95 % (Bonferroni), and by a part of
    what the constant answer leaves: networks that have hardly begun to learn differ by how far
    they happen to have come, not by what they become.

    Args:
        best: share of the best, such as its accuracy.
        constant: that of a constant answer, such as the share of the most frequent class.
        images: that the metric is of.
        of: how many it is the best of.
    """
    error = math.sqrt(constant * (1 - constant) / images)
    return best > constant + max(_deviations(of) * error, LEARNT * (1 - constant))


def below_constant(best: float, constant: float, images: int, *, of: int = 1) -> bool:
    """Return whether an error says more than that of a constant answer, as :func:`beyond_chance`.

    Values that have nothing to do with the targets correlate with them by some z / sqrt(images),
    and may take off half of the square of that.
    """
    z = _deviations(of)
    return best < constant * (1 - max(z * z / (2 * images), LEARNT))


def _deviations(of: int) -> float:
    return NormalDist().inv_cdf(1 - RISK / max(1, of))


def untold(
    metrics: Iterable[Mapping[str, float]], task: Task, splits: DataSplits, images: int
) -> bool:
    """Return whether no metric is better than that of who always gives the same answer.

    Args:
        metrics: of each network, by the shared weights.
        task: whose metric counts; of one that knows no constant answer, nothing is said.
        splits: whose validation images metrics are of.
        images: how many of them, see :func:`judged_images`.
    """
    found = [each[task.metric_name] for each in metrics]
    constant = task.constant(splits) if found else None
    if constant is None or not math.isfinite(constant):
        return False
    if not task.higher_is_better:
        return not below_constant(min(found), constant, images, of=len(found))
    if not task.metric_kind().share:
        return False
    return not beyond_chance(max(found), constant, images, of=len(found))


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
        splits = evaluator.splits
        found = [evaluation.metrics for evaluation in study.evaluations("search")]
        if not untold(found, evaluator.task, splits, judged_images(job, splits)):
            return False
        tell(f"the search ends after {done} evaluations: its networks have learnt next to nothing")
        return True

    return vain


def by_costs(
    metrics: Mapping[Arch, Mapping[str, float]],
    name: str,
    *,
    worth: float | None = None,
    higher: bool = True,
) -> dict[Arch, dict[str, float]]:
    """Return ``metrics`` with a guess at which networks become better for their accuracies.

    The guess is the mean of the logarithms of size and of operations, each scaled to 0..1 over the
    networks; operations beyond ``worth`` count against a network as much as those below count for
    it. Guesses end at the best accuracy there is, so that a bound that none of them keeps is kept
    by none; those of errors begin at the largest.

    Args:
        metrics: of each network, with ``weights_kib`` and ``macs``, or one of them.
        name: of the metric; that of the worst class and that under faults go with it.
        worth: multiply-accumulates of a network that takes steps enough in its time
            (:data:`nas.stages.winners.share.TRAINED_SOMEWHAT_STEPS`); None where that is not known.
        higher: whether the metric is better when larger.
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
    values = [one[name] for one in each]
    begin, end = (0.0, max(values)) if higher else (max(values), min(values))
    found = {}
    for (arch, known), share in zip(metrics.items(), guess, strict=True):
        like = {
            c: float(begin + (end - begin) * share) for c in (name, WORST, FAULTY) if c in known
        }
        found[arch] = {**known, **like}
    return found


def _scaled(values: np.ndarray) -> np.ndarray:
    """Return ``values`` scaled to 0..1; 0 where all are alike."""
    return (values - values.min()) / max(float(np.ptp(values)), 1e-12)
