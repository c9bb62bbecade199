"""Figures: each is the chart of the same name in :mod:`nas.report.charts`, drawn by plotly."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from inspect import signature
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Concatenate, ParamSpec, TypeAlias

from nas.plots.figure import figure
from nas.report.charts import bits, choices, latency, search
from nas.report.charts import front as front_charts
from nas.report.charts import model as model_charts
from nas.report.charts.spec import Drawing
from nas.report.rows import Rows

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

P = ParamSpec("P")
Run: TypeAlias = "str | PathLike[str] | Mapping[str, Any]"


def rows_of(run: Run) -> Rows:
    """Return the rows of a run folder, or of results that were given.

    Raises:
        InputError: the folder has no readable ``results.json``.
    """
    from nas.report.family import load_study
    from nas.report.results import load_results

    if isinstance(run, Mapping):
        return Rows.of(run)
    return Rows.of(load_results(Path(run)), load_study(Path(run)))


def fronts(
    runs: Mapping[str, Run], *, cost: str | None = None, split: str = "test", budget: bool = True
) -> Figure:
    """Draw the fronts of several runs in one figure.

    Args:
        runs: name -> folder or results; the runs may be of other devices or budgets.
        cost: as for :func:`front`; by default the latency on the first device of the first run.
        split: ``test`` or ``validation``.
        budget: draw each run's budget on the cost, in the colour of the run.

    Raises:
        InputError: no runs, an unknown split, or a cost that a run's front does not have.
        MissingExtraError: plotly is not installed.
    """
    named = {str(name): rows_of(run) for name, run in runs.items()}
    return figure(front_charts.fronts(named, cost=cost, split=split, budget=budget))


def hypervolume(runs: Run | Mapping[str, Run]) -> Figure:
    """Draw the volume that the front dominates, over real evaluations.

    Args:
        runs: one run, whose recorded volumes are drawn; or name -> run, whose volumes are
            computed again against one reference point, the worst of all runs' evaluations.

    Raises:
        InputError: nothing was recorded, or the runs have different objectives.
        MissingExtraError: plotly is not installed.
    """
    if isinstance(runs, Mapping) and not {"front", "evaluations"} & set(runs):
        named = {str(name): rows_of(run) for name, run in runs.items()}
        return figure(search.hypervolumes(named))
    return figure(search.hypervolume(rows_of(runs)))


def _drawn(chart: Callable[P, Drawing]) -> Callable[P, Figure]:
    """Return what draws, by plotly, what ``chart`` returns; it takes the same."""

    @wraps(chart)
    def draw(*args: P.args, **kwargs: P.kwargs) -> Figure:
        return figure(chart(*args, **kwargs))

    # What help() shows is the chart's, but for what comes of it.
    found = signature(chart).replace(return_annotation="Figure")
    draw.__signature__ = found  # type: ignore[attr-defined]
    raises = "    Raises:\n        MissingExtraError: plotly is not installed.\n"
    words = (chart.__doc__ or "").replace("Return ", "Draw ", 1).rstrip(" ")
    draw.__doc__ = words.replace("    Raises:\n", raises) if "Raises:" in words else words + raises
    return draw


def _of_run(
    chart: Callable[Concatenate[Rows, P], Drawing],
) -> Callable[Concatenate[Run, P], Figure]:
    """Return what draws a chart of a run: its folder, or its results, is the first argument."""

    @wraps(chart)
    def of_run(run: Run, *args: P.args, **kwargs: P.kwargs) -> Drawing:
        return chart(rows_of(run), *args, **kwargs)

    first, *rest = signature(chart).parameters.values()
    run = first.replace(name="run", annotation="Run")
    of_run.__signature__ = signature(chart).replace(parameters=[run, *rest])  # type: ignore[attr-defined]
    of_run.__doc__ = (chart.__doc__ or "").replace("rows: of the run.", "run: folder or results.")
    return _drawn(of_run)


front = _of_run(front_charts.front)
devices = _of_run(front_charts.devices)
predicted_vs_measured = _of_run(latency.predicted_vs_measured)
architecture = _of_run(model_charts.architecture)
accuracy_by_class = _of_run(model_charts.accuracy_by_class)
accuracy_predictor = _of_run(search.accuracy_predictor)
training = _of_run(search.training)
timing = _of_run(search.timing)
importance = _of_run(choices.importance)
parallel_coordinates = _of_run(choices.parallel_coordinates)
# Figures of what the caller gives, which belongs to no run.
prediction = _drawn(latency.prediction)
device_map = _drawn(latency.device_map)
bit_allocation = _drawn(bits.bit_allocation)
budget_curve = _drawn(bits.budget_curve)
