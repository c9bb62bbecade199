"""Pareto fronts: which points are on it, how much it covers, how two of them differ.

Objectives are minimised throughout. Non-dominated sorting and hypervolume come from
moocore (Fonseca, Paquete and López-Ibáñez 2006 for the hypervolume).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from search_spaces.errors import InputError, MissingExtraError


def nondominated(objectives: np.ndarray, constraints: np.ndarray | None = None) -> np.ndarray:
    """Return which points are on the front: (n, m) -> (n,) bool.

    With ``constraints`` (n, k), ``<= 0`` feasible, infeasible points are never on it; the
    mask is all False where none is feasible. Equal points are all kept.
    """
    objectives = _points(objectives)
    keep = feasible(constraints, len(objectives)) & np.isfinite(objectives).all(axis=1)
    rows = np.flatnonzero(keep)
    out = np.zeros(len(objectives), dtype=bool)
    if rows.size:
        out[rows] = _moocore().is_nondominated(_two(objectives[rows]), keep_weakly=True)
    return out


def feasible(constraints: np.ndarray | None, n: int) -> np.ndarray:
    """Return which of ``n`` points satisfy every constraint: (n, k) -> (n,) bool.

    An undefined (NaN) violation is a violation.
    """
    if constraints is None or np.size(constraints) == 0:
        return np.ones(n, dtype=bool)
    return np.all(np.asarray(constraints, dtype=float).reshape(n, -1) <= 0, axis=1)


def hypervolume(objectives: np.ndarray, reference: Sequence[float] | np.ndarray) -> float:
    """Return the volume dominated by the points (n, m) and bounded by ``reference`` (m,).

    Points that do not dominate the reference contribute nothing; no points, 0.

    Raises:
        InputError: the reference has another length than the points or is not finite.
    """
    objectives = _points(objectives)
    point = np.asarray(reference, dtype=float)
    if point.shape != (objectives.shape[1],) or not np.isfinite(point).all():
        raise InputError(
            f"reference point {point.tolist()} must be {objectives.shape[1]} finite numbers"
        )
    inside = objectives[(objectives < reference).all(axis=1)]
    if not len(inside):
        return 0.0
    if inside.shape[1] == 1:
        return float(reference[0] - inside.min())
    return float(_moocore().hypervolume(inside, ref=reference))


def reference_point(*fronts: np.ndarray, margin: float = 0.1) -> np.ndarray:
    """Return a common reference point: the worst of all points plus ``margin`` of the range.

    An objective that never varies gets a margin of its own size, so that no front has volume 0.
    """
    points = np.concatenate([_points(front) for front in fronts])
    points = points[np.isfinite(points).all(axis=1)]
    if not len(points):
        raise InputError("no finite point to take a reference from")
    worst, best = points.max(axis=0), points.min(axis=0)
    span = np.where(worst > best, worst - best, np.maximum(np.abs(worst), 1.0))
    return worst + margin * span


def knee(objectives: np.ndarray, costs: Sequence[int] = ()) -> int:
    """Return the index of the knee of a front (n, m).

    The point furthest below the hyperplane through the extremes, each objective scaled as
    :func:`depths` does (Das 1999, "On characterizing the knee of the Pareto curve"); the
    smallest index among equals, the first point of a front without volume.

    Args:
        objectives: (n, m), smaller is better.
        costs: which of them are costs, see :func:`depths`.

    Raises:
        InputError: no point.
    """
    objectives = _points(objectives)
    if not len(objectives):
        raise InputError("an empty front has no knee")
    return int(np.argmin(depths(objectives, costs)))


def depths(objectives: np.ndarray, costs: Sequence[int]) -> np.ndarray:
    """Return the sum of each point's objectives, each scaled to 0..1 over the front, (n,).

    A cost that less than doubles over the front is scaled by the least of it: one in which all are
    about alike would weigh as much as one that differs tenfold. Points without a finite value are
    last.

    Args:
        objectives: (n, m), smaller is better, n at least 1.
        costs: which of them are costs, and no quality.
    """
    low, high = objectives.min(axis=0), objectives.max(axis=0)
    finite = np.isfinite(low) & np.isfinite(high)
    span = np.where(finite & (high > low), high - low, 1.0)
    cost = finite & (low > 0) & np.isin(np.arange(len(low)), costs)
    span = np.where(cost, np.maximum(span, low), span)
    scaled = (objectives - np.where(finite, low, 0.0)) / span
    found: np.ndarray = np.nan_to_num(scaled, nan=np.inf).sum(axis=1).round(12)
    return found


@dataclass(frozen=True)
class FrontDifference:
    """How far two fronts agree.

    Attributes:
        hypervolume_a, hypervolume_b: against ``reference``.
        hypervolume_ratio: b / a; NaN where a has none.
        coverage_a, coverage_b: share of the *other* front that this one weakly dominates
            (Zitzler and Thiele 1998, C metric).
        common: points in both, equal in every objective within ``tolerance``.
        size_a, size_b: numbers of distinct points on each front.
        reference: the point both volumes were measured against.
    """

    hypervolume_a: float
    hypervolume_b: float
    hypervolume_ratio: float
    coverage_a: float
    coverage_b: float
    common: int
    size_a: int
    size_b: int
    reference: tuple[float, ...]


def difference(
    a: np.ndarray,
    b: np.ndarray,
    *,
    reference: Sequence[float] | np.ndarray | None = None,
    tolerance: float = 1e-9,
) -> FrontDifference:
    """Compare two sets of points (n, m); each is reduced to its front first.

    Args:
        a, b: objectives, minimised.
        reference: point to measure volumes against; :func:`reference_point` of both by default.
        tolerance: relative difference up to which two numbers count as equal.
    """
    a, b = _points(a), _points(b)
    # Architectures with equal objectives are one point.
    a, b = np.unique(a[nondominated(a)], axis=0), np.unique(b[nondominated(b)], axis=0)
    if not len(a) or not len(b):
        raise InputError("a front without points cannot be compared")
    if a.shape[1] != b.shape[1]:
        raise InputError(f"fronts with {a.shape[1]} and {b.shape[1]} objectives cannot be compared")
    point = reference_point(a, b) if reference is None else np.asarray(reference, dtype=float)
    volume_a, volume_b = hypervolume(a, point), hypervolume(b, point)
    slack = tolerance * np.maximum(np.abs(a)[:, None], np.abs(b)[None, :])
    gap = a[:, None] - b[None, :]
    a_dominates = (gap <= slack).all(axis=2)
    b_dominates = (gap >= -slack).all(axis=2)
    return FrontDifference(
        hypervolume_a=volume_a,
        hypervolume_b=volume_b,
        hypervolume_ratio=volume_b / volume_a if volume_a > 0 else float("nan"),
        coverage_a=float(a_dominates.any(axis=0).mean()),
        coverage_b=float(b_dominates.any(axis=1).mean()),
        common=int((a_dominates & b_dominates).any(axis=1).sum()),
        size_a=len(a),
        size_b=len(b),
        reference=tuple(float(v) for v in point),
    )


def attainment(fronts: Sequence[np.ndarray], shares: Sequence[float]) -> dict[float, np.ndarray]:
    """Return which points are attained by at least a share of several runs' fronts.

    A point is attained by a run that has an evaluation no worse in every objective. The
    surface of share 0.5 is the median attainment surface, the usual picture of what a typical
    run reaches; 1.0 is what every run reaches (Grunert da Fonseca, Fonseca and Hall 2001).

    Args:
        fronts: one set of points (n, m) a run, minimised, two or three objectives (one
            objective gives the order statistic).
        shares: each in (0, 1]; rounded up to whole runs.

    Returns:
        share -> the minimal points of its surface, (k, m), sorted.

    Raises:
        InputError: no run, a run without a finite point, runs with different numbers of
            objectives, more than three, or a share outside (0, 1].
    """
    sets = [_points(front) for front in fronts]
    sets = [points[np.isfinite(points).all(axis=1)] for points in sets]
    if not sets or not all(len(points) for points in sets):
        raise InputError("attainment needs at least one finite point of every run")
    m = sets[0].shape[1]
    if any(points.shape[1] != m for points in sets) or m > 3:
        raise InputError("attainment needs runs with the same one, two or three objectives")
    if not all(0.0 < share <= 1.0 for share in shares):
        raise InputError(f"shares {list(shares)} must be above 0 and at most 1")
    wanted = {share: int(np.ceil(share * len(sets) - 1e-9)) for share in shares}
    if m == 1:
        best = np.sort([points.min() for points in sets])
        return {share: best[[runs - 1]][:, None] for share, runs in wanted.items()}
    points = np.vstack(sets)
    run = np.repeat(np.arange(1, len(sets) + 1), [len(p) for p in sets])
    # Percentiles of whole runs: moocore rounds them up the way the shares were rounded here.
    levels = sorted({100.0 * runs / len(sets) for runs in wanted.values()})
    surface = np.asarray(_moocore().eaf(points, run, percentiles=levels))
    found = {}
    for share, runs in wanted.items():
        rows = surface[np.isclose(surface[:, -1], 100.0 * runs / len(sets)), :-1]
        found[share] = np.unique(rows[nondominated(rows)], axis=0)
    return found


def _points(objectives: np.ndarray) -> np.ndarray:
    points = np.asarray(objectives, dtype=float)
    if points.ndim != 2:
        raise InputError(f"objectives must have shape (n, m), not {points.shape}")
    return points


def _two(points: np.ndarray) -> np.ndarray:
    # moocore needs at least two objectives; a constant second one changes nothing.
    return np.column_stack([points, np.zeros(len(points))]) if points.shape[1] == 1 else points


def _moocore():
    try:
        import moocore
    except ModuleNotFoundError as error:
        raise MissingExtraError("moocore", "search") from error
    return moocore
