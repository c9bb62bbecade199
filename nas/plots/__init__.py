"""Every plot of the report and of the notebooks, as a function that returns a plotly figure.

``run`` is the folder of a finished run, or its results as :func:`nas.report.results.load_results`
gives them. Figures need the extra ``notebooks``; importing this module does not load plotly.
Colours are Okabe and Ito's, which colour-blind readers tell apart; marks differ in shape too.
"""

from __future__ import annotations

from nas.plots.bits import bit_allocation, budget_curve
from nas.plots.front import devices, front, fronts
from nas.plots.latency import device_map, predicted_vs_measured, prediction
from nas.plots.model import accuracy_by_class, architecture
from nas.plots.search import (
    accuracy_predictor,
    hypervolume,
    importance,
    parallel_coordinates,
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
