"""The search: the volume that the front dominates, the accuracy predictor, training, time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from nas.report.charts.palette import series
from nas.report.charts.spec import XY, Axis, Bars, BarSeries, Line, NothingRecorded
from nas.report.charts.text import duration, short
from nas.report.comparison import maximised
from nas.report.results import is_share, number
from nas.report.rows import Rows, thin
from search_spaces.errors import InputError

MOST_STEPS = 600
"""Training records drawn at most."""

_FEW = 40
"""Points up to which each point of a line is marked."""

_VOLUMES = 60
"""Points of a curve of volumes that is computed here."""


def hypervolume(rows: Rows) -> XY:
    """Return the volume that the front of a run dominates, over real evaluations.

    Raises:
        NothingRecorded: there is none.
    """
    found = rows.results.hypervolume or {}
    values = [
        (v["evaluations"], v["value"])
        for v in found.get("values") or []
        if number(v.get("value")) is not None and number(v.get("evaluations")) is not None
    ]
    if not values:
        raise NothingRecorded("no hypervolume was recorded")
    goals, reference = found.get("goals") or [], found.get("reference") or []
    note = "Reference point not recorded."
    if goals and len(goals) == len(reference):
        turned = (
            -value if maximised(goal, rows.metric, rows.higher) else value
            for goal, value in zip(goals, reference, strict=True)
        )
        point = ", ".join(short(number(value)) for value in turned)
        note = f"Volume dominated in {', '.join(goals)}; reference point {point}."
    return _volumes([_line("hypervolume", values, "front", stepped=True)], (note,))


def hypervolumes(runs: Mapping[str, Rows]) -> XY:
    """Return the volumes of several runs, computed again against one reference point.

    The reference is the worst of all runs' feasible evaluations.

    Raises:
        InputError: no runs, different objectives, or no feasible evaluation with all of them.
    """
    curves = _common_volumes(runs)
    return _volumes(
        [
            _line(name, points, series(i), stepped=True)
            for i, (name, points) in enumerate(curves.items())
        ],
        (),
    )


def accuracy_predictor(rows: Rows) -> XY:
    """Return how well the accuracy predictor ranked candidates, over evaluations.

    Raises:
        NothingRecorded: there was no predictor.
    """
    found = rows.results.accuracy_predictor
    points = [
        (r["points"] if number(r.get("points")) is not None else r.get("round"), r["kendall_tau"])
        for r in found
        if number(r.get("kendall_tau")) is not None
    ]
    if not points:
        raise NothingRecorded("accuracy predictor: nothing was recorded in this run")
    errors = [r["rmse"] for r in found if number(r.get("rmse")) is not None]
    note = "Error not recorded."
    if errors:
        last = f"{100 * errors[-1]:.2f} points" if is_share(rows.results) else short(errors[-1])
        note = f"Root mean square error at the end: {last}."
    return XY(
        title="Accuracy predictor",
        description="Rank correlation of the accuracy predictor over evaluated architectures.",
        x=Axis("evaluated architectures"),
        y=Axis("Kendall tau", shows=(1.0,)),
        marks=(_line("Kendall tau", points, "front"),),
        notes=(note,),
        low=True,
    )


def training(rows: Rows) -> XY:
    """Return the loss of the supernet over its training.

    Raises:
        NothingRecorded: there is no record of it.
    """
    points = [
        (r["step"], r["loss"])
        for r in rows.results.training
        if number(r.get("loss")) is not None and number(r.get("step")) is not None
    ]
    if not points:
        raise NothingRecorded("training of the supernet: nothing was recorded in this run")
    return XY(
        title="Training of the supernet",
        description="Training loss of the supernet over its steps.",
        x=Axis("step"),
        y=Axis("loss"),
        marks=(_line("loss", thin(points, MOST_STEPS), "front"),),
        low=True,
    )


def timing(rows: Rows) -> Bars:
    """Return how long each stage of a run took; None for a stage whose time is not known.

    Raises:
        NothingRecorded: there are no times.
    """
    found = [
        (str(row.get("stage")), number(row.get("seconds"))) for row in rows.results.timing
    ]  # fmt: skip
    if not found:
        raise NothingRecorded("the run has no timing")
    values = tuple(seconds for _, seconds in found)
    total = sum(seconds or 0.0 for seconds in values)
    return Bars(
        title="Time by stage",
        description=f"Time of each stage of a run of {duration(total)}.",
        category="Stage",
        categories=tuple(stage for stage, _ in found),
        value=Axis("time", "s", format="seconds"),
        series=(
            BarSeries(
                "time",
                "front",
                values,
                labels=tuple("" if s is None else duration(s) for s in values),
            ),
        ),
        whole=total or None,
    )


def _line(
    name: str, points: Sequence[tuple[Any, Any]], role: str, *, stepped: bool = False
) -> Line:
    return Line(
        name,
        role,
        tuple(x for x, _ in points),
        tuple(y for _, y in points),
        stepped=stepped,
        marked=len(points) <= _FEW,
    )


def _volumes(lines: Sequence[Line], notes: tuple[str, ...]) -> XY:
    return XY(
        title="Hypervolume over evaluations",
        description="Hypervolume over evaluations.",
        x=Axis("real evaluations"),
        y=Axis("hypervolume"),
        marks=tuple(lines),
        notes=notes,
        low=True,
    )


def _common_volumes(runs: Mapping[str, Rows]) -> dict[str, list[tuple[int, float]]]:
    """Volumes of the feasible evaluations of every run, against one reference point."""
    import numpy as np

    from nas.fronts.pareto import hypervolume as volume
    from nas.fronts.pareto import reference_point

    goals = {name: [str(goal) for goal in rows.results.goals] for name, rows in runs.items()}
    if not goals or len({tuple(given) for given in goals.values()}) > 1:
        told = "; ".join(f"{name}: {', '.join(given)}" for name, given in goals.items())
        raise InputError(f"volumes compare only for the same objectives ({told or 'no runs'})")
    points = {name: _feasible(rows, goals[name]) for name, rows in runs.items()}
    if not any(points.values()):
        raise InputError("no run has a feasible evaluation with every objective")
    reference = reference_point(
        np.array([values for found in points.values() for _, values in found])
    ).tolist()
    curves = {}
    for name, found in points.items():
        step = max(1, len(found) // _VOLUMES)
        kept = [*range(step, len(found), step), len(found)] if found else []
        curves[name] = [
            (found[k - 1][0], volume(np.array([values for _, values in found[:k]]), reference))
            for k in kept
        ]
    return curves


def _feasible(rows: Rows, goals: Sequence[str]) -> list[tuple[int, list[float]]]:
    """Return number and objectives, less is better, of the feasible evaluations."""
    signs = {g: -1.0 if maximised(g, rows.metric, rows.higher) else 1.0 for g in goals}

    def complete(metrics: Mapping[str, Any]) -> bool:
        return all(number(metrics.get(goal)) is not None for goal in goals)

    return [
        (count, [sign * row.metrics[goal] for goal, sign in signs.items()])
        for count, row in enumerate(rows.results.evaluations, start=1)
        if row.feasible and complete(row.metrics)
    ]
