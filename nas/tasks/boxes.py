"""From a detector's output to boxes, and how good boxes are. NumPy alone, for boards too.

A detector gives (cells, classes + 4) for an image: those of a square grid over the image row by
row, or of a grid and after it of one with half as many cells a side. For each cell, a value a class
before the logistic function, and where the box is (:func:`boxes_of`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from search_spaces.errors import InputError

SIZE_SCALE = 2.0
"""A box is so many cells large where the raw value of its size is one, after softplus."""

MOST_DETECTIONS = 100
"""Boxes of an image at most, as COCO counts them."""

THRESHOLDS = np.arange(0.5, 0.96, 0.05)
"""Overlaps at which COCO's AP asks whether a box is found."""


def grids_of(cells: int) -> list[int]:
    """Return the cells a side of each scale, the finer first.

    Raises:
        InputError: so many cells are no square grid, nor one with another of half the side.
    """
    side = math.isqrt(cells)
    if side * side == cells:
        return [side]
    side = math.isqrt(cells * 4 // 5)
    if side % 2 == 0 and side * side + (side // 2) ** 2 == cells:
        return [side, side // 2]
    raise InputError(f"{cells} cells are no square grid, nor one with another of half its side")


def cells_of(cells: int) -> tuple[np.ndarray, np.ndarray]:
    """Return each cell's middle, (cells, 2), and side, (cells, 1), as shares of the image."""
    middles, sides = [], []
    for side in grids_of(cells):
        y, x = np.mgrid[:side, :side]
        middles.append(np.stack([x, y], -1).reshape(-1, 2) + 0.5)
        middles[-1] /= side
        sides.append(np.full((side * side, 1), 1 / side))
    return np.concatenate(middles), np.concatenate(sides)


def boxes_of(outputs: np.ndarray) -> np.ndarray:
    """Return the box of every cell.

    The middle is that of the cell plus the first two of the last four values, in cells; width and
    height are ``SIZE_SCALE * log(1 + exp(v))`` cells of the last two.

    Args:
        outputs: (..., cells, classes + 4).

    Returns:
        (..., cells, 4): left, top, right, bottom as shares of the image; they may stand out of it.
    """
    middle, side = cells_of(outputs.shape[-2])
    raw = np.asarray(outputs[..., -4:], dtype=np.float64)
    centre = middle + side * raw[..., :2]
    half = 0.5 * SIZE_SCALE * side * np.logaddexp(0.0, raw[..., 2:])
    return np.concatenate([centre - half, centre + half], -1)


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the intersection over union of boxes (..., n, 4) and (..., m, 4): (..., n, m)."""
    common = _intersections(a, b)
    union = _areas(a)[..., :, None] + _areas(b)[..., None, :] - common
    return common / np.maximum(union, 1e-12)


def _intersections(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return the area that boxes (..., n, 4) and (..., m, 4) have in common: (..., n, m)."""
    first = np.maximum(a[..., :, None, :2], b[..., None, :, :2])
    last = np.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    return np.asarray(np.clip(last - first, 0, None).prod(-1))


def _areas(boxes: np.ndarray) -> np.ndarray:
    return np.asarray(np.clip(boxes[..., 2:] - boxes[..., :2], 0, None).prod(-1))


def detections(
    outputs: np.ndarray,
    *,
    least_score: float = 0.05,
    most_overlap: float = 0.6,
    most: int = MOST_DETECTIONS,
) -> list[np.ndarray]:
    """Return what is found in each image: scores, boxes, non-maximum suppression a class.

    Of two boxes of a class that overlap by more than ``most_overlap`` the less sure is left out,
    the surest first (greedily).

    Args:
        outputs: of the network, (batch, cells, classes + 4) float.
        least_score: boxes that are less sure are left out.
        most_overlap: intersection over union.
        most: boxes of an image, and candidates that are looked at.

    Returns:
        For each image (boxes, 6): class, score from 0 to 1, and left, top, right, bottom as shares
        of the image's sides, the surest first.
    """
    outputs = np.asarray(outputs, dtype=np.float64)
    batch, _, units = outputs.shape
    classes = units - 4
    with np.errstate(over="ignore"):
        scores = 1 / (1 + np.exp(-outputs[..., :classes].reshape(batch, -1)))
    count = min(most, scores.shape[1])
    rough = np.argpartition(-scores, count - 1, axis=1)[:, :count]
    order = np.argsort(-np.take_along_axis(scores, rough, 1), axis=1, kind="stable")
    top = np.take_along_axis(rough, order, 1)
    score = np.take_along_axis(scores, top, 1)
    # Sorted, so that whatever is sure enough comes first.
    busy = int((score >= least_score).sum(1).max(initial=0))
    top, score = top[:, :busy], score[:, :busy]
    kind = top % classes
    every = np.clip(boxes_of(outputs), 0, 1)
    boxes = np.take_along_axis(every, (top // classes)[..., None], 1)
    clash = overlaps(boxes, boxes) > most_overlap
    clash &= kind[:, :, None] == kind[:, None, :]
    alive = score >= least_score
    for i in range(busy):
        # All images at once: what a box that stands puts out among those after it.
        alive[:, i + 1 :] &= ~(clash[:, i, i + 1 :] & alive[:, i, None])
    return [
        np.concatenate([kind[b, on, None], score[b, on, None], boxes[b, on]], 1)
        for b, on in enumerate(alive)
    ]


def paired(found: np.ndarray, wanted: np.ndarray, *, least_overlap: float = 0.5) -> int:
    """Return how many boxes of an image two detections have in common, one to one.

    Args:
        found, wanted: (boxes, 6) as :func:`detections` gives them, the surest first.
        least_overlap: intersection over union of two boxes of a class that are the same.
    """
    shared = overlaps(found[:, 2:], wanted[:, 2:]) * (found[:, :1] == wanted[None, :, 0])
    pairs = 0
    for row in shared:
        if row.size and row.max() >= least_overlap:
            # Whom it overlaps most; each is taken once.
            shared[:, int(row.argmax())] = 0.0
            pairs += 1
    return pairs


class AveragePrecision:
    """Average precision as COCO computes it, added up image by image.

    Equal to ``pycocotools`` over all areas with at most 100 boxes an image: greedy matching in
    order of the scores, ignored boxes, precision at 101 recalls, mean over the classes that occur.

    Args:
        classes: how many there are.
        thresholds: overlaps at which a box counts as found.
    """

    def __init__(self, classes: int, *, thresholds: Sequence[float] = tuple(THRESHOLDS)) -> None:
        self.classes = classes
        self.thresholds = np.asarray(thresholds)
        self.images = 0
        self._wanted = np.zeros(classes, dtype=np.int64)
        # Of each class: scores, and at each threshold right (1), wrong (0) or ignored (-1).
        self._scores: list[list[np.ndarray]] = [[] for _ in range(classes)]
        self._right: list[list[np.ndarray]] = [[] for _ in range(classes)]

    def add(self, found: np.ndarray, truth: np.ndarray) -> None:
        """Add an image.

        Args:
            found: (n, 6): class, score, left, top, right, bottom.
            truth: (m, 6): class (below 0 for no box), corners, and whether it is ignored.
        """
        self.images += 1
        truth = truth[truth[:, 0] >= 0]
        for kind in np.unique(np.concatenate([found[:, 0], truth[:, 0]])).astype(int).tolist():
            mine = found[found[:, 0] == kind]
            theirs = truth[truth[:, 0] == kind]
            mine = mine[np.argsort(-mine[:, 1], kind="stable")]
            # Boxes that are ignored take what no other does.
            theirs = theirs[np.argsort(theirs[:, 5], kind="stable")]
            self._wanted[kind] += int((theirs[:, 5] == 0).sum())
            if len(mine):
                self._scores[kind].append(mine[:, 1])
                self._right[kind].append(self._match(mine[:, 2:], theirs))

    def _match(self, found: np.ndarray, truth: np.ndarray) -> np.ndarray:
        """Return (thresholds, n) of 1 right, 0 wrong, -1 ignored."""
        out = np.zeros((len(self.thresholds), len(found)), dtype=np.int64)
        if not len(truth):
            return out
        ignored = truth[:, 5] > 0
        shared = overlaps(found, truth[:, 1:5])
        if ignored.any():
            # A crowd holds many: what lies inside it is covered by it (COCO).
            common = _intersections(found, truth[ignored, 1:5])
            shared[:, ignored] = common / np.maximum(_areas(found)[:, None], 1e-12)
        free = np.ones((len(self.thresholds), len(truth)), dtype=bool)
        rows = np.arange(len(self.thresholds))
        least = np.minimum(self.thresholds, 1 - 1e-10)
        # What overlaps with nothing is wrong at every threshold: most boxes of a weak network.
        for i in np.flatnonzero((shared >= least.min()).any(1)):
            row = shared[i]
            able = (row[None, :] >= least[:, None]) & (free | ignored)
            real = np.where(able & ~ignored, row, -1.0)
            # Of equal overlaps COCO takes the last.
            best = len(truth) - 1 - np.argmax(real[:, ::-1], axis=1)
            hit = real[rows, best] >= 0
            free[rows[hit], best[hit]] = False
            out[hit, i] = 1
            out[~hit & (able & ignored).any(1), i] = -1
        return out

    def by_class(self) -> np.ndarray:
        """Return the AP at each threshold, (thresholds, classes); NaN for a class not there."""
        out = np.full((len(self.thresholds), self.classes), np.nan)
        recalls = np.linspace(0, 1, 101)
        for kind in range(self.classes):
            if not self._wanted[kind]:
                continue
            out[:, kind] = 0.0
            if not self._scores[kind]:
                continue
            order = np.argsort(-np.concatenate(self._scores[kind]), kind="stable")
            right = np.concatenate(self._right[kind], axis=1)[:, order]
            for t, row in enumerate(right):
                counted = row[row >= 0]
                hits = np.cumsum(counted)
                precision = hits / np.arange(1, len(counted) + 1)
                # The best precision at this recall or more.
                precision = np.maximum.accumulate(precision[::-1])[::-1]
                places = np.searchsorted(hits / self._wanted[kind], recalls, side="left")
                known = places < len(counted)
                out[t, kind] = precision[places[known]].sum() / len(recalls)
        return out


__all__ = [
    "AveragePrecision",
    "boxes_of",
    "cells_of",
    "detections",
    "grids_of",
    "overlaps",
]
