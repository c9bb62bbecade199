"""Which rows of a front still stand when accuracies and latencies have intervals.

A front is found by validation accuracies and medians of latencies, and both are noisy. What is
known at the end, test accuracies and the last measurements, may say that one of its rows is
beaten; it is then marked and not called Pareto-optimal. Objectives are minimised throughout.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from nas.fronts.metrics import METRICS
from nas.fronts.pareto import depths, knee, nondominated

Z = 1.959964
"""Of a two-sided 95 % interval."""


def beyond_intervals(low: np.ndarray, high: np.ndarray) -> np.ndarray:
    """Return which rows are smaller than which by more than their intervals.

    Args:
        low, high: (n,) ends of the interval of each row; equal for an exact value.

    Returns:
        (n, n) bool: [j, i] whether all of j's interval lies below all of i's.
    """
    low, high = np.asarray(low, dtype=float), np.asarray(high, dtype=float)
    return np.asarray(high[:, None] < low[None, :])


def beyond_paired(right: np.ndarray) -> np.ndarray:
    """Return which rows are right more often than which, by more than chance of the images.

    The same images for all, so what counts is where two differ (McNemar, Psychometrika 1947;
    here the normal interval of the difference of paired shares).

    Args:
        right: (n, images) bool, whether a row's answer to an image is right.

    Returns:
        (n, n) bool: [j, i] whether j is right more often than i beyond a 95 % interval.
    """
    right = np.asarray(right, dtype=float)
    images = right.shape[1]
    share = right.mean(axis=1)
    difference = share[:, None] - share[None, :]
    # Var(a - b) = share of images that differ - squared difference.
    both = right @ right.T / images
    differ = share[:, None] + share[None, :] - 2 * both
    error = np.sqrt(np.clip(differ - difference**2, 0.0, None) / images)
    return np.asarray(difference > Z * error)


def beyond_shares(share: np.ndarray, images: int) -> np.ndarray:
    """Return which shares of ``images`` trials are larger than which by more than chance.

    Without the answers to single images the shares count as independent, which is careful: models
    that see the same images err on the same ones.

    Args:
        share: (n,) 0 to 1.
        images: number of trials of each.

    Returns:
        (n, n) bool: [j, i] whether j's share is larger beyond a 95 % interval (of shares with two
        right and two wrong answers added to each, Agresti and Caffo, 2000: that of 0 or 1 has an
        interval, too).
    """
    adjusted = (np.asarray(share, dtype=float) * images + 1) / (images + 2)
    variance = adjusted * (1 - adjusted) / (images + 2)
    error = np.sqrt(variance[:, None] + variance[None, :])
    return np.asarray(adjusted[:, None] - adjusted[None, :] > Z * error)


def error_of_difference(share: float, images: int) -> float:
    """Return the standard error of the difference of two shares about ``share``.

    Args:
        share: of ``images`` trials, 0 to 1; those of two models count as independent. A metric
            that is a mean of other numbers of 0 to 1 varies no more.
        images: number of trials of each.
    """
    adjusted = (share * images + 1) / (images + 2)
    return math.sqrt(2 * adjusted * (1 - adjusted) / (images + 2))


def error_of_metric(name: str, value: float, images: int) -> float:
    """Return the standard error of the difference of two values of a metric about ``value``.

    0 for a metric that is no share of the images, whose error nobody knows from its value.

    Args:
        name: of a registered metric.
        value: of ``images`` trials.
        images: number of trials of each.
    """
    return error_of_difference(value, images) if METRICS.get(name).share else 0.0


def beaten_by(objectives: np.ndarray, beyond: np.ndarray) -> list[int | None]:
    """Return for each row one that beats it, or None where none does.

    A row is beaten by another that is no worse in any objective, and better beyond the intervals
    in one. Differences inside their intervals beat nobody, and equal rows do not beat each other.

    Args:
        objectives: (n, m), minimised.
        beyond: (n, n, m) bool: [j, i, k] whether j is better than i in objective k beyond the
            interval of the difference; for exact objectives, whether it is smaller.

    Returns:
        indices; where several beat a row, one that stands itself if there is one.
    """
    objectives = np.asarray(objectives, dtype=float)
    no_worse = (objectives[:, None, :] <= objectives[None, :, :]).all(axis=2)
    beats = np.logical_and(no_worse, np.asarray(beyond, dtype=bool).any(axis=2))
    stands = np.logical_not(beats.any(axis=0))
    found: list[int | None] = []
    for i in range(len(objectives)):
        by = np.flatnonzero(beats[:, i])
        best = by[stands[by]]
        found.append(int((best if len(best) else by)[0]) if len(by) else None)
    return found


def beaten_in_a_pair(objectives: np.ndarray, beyond: np.ndarray, quality: int | None) -> np.ndarray:
    """Return which rows are beaten in quality and one cost together: (n,) bool.

    With three or more objectives a front holds rows that are beaten in two of them; each stands
    for the sake of another cost. The row of best quality never is.

    Args:
        objectives, beyond: as for :func:`beaten_by`.
        quality: column of the task's metric; None where it is no objective.
    """
    objectives = np.asarray(objectives, dtype=float)
    found = np.zeros(len(objectives), dtype=bool)
    if quality is None:
        return found
    for k in range(objectives.shape[1]):
        if k != quality:
            cheaper = objectives[:, None, k] <= objectives[None, :, k]
            found |= (np.asarray(beyond)[:, :, quality] & cheaper).any(axis=0)
    return found


def unbeaten_knee(
    objectives: np.ndarray,
    beyond: np.ndarray,
    quality: int | None,
    stands: Sequence[Sequence[bool] | np.ndarray] = (),
) -> int:
    """Return the knee of a front: :func:`nas.fronts.pareto.knee` among rows that nobody beats.

    A recommendation should not look beaten in any picture. So the knee is chosen among the rows
    that, in this order, each as far as any row is left:

    - are beaten by nobody in all objectives, whatever the intervals;
    - stand by other knowledge;
    - are not beaten in quality and one cost together (:func:`beaten_in_a_pair`);
    - are not undercut: no row offers as good a quality, within its interval, for less of every
      cost.

    Args:
        objectives, beyond, quality: as for :func:`beaten_in_a_pair`.
        stands: masks (n,) of rows that may be the knee, the most important first.

    Raises:
        InputError: no row.
    """
    objectives = np.asarray(objectives, dtype=float)
    beyond = np.asarray(beyond, dtype=bool)
    if not len(objectives):
        return knee(objectives)
    kept = _narrowed(np.ones(len(objectives), dtype=bool), np.asarray(nondominated(objectives)))
    for mask in stands:
        kept = _narrowed(kept, np.asarray(mask, dtype=bool))
    kept = _narrowed(kept, ~beaten_in_a_pair(objectives, beyond, quality))
    costs = [k for k in range(objectives.shape[1]) if k != quality]
    if quality is not None and costs:
        as_good = ~beyond[:, :, quality].T
        no_dearer = (objectives[:, None, costs] <= objectives[None, :, costs]).all(axis=2)
        undercut = as_good & no_dearer & beyond[:, :, costs].any(axis=2)
        kept = _narrowed(kept, np.logical_not(undercut.any(axis=0)))
    rows = np.flatnonzero(kept)
    # Scaled over the whole front, so that leaving rows out does not move the axes.
    return int(rows[np.argmin(depths(objectives, costs)[rows])])


def _narrowed(kept: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Return ``kept & mask``, or ``kept`` where that would leave nothing."""
    both = kept & mask
    return both if both.any() else kept
