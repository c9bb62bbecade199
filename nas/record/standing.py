"""What the last figures of a run say of its front: who is beaten after all, and the knee.

Which architectures are on a front follows from validation accuracies and measured costs alone.
When the test set has been read, a row may turn out to be beaten; it stays in the results, marked.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.fronts.noise import (
    beaten_by,
    beaten_in_a_pair,
    beyond_intervals,
    beyond_paired,
    beyond_shares,
    unbeaten_knee,
)
from nas.fronts.pareto import nondominated
from nas.record.bit_text import unpack_bits
from search_spaces.space import Arch

if TYPE_CHECKING:
    from nas.fronts.metrics import Goal
    from nas.fronts.spec import FrontSpec
    from nas.record.results import Verified
    from nas.tasks.base import Task

Tested = Mapping[Arch, Mapping[str, Any]]


@dataclass(frozen=True)
class Standing:
    """One front after the test.

    Attributes:
        knee: recommended row, or None for a front without rows.
        beaten: row -> the row that beats it (:func:`nas.fronts.noise.beaten_by`).
    """

    knee: Arch | None
    beaten: Mapping[Arch, Arch]


def standing(
    front: FrontSpec,
    rows: Sequence[Verified],
    tested: Tested,
    task: Task,
    *,
    validation_images: int,
    test_images: int,
) -> Standing:
    """Return how the rows of a front stand by their final figures.

    Accuracies are compared image by image where the test recorded its answers, otherwise as
    independent shares; latencies by their measured intervals; costs are exact, and so are metrics
    of which no interval is known.

    Args:
        front: the front.
        rows: its rows.
        tested: ``metrics`` and, for a task with classes, ``right`` of each.
        task: gives the metric.
        validation_images, test_images: of the two sets.
    """
    if not rows:
        return Standing(None, {})
    metric = task.metric_name
    names = [str(goal.metric) for goal in front.goals]
    quality = names.index(metric) if metric in names else None
    measured = front.objectives([row.metrics for row in rows])
    final = measured.copy()
    found = np.array([tested[row.arch]["metrics"][metric] for row in rows], dtype=float)
    if quality is not None:
        final[:, quality] = front.goals[quality].sign * found
    before, after = [], []
    for k, goal in enumerate(front.goals):
        if k == quality:
            before.append(_beyond_metric(task, -measured[:, k], validation_images))
            after.append(_beyond_tested(task, rows, tested, found, test_images))
        else:
            low, high = _interval(goal, rows, measured[:, k])
            before.append(beyond_intervals(low, high))
            after.append(before[-1])
    beyond, beyond_final = np.stack(before, axis=2), np.stack(after, axis=2)
    at = unbeaten_knee(
        measured,
        beyond,
        quality,
        [nondominated(final), ~beaten_in_a_pair(final, beyond_final, quality)],
    )
    by = beaten_by(final, beyond_final)
    return Standing(
        rows[at].arch,
        {rows[i].arch: rows[j].arch for i, j in enumerate(by) if j is not None},
    )


def _beyond_metric(task: Task, values: np.ndarray, images: int) -> np.ndarray:
    """Return which values of the task's metric are better than which beyond their intervals.

    Args:
        task: says whether the metric is a share.
        values: (n,), larger is better (those of an error have the sign turned).
        images: that each was found on.
    """
    if not task.metric_kind().share:
        return beyond_intervals(-values, -values)
    share = values if task.higher_is_better else 1 + values
    return beyond_shares(np.clip(share, 0.0, 1.0), images)


def _beyond_tested(
    task: Task, rows: Sequence[Verified], tested: Tested, found: np.ndarray, images: int
) -> np.ndarray:
    answers = [text for row in rows if (text := tested[row.arch].get("right")) is not None]
    if len(answers) == len(rows) and task.metric_kind().share:
        right = np.stack([unpack_bits(text, images) for text in answers])
        # A metric of another kind, such as the mean over classes, is no mean over images.
        if np.allclose(right.mean(axis=1), found, atol=1e-6):
            return beyond_paired(right)
    return _beyond_metric(task, found if task.higher_is_better else -found, images)


def _interval(
    goal: Goal, rows: Sequence[Verified], values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the intervals of an objective, minimised; exact but for latencies."""
    if goal.metric.name != "latency_ms":
        return values, values
    found = [row.measurements.get(goal.metric.device or "") for row in rows]
    low = [v if m is None else goal.sign * m.low_ms for m, v in zip(found, values, strict=True)]
    high = [v if m is None else goal.sign * m.high_ms for m, v in zip(found, values, strict=True)]
    return np.minimum(low, high), np.maximum(low, high)
