"""Figures of a run: each is the chart of the same name in :mod:`nas.report.charts`, by plotly."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from nas.plots.figure import figure
from nas.report.charts import choices, latency, search
from nas.report.charts import front as front_charts
from nas.report.charts import model as model_charts
from nas.report.rows import Rows

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

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


def front(
    run: Run, *, cost: str | None = None, split: str = "test", evaluations: bool = True
) -> Figure:
    """Draw the front of a run: accuracy against a cost, 95 % intervals, budgets, the knee.

    Args:
        run: folder or results.
        cost: ``latency_ms[DEVICE]``, ``size_kib`` or a cost such as ``weights_kib`` or ``macs``;
            by default the latency on the first device.
        split: ``test``, or ``validation``, which guided the search.
        evaluations: draw the evaluations of the search as small dots too.

    Raises:
        InputError: an unknown split, or a cost that no verified model has.
        MissingExtraError: plotly is not installed.
    """
    return figure(front_charts.front(rows_of(run), cost=cost, split=split, evaluations=evaluations))


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


def devices(run: Run, *, split: str = "test") -> Figure:
    """Draw the front of one run against its latency on each of its devices, one series each.

    Raises:
        InputError: an unknown split, or a run without a device.
        MissingExtraError: plotly is not installed.
    """
    return figure(front_charts.devices(rows_of(run), split=split))


def predicted_vs_measured(run: Run, *, device: str | None = None) -> Figure:
    """Draw what was predicted against what was measured on a device of a run.

    Verified models, measured after the predictor was fitted, are told apart from the samples
    it may have been fitted on. Bars are 95 % intervals of either value.

    Raises:
        InputError: no such device, or no pair was recorded for it.
        MissingExtraError: plotly is not installed.
    """
    return figure(latency.predicted_vs_measured(rows_of(run), device=device))


def architecture(run: Run, model: str = "knee") -> Figure:
    """Draw a model layer by layer: channels, kernel and bits.

    A bar is a layer, as long as its output channels, coloured by the bits of its weights.

    Args:
        run: folder or results.
        model: id of a verified model, or ``knee``.

    Raises:
        InputError: no such model, or its layers were not recorded.
        MissingExtraError: plotly is not installed.
    """
    return figure(model_charts.architecture(rows_of(run), model))


def accuracy_by_class(run: Run, model: str = "knee") -> Figure:
    """Draw the test accuracy of a model of the front for each class.

    Raises:
        InputError: no such model, or no accuracies by class were recorded.
        MissingExtraError: plotly is not installed.
    """
    return figure(model_charts.accuracy_by_class(rows_of(run), model))


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


def accuracy_predictor(run: Run) -> Figure:
    """Draw how well the accuracy predictor ranked candidates, over evaluations.

    Raises:
        InputError: nothing was recorded.
        MissingExtraError: plotly is not installed.
    """
    return figure(search.accuracy_predictor(rows_of(run)))


def training(run: Run) -> Figure:
    """Draw the loss of the supernet over its training.

    Raises:
        InputError: nothing was recorded.
        MissingExtraError: plotly is not installed.
    """
    return figure(search.training(rows_of(run)))


def timing(run: Run) -> Figure:
    """Draw how long each stage of a run took.

    Raises:
        InputError: nothing was recorded.
        MissingExtraError: plotly is not installed.
    """
    return figure(search.timing(rows_of(run)))


def importance(
    run: Run, *, metric: str | None = None, by: str = "families", most: int = choices.MOST_BARS
) -> Figure:
    """Draw the share of a metric's variance that each choice explains alone.

    The line across a bar is what chance reaches in 5 % of shuffles; see
    :mod:`nas.report.importance` for the method.

    Args:
        run: folder or results.
        metric: the task's metric (default), ``latency_ms[DEVICE]``, ``weights_kib`` or ``macs``.
        by: ``families`` (kinds of choice) or ``choices``.
        most: bars.

    Raises:
        InputError: an unknown metric or level, or evaluations without choices.
        MissingExtraError: plotly is not installed.
    """
    return figure(choices.importance(rows_of(run), metric=metric, by=by, most=most))


def parallel_coordinates(run: Run) -> Figure:
    """Draw every evaluation as a line through its choices, costs and accuracy.

    Drag along an axis to keep only the evaluations of that range.

    Raises:
        InputError: no evaluations, or fewer than two axes that vary.
        MissingExtraError: plotly is not installed.
    """
    return figure(choices.parallel_coordinates(rows_of(run)))
