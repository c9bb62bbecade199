"""Which architectures to measure on a new device: spread out, yet close to a fair sample.

The pool is cut into as many equal parts as there are measurements, each time across the
direction in which the parts differ most under the prior, and one architecture is drawn from
each part. So no two measurements tell the same, and every architecture is as likely to be
measured as any other (spatially balanced sampling: Grafström, Lundström and Schelin, *Spatially
Balanced Sampling through the Pivotal Method*, Biometrics 2012). That is what lets the errors on
the measured ones stand for errors on all others when intervals are made.

Of several such samples the most informative is taken (largest determinant of the predictive
covariance). This ranks better and is less fair: outlying architectures are measured up to three
times as often as others. A greedy D-optimal design goes all the way to the extremes, where
errors say little about the rest.
"""

from __future__ import annotations

import numpy as np

_DIRECTIONS = 20
_SAMPLES = 8


def balanced(
    grams: np.ndarray,
    thetas: np.ndarray,
    belief: np.ndarray,
    n: int,
    rng: np.random.Generator,
    *,
    samples: int = _SAMPLES,
) -> np.ndarray:
    """Choose ``n`` candidates, spread out and nearly fair.

    Args:
        grams: (kernels, m, m) of the candidates.
        thetas: (t, kernels + 1) weight vectors, noise last.
        belief: (t,) their shares, sum 1.
        n: how many to choose, at most m.
        samples: how many to draw and take the most informative of; with 1 the choice is fair.

    Returns:
        indices (n,) into the candidates, all different.
    """
    weights = thetas[:, :-1]
    sums = np.maximum(weights.sum(axis=1, keepdims=True), 1e-300)
    points = _coordinates(np.tensordot(belief @ (weights / sums), grams, axes=1))
    best, chosen = -np.inf, np.arange(n)
    for _ in range(samples):
        sample = np.array(_bisect(points, np.arange(len(points)), n, rng))
        part = np.tensordot(weights, grams[:, sample][:, :, sample], axes=1)  # (t, n, n)
        # The constant is unknown.
        part = part / sums[:, :, None] + 10.0
        part += ((thetas[:, -1:] / sums)[:, :, None] + 1e-9) * np.eye(n)
        score = float(belief @ np.linalg.slogdet(part)[1])
        if score > best:
            best, chosen = score, sample
    return chosen


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
