"""Every plot of the report and of the notebooks, as a function that returns a plotly figure.

``run`` is the folder of a finished run, or its results as :func:`nas.report.results.load_results`
gives them. What a figure shows is what :mod:`nas.report.charts` says; the report's page draws the
same. Figures need the extra ``notebooks``; importing this module does not load plotly.
"""

from __future__ import annotations

from nas.plots.runs import (
    accuracy_by_class,
    accuracy_predictor,
    architecture,
    bit_allocation,
    budget_curve,
    device_map,
    devices,
    front,
    fronts,
    hypervolume,
    importance,
    parallel_coordinates,
    predicted_vs_measured,
    prediction,
    timing,
    training,
)

__all__ = [
    "accuracy_by_class",
    "accuracy_predictor",
    "architecture",
    "bit_allocation",
    "budget_curve",
    "device_map",
    "devices",
    "front",
    "fronts",
    "hypervolume",
    "importance",
    "parallel_coordinates",
    "predicted_vs_measured",
    "prediction",
    "timing",
    "training",
]
