"""Planes of one bit with scales of their own, and signs with value vectors."""

from __future__ import annotations

import numpy as np

from search_spaces.model_files.grouped import GroupedWeights, check_form, pack_grouped
from supernet.weight_only.uniform import as_stored, grids

_TURNS = 25

_BEGINNINGS = {
    1: ((1.596,),),
    2: ((1.058, 1.963), (1.414, 2.254)),
    3: ((0.902, 1.497, 1.977), (1.173, 2.027, 2.679)),
    4: ((0.591, 1.110, 1.414, 2.251), (1.218, 1.881, 2.297, 2.662)),
}
"""By planes, scales in standard deviations whose sums have the least error on a normal and on a
Laplace distribution (Lloyd's method). Alternating turns stay near where they begin, and from scales
that double they do not get there."""


def hierarchical_planes(
    weight: np.ndarray, planes: int, group: int, *, bias: np.ndarray | None = None
) -> GroupedWeights:
    """Quantise to ``min + sum over planes of scale * bit``, the scales free (ELUTQ's HLQ).

    Starts from uniform codes, whose scales double from plane to plane, and from scales that suit
    common distributions, and takes turns: the bits of each weight for given scales, then scales and
    minimum of each group by least squares for given bits; what had the least error is kept.

    Args:
        weight: (outputs, channels).
        planes: 1 to 4, the bits of a weight.
        group: channels that share scales, see ``GroupedWeights``.
        bias: passed on.
    """
    outputs, channels = weight.shape
    check_form((outputs, channels), 1, planes, group)
    width = group or channels
    rows = np.asarray(weight, np.float64).reshape(-1, width)
    patterns = (np.arange(2**planes)[:, None] >> np.arange(planes) & 1).astype(np.float64)
    low, high = rows.min(1), rows.max(1)
    whole = np.where(high > low, (high - low) / (2**planes - 1), 1e-8)
    best = np.full(len(rows), np.inf)
    kept = (np.zeros((len(rows), planes)), np.zeros(len(rows)))
    doubling = 2.0 ** np.arange(planes)
    step, at = grids(rows, planes, symmetric=False)
    # From the whole range, and from the uniform grid of the least error: no worse than either.
    beginnings = [(whole[:, None] * doubling, low), (step[:, None] * doubling, at)]
    mean, deviation = rows.mean(1), np.maximum(rows.std(1), 1e-8)
    for sizes in _BEGINNINGS[planes]:
        scales = deviation[:, None] * np.array(sizes)
        beginnings.append((scales, mean - scales.sum(1) / 2))
    for scales, start in beginnings:  # (rows, planes), (rows,)
        for _ in range(_TURNS):
            bits, error = _nearest(rows, scales, start, patterns)
            better = error < best
            best[better] = error[better]
            kept[0][better], kept[1][better] = scales[better], start[better]
            # [bits, 1] @ [scales, min] = weights; a ridge for planes that a whole group shares.
            design = np.concatenate([bits, np.ones((*bits.shape[:2], 1))], 2)
            gram = np.einsum("rwi,rwj->rij", design, design) + 1e-6 * np.eye(planes + 1)
            solved = np.linalg.solve(gram, np.einsum("rwi,rw->ri", design, rows)[..., None])[..., 0]
            scales, start = solved[:, :planes], solved[:, planes]
    scales, start = map(as_stored, kept)
    bits, _ = _nearest(rows, scales, start, patterns)
    return pack_grouped(
        bits.transpose(2, 0, 1).reshape(planes, outputs, channels),
        scales.T.reshape(planes, outputs, -1),
        bits=1,
        group=group,
        mins=start.reshape(outputs, -1),
        bias=bias,
    )


def _nearest(
    rows: np.ndarray, scales: np.ndarray, start: np.ndarray, patterns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return the bits of each weight's nearest value, (rows, width, planes), and the errors."""
    values = start[:, None] + scales @ patterns.T  # (rows, patterns)
    best = np.full(rows.shape, np.inf)
    chosen = np.zeros(rows.shape, np.int64)
    for i in range(values.shape[1]):
        error = np.square(rows - values[:, i : i + 1])
        nearer = error < best
        best[nearer], chosen[nearer] = error[nearer], i
    return patterns[chosen], best.sum(1)


def signs_with_values(weight: np.ndarray, *, bias: np.ndarray | None = None) -> GroupedWeights:
    """Quantise to signs times a value for each output and one for each input channel.

    OneBit (Xu et al. 2024), proposition 1 (SVID): ``|W|`` is replaced by its best matrix of rank
    one, whose factors become the two value vectors.

    Args:
        weight: (outputs, channels).
        bias: passed on.
    """
    size = np.abs(np.asarray(weight, np.float64))
    left, strength, right = np.linalg.svd(size, full_matrices=False)
    # The first singular vectors of a matrix without negative entries have one sign.
    outputs = np.abs(left[:, 0]) * np.sqrt(strength[0])
    channels = np.abs(right[0]) * np.sqrt(strength[0])
    return pack_grouped(
        (weight >= 0).astype(np.uint8),
        2 * outputs[:, None],
        bits=1,
        group=0,
        zero=0.5,
        bias=bias,
        factor=channels,
    )
