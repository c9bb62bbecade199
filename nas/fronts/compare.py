"""Fronts of several finished runs side by side: volume, knee, difference, attainment.

For two runs architecture by architecture see :mod:`nas.report.comparison`; here any number
of runs (other seeds, strategies or budgets of one job) are held against one reference point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nas.fronts.pareto import (
    FrontDifference,
    attainment,
    difference,
    hypervolume,
    knee,
    nondominated,
    reference_point,
)
from nas.record.result_types import Results
from nas.report.comparison import maximised, objective_value, other_data
from nas.report.results import load_results, metric_of, number
from search_spaces.errors import InputError

SHARES = (0.5, 1.0)
"""Attainment surfaces that are told: what half of the runs reach, and what all do."""


@dataclass(frozen=True)
class RunFront:
    """One run's front.

    Attributes:
        name: folder of the run.
        points: distinct non-dominated points in natural units, (k, objectives), sorted.
        hypervolume: against the common reference point, in units of the objectives.
        knee: id of the architecture at the knee.
    """

    name: str
    points: np.ndarray
    hypervolume: float
    knee: str


@dataclass(frozen=True)
class RunsComparison:
    """Several fronts against one reference point.

    Attributes:
        objectives: compared, in order.
        maximised: which of them are better when larger.
        accuracy: the split whose accuracy counts; None where it is no objective.
        reference: the point volumes are measured against, in natural units.
        fronts: one a run, in the order given.
        differences: of the first run against each other one.
        attained: share of the runs -> points that so many attain, natural units.
        notes: what makes the comparison doubtful.
    """

    objectives: tuple[str, ...]
    maximised: tuple[bool, ...]
    accuracy: str | None
    reference: tuple[float, ...]
    fronts: tuple[RunFront, ...]
    differences: tuple[FrontDifference, ...]
    attained: dict[float, np.ndarray]
    notes: tuple[str, ...] = ()

    def lines(self) -> list[str]:
        """Return the comparison as text for people."""
        aims = [
            f"{name} ({'more' if more else 'less'} is better)"
            for name, more in zip(self.objectives, self.maximised, strict=True)
        ]
        split = f", {self.accuracy} split" if self.accuracy else ""
        lines = [
            f"objectives: {', '.join(aims)}{split}",
            f"reference point: {', '.join(f'{v:.6g}' for v in self.reference)}",
        ]
        lines += [f"note: {note}" for note in self.notes]
        width = max(len(front.name) for front in self.fronts)
        for front in self.fronts:
            lines.append(
                f"{front.name.ljust(width)}  hypervolume {front.hypervolume:.6g}, "
                f"{len(front.points)} points, knee {front.knee}"
            )
        first = self.fronts[0].name
        for front, gap in zip(self.fronts[1:], self.differences, strict=True):
            lines.append(
                f"{front.name} against {first}: hypervolume ratio {gap.hypervolume_ratio:.4f}; "
                f"covers {gap.coverage_b:.0%} of it and is covered to {gap.coverage_a:.0%}; "
                f"{gap.common} points in common"
            )
        volumes = np.array([front.hypervolume for front in self.fronts])
        lines.append(
            f"hypervolume over {len(volumes)} runs: mean {volumes.mean():.6g}, "
            f"standard deviation {volumes.std(ddof=1):.3g}, "
            f"least {volumes.min():.6g}, most {volumes.max():.6g}"
        )
        for share, points in self.attained.items():
            runs = int(np.ceil(share * len(self.fronts) - 1e-9))
            told = "; ".join(" / ".join(f"{v:.5g}" for v in point) for point in points)
            lines.append(f"attained by at least {runs} of {len(self.fronts)} runs: {told}")
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON-compatible data."""
        return {
            "objectives": list(self.objectives),
            "maximised": list(self.maximised),
            "accuracy_split": self.accuracy,
            "reference_point": list(self.reference),
            "notes": list(self.notes),
            "runs": [
                {
                    "run": front.name,
                    "hypervolume": front.hypervolume,
                    "knee": front.knee,
                    "points": front.points.tolist(),
                }
                for front in self.fronts
            ],
            "differences": [
                {
                    "run": front.name,
                    "against": self.fronts[0].name,
                    **{
                        key: None if isinstance(value, float) and np.isnan(value) else value
                        for key, value in asdict(gap).items()
                        if key != "reference"
                    },
                }
                for front, gap in zip(self.fronts[1:], self.differences, strict=True)
            ],
            "attained": [
                {"share": share, "points": points.tolist()}
                for share, points in self.attained.items()
            ],
        }


def compare_runs(
    runs: Sequence[Path],
    *,
    objectives: Sequence[str] | None = None,
    device: str | None = None,
    reference: Sequence[float] | None = None,
) -> RunsComparison:
    """Compare the fronts of two or more finished runs.

    Args:
        runs: run folders; differences are against the first.
        objectives: metrics such as ``accuracy``, ``latency_ms[cpu]`` or ``weights_kib``; by
            default those of the first run that every run recorded.
        device: of a bare ``latency_ms`` or ``energy_mj``, and of the default objectives.
        reference: reference point of the hypervolume in natural units; by default the worst
            of all runs and a tenth of the range (:func:`nas.fronts.pareto.reference_point`).

    Validation accuracy is compared where every run has it, for the search decided on it.

    Raises:
        InputError: fewer than two runs, a run that has not ended or has an empty front, an
            objective that some run did not record, tasks of different metrics, or a reference of
            another length.
    """
    if len(runs) < 2:
        raise InputError("give at least two run folders to compare")
    results = [load_results(Path(run)) for run in runs]
    for run, result in zip(runs, results, strict=True):
        if not result["front"]:
            raise InputError(f"{run} has an empty front, which cannot be compared")
    entries = [entry for result in results for entry in result["front"]]
    validated = all(number(e.get("validation_accuracy")) is not None for e in entries)
    split = "validation" if validated else "test"
    metric, higher = metric_of(results[0])
    goals = _goals(results[0], objectives, device)
    if {metric, "accuracy"} & {goal.partition("[")[0] for goal in goals}:
        for run, result in zip(runs, results, strict=True):
            if (other := metric_of(result)[0]) != metric:
                raise InputError(
                    f"{runs[0]} has the metric {metric} and {run} has {other}, which cannot be "
                    "compared; name what both have with --objectives, such as weights_kib"
                )

    def known(goal: str) -> bool:
        return all(
            objective_value(e, goal, metric, f"{split}_accuracy") is not None for e in entries
        )

    if objectives is None:
        goals = [goal for goal in goals if known(goal)]
    missing = [goal for goal in goals if not known(goal)]
    if missing or not goals:
        raise InputError(
            f"{missing[0] if missing else 'no objective'} is not recorded for every architecture "
            "of every run; name others with --objectives"
        )
    more = tuple(maximised(goal, metric, higher) for goal in goals)
    sign = np.where(more, -1.0, 1.0)
    minimised = [
        sign
        * np.array(
            [
                [objective_value(e, goal, metric, f"{split}_accuracy") for goal in goals]
                for e in result["front"]
            ],
            dtype=float,
        )
        for result in results
    ]
    if reference is None:
        point = reference_point(*minimised)
    else:
        point = np.asarray(reference, dtype=float)
        if point.shape != (len(goals),) or not np.isfinite(point).all():
            raise InputError(
                f"the reference point has {point.size} values; {len(goals)} finite ones are "
                f"needed, for {', '.join(goals)}"
            )
        point = sign * point
    costs = [k for k, goal in enumerate(goals) if goal not in ("accuracy", metric)]
    fronts = []
    for run, result, points in zip(runs, results, minimised, strict=True):
        on = np.flatnonzero(nondominated(points))
        at = on[knee(points[on], costs)]
        fronts.append(
            RunFront(
                name=str(run),
                points=sign * np.unique(points[on], axis=0) + 0.0,
                hypervolume=hypervolume(points, point),
                knee=str(result["front"][at]["id"]),
            )
        )
    uses_accuracy = any(goal.partition("[")[0] in ("accuracy", metric) for goal in goals)
    notes = [
        other_data(results[0], result, str(runs[0]), str(run))
        for run, result in zip(runs[1:], results[1:], strict=True)
        if uses_accuracy
    ]
    return RunsComparison(
        objectives=tuple(goals),
        maximised=more,
        accuracy=split if uses_accuracy else None,
        reference=tuple(float(v) for v in sign * point + 0.0),
        fronts=tuple(fronts),
        differences=tuple(
            difference(minimised[0], other, reference=point) for other in minimised[1:]
        ),
        attained={
            share: sign * points + 0.0 for share, points in attainment(minimised, SHARES).items()
        }
        if len(goals) <= 3
        else {},
        notes=tuple(note for note in notes if note is not None),
    )


def _goals(result: Results, objectives: Sequence[str] | None, device: str | None) -> list[str]:
    """Return full names of the objectives to compare."""
    from nas.fronts.metrics import METRICS

    if objectives is None:
        found = [str(goal) for goal in result["goals"]] or [metric_of(result)[0]]
        if device is not None:
            found = [g for g in found if "[" not in g or g.endswith(f"[{device}]")]
        return found
    devices = [str(d["name"]) for d in result["devices"] if isinstance(d, Mapping)]
    found = []
    for goal in objectives:
        if goal in METRICS.names() and METRICS.get(goal).per_device:
            names = [device] if device is not None else devices
            found += [f"{goal}[{name}]" for name in names]
        else:
            found.append(goal)
    return list(dict.fromkeys(found))
