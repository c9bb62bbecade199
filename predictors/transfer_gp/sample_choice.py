"""Which architectures to measure on a new device: a fair sample, or a design.

A fair sample: the pool is cut into as many equal parts as there are measurements, each time
across the direction in which the parts differ most under the prior, and one architecture is drawn
from each part. So no two measurements tell the same, and every architecture is as likely to be
measured as any other (spatially balanced sampling: Grafström, Lundström and Schelin, *Spatially
Balanced Sampling through the Pivotal Method*, Biometrics 2012). That is what lets the errors on
the measured ones stand for errors on all others when intervals are made.

A design: of a few candidates drawn at random each measurement is the one that is least known given
those before (greedy D-optimal design), the most outlying left out. Far ones teach more where known
devices are few or unlike the new one. Among all of a pool instead of a few, it would take only the
farthest, whose latency says little of the rest: it ranked worse, and being the same sample every
time, it made intervals that are as wrong the next time as this time.

Which of the two it is on a table is judged on its known devices, each left out in turn.
"""

from __future__ import annotations

import numpy as np

_DIRECTIONS = 20
_OUTLYING = 0.05  # share of the candidates that a design leaves out


def balanced(
    grams: np.ndarray,
    thetas: np.ndarray,
    belief: np.ndarray,
    n: int,
    rng: np.random.Generator,
) -> np.ndarray:
    """Choose ``n`` candidates, spread out and fair.

    Args:
        grams: (kernels, m, m) of the candidates.
        thetas: (t, kernels + 1) weight vectors, noise last.
        belief: (t,) their shares, sum 1.
        n: how many to choose, at most m.
        rng: draws.

    Returns:
        indices (n,) into the candidates, all different.
    """
    points = _coordinates(_believed(grams, thetas, belief)[0])
    return np.array(_bisect(points, np.arange(len(points)), n, rng))


def designed(
    grams: np.ndarray, thetas: np.ndarray, belief: np.ndarray, n: int, rng: np.random.Generator
) -> np.ndarray:
    """Choose ``n`` candidates, each the least known one given those before.

    Args:
        grams, thetas, belief, n: as for :func:`balanced`.
        rng: breaks ties.

    Returns:
        indices (n,) into the candidates, all different.
    """
    covariance, noise = _believed(grams, thetas, belief)
    count = len(covariance)
    centred = covariance - covariance.mean(axis=0)
    outlying = np.diagonal(centred - centred.mean(axis=1, keepdims=True)).copy()
    outlying += 1e-9 * rng.random(count) * max(float(outlying.max()), 1e-300)
    allowed = np.argsort(outlying)[: max(n, round((1 - _OUTLYING) * count))]
    # The constant is unknown.
    covariance = covariance[np.ix_(allowed, allowed)] + 10.0
    tie = 1e-9 * rng.random(len(allowed))
    chosen: list[int] = []
    for _ in range(n):
        variance = np.diagonal(covariance) * (1 + tie)
        variance[chosen] = -np.inf
        best = int(variance.argmax())
        chosen.append(best)
        column = covariance[:, best]
        covariance = covariance - np.outer(column, column) / (column[best] + noise)
    return allowed[chosen]


def _believed(
    grams: np.ndarray, thetas: np.ndarray, belief: np.ndarray
) -> tuple[np.ndarray, float]:
    """Prior covariance (m, m) and noise, averaged over weight vectors of variance 1 each."""
    weights = thetas[:, :-1]
    sums = np.maximum(weights.sum(axis=1), 1e-300)
    mean = np.tensordot(belief @ (weights / sums[:, None]), grams, axes=1)
    return mean, float(belief @ (thetas[:, -1] / sums)) + 1e-9


def _coordinates(gram: np.ndarray) -> np.ndarray:
    """Points (m, k) whose inner products are the centred Gram matrix (m, m)."""
    centred = gram - gram.mean(axis=0)
    centred = centred - centred.mean(axis=1, keepdims=True)
    values, vectors = np.linalg.eigh((centred + centred.T) / 2)
    keep = slice(-min(_DIRECTIONS, len(values)), None)
    return vectors[:, keep] * np.sqrt(np.maximum(values[keep], 0))


def _bisect(points: np.ndarray, index: np.ndarray, n: int, rng: np.random.Generator) -> list[int]:
    if n == 1:
        return [int(rng.choice(index))]
    part = points[index] - points[index].mean(axis=0)
    direction = np.linalg.eigh(part.T @ part)[1][:, -1]
    order = index[np.lexsort((rng.random(len(index)), part @ direction))]
    few = n // 2 if rng.random() < 0.5 else n - n // 2
    cut = len(index) * few / n
    cut = int(cut) + int(rng.random() < cut % 1)  # fair on average
    cut = min(max(cut, few), len(index) - (n - few))
    return _bisect(points, order[:cut], few, rng) + _bisect(points, order[cut:], n - few, rng)
