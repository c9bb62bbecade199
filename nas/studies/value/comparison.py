"""How many points a front is ahead of a family: at equal size and at equal latency.

What stands for a set of models at a budget is the one of best *validation* accuracy among those
within it, and its *test* accuracy counts. So nothing is chosen by the test set, on either side.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

LEVEL_Z = 1.959964


@dataclass(frozen=True, eq=False)
class Point:
    """A model that was tested.

    Attributes:
        name: its id, or the member's name.
        weights_kib: packed weights.
        validation, accuracy: the task's metric on the validation and on the test set.
        right: which test images it names rightly, (images,) bool; None for a task without classes.
        latency_ms: by device.
    """

    name: str
    weights_kib: float
    validation: float
    accuracy: float
    right: np.ndarray | None = None
    latency_ms: Mapping[str, float] = field(default_factory=dict)

    def cost(self, device: str | None) -> float:
        """Return packed KiB, or the latency on ``device``; infinite where it was not measured."""
        return self.weights_kib if device is None else self.latency_ms.get(device, math.inf)


def best_within(
    points: Sequence[Point], budget: float, device: str | None = None, *, higher: bool = True
) -> Point | None:
    """Return the point of best validation accuracy within a budget, or None where none is.

    Of equals the cheaper one.

    Args:
        points: to choose from.
        budget: KiB, or ms on ``device``.
        device: whose latency the budget bounds; None bounds packed weights.
        higher: whether the metric is better when larger.
    """
    sign = -1.0 if higher else 1.0
    # A budget that is a model's own size, written to a few digits, has room for that model.
    fitting = [p for p in points if p.cost(device) <= budget * (1 + 1e-9)]
    return min(fitting, key=lambda p: (sign * p.validation, p.cost(device)), default=None)


def compare(
    front: Sequence[Point],
    families: Sequence[Sequence[Point]],
    budgets: Sequence[float],
    *,
    device: str | None = None,
    higher: bool = True,
    unit: float = 100.0,
) -> dict[str, Any]:
    """Compare a front with a family at each of several budgets.

    The interval of a difference holds two independent parts, added as squares: the test images
    are a sample (paired, since both models see the same ones), and so are the seeds of the family
    (Student's t over them). One seed shows the first part only.

    Args:
        front: its models.
        families: the family once for each seed.
        budgets: KiB, or ms on ``device``, ascending.
        device, higher: see :func:`best_within`.
        unit: what a difference of 1 counts: 100 gives percentage points of a share.

    Returns:
        ``rows``: for each budget ``front`` and ``family`` (names, accuracies; None where nothing
        fits), ``ahead``, ``low`` and ``high`` in units (above 0 the front is better); and over the
        budgets where both sides have a model ``mean`` with ``low`` and ``high``, and ``worst``.
        ``missing`` counts the budgets at which the front has no model and the family has one.
    """
    rows = []
    paired: list[list[np.ndarray | None]] = []
    values: list[list[float]] = []
    missing = 0
    for budget in budgets:
        ours = best_within(front, budget, device, higher=higher)
        others = [best_within(family, budget, device, higher=higher) for family in families]
        found = [other for other in others if other is not None]
        row: dict[str, Any] = {
            "budget": budget,
            "front": None if ours is None else _told(ours, device),
            "family": [_told(other, device) for other in found] or None,
            "ahead": None,
            "low": None,
            "high": None,
        }
        missing += ours is None and bool(found)
        if ours is not None and found and len(found) == len(families):
            sign = unit if higher else -unit
            differences = [sign * (ours.accuracy - other.accuracy) for other in found]
            images = [_paired(ours, other) for other in found]
            row |= _interval(differences, images)
            values.append(differences)
            paired.append(images)
        rows.append(row)
    whole: dict[str, Any] = {"mean": None, "low": None, "high": None, "worst": None}
    if values:
        # By seed, so that what budgets have in common is not taken for more evidence.
        each = np.mean(values, axis=0)
        images = []
        for seed in range(len(families)):
            known = [part for row in paired if (part := row[seed]) is not None]
            images.append(np.mean(known, axis=0) if len(known) == len(paired) else None)
        total = _interval(list(each), images)
        whole = {
            "mean": total["ahead"],
            "low": total["low"],
            "high": total["high"],
            "worst": round(min(float(np.mean(row)) for row in values), 3),
        }
    return {"rows": rows, **whole, "missing": missing}


def _told(point: Point, device: str | None) -> dict[str, Any]:
    return {
        "name": point.name,
        "accuracy": point.accuracy,
        "validation": point.validation,
        "cost": point.cost(device),
    }


def _paired(ours: Point, other: Point) -> np.ndarray | None:
    """Return by how much ours is right more often, image by image: (images,) -1, 0 or 1."""
    if ours.right is None or other.right is None:
        return None
    return ours.right.astype(float) - other.right.astype(float)


def _interval(
    differences: Sequence[float], images: Sequence[np.ndarray | None]
) -> dict[str, float | None]:
    """Return mean and 95 % interval of differences in points, one a seed."""
    mean, count = float(np.mean(differences)), len(differences)
    squares = 0.0
    known = [part for part in images if part is not None]
    if len(known) == count:
        # The same images for every seed: what they say is averaged before it is squared.
        together = np.mean(known, axis=0)
        error = 100 * float(together.std(ddof=1)) / math.sqrt(len(together))
        squares += (LEVEL_Z * error) ** 2
    elif count < 2:
        return {"ahead": round(mean, 3), "low": None, "high": None}
    if count > 1:
        from devices.measuring.statistics import student_t

        error = float(np.std(differences, ddof=1)) / math.sqrt(count)
        squares += (student_t(0.975, count - 1) * error) ** 2
    half = math.sqrt(squares)
    return {
        "ahead": round(mean, 3),
        "low": round(mean - half, 3),
        "high": round(mean + half, 3),
    }
