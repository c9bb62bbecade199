"""Where people look at runs: TensorBoard, MLflow, Weights & Biases, or a tool of a plug-in."""

from __future__ import annotations

from nas.trackers.base import TRACKERS, Row, TrackedRun, Tracker

__all__ = ["TRACKERS", "Row", "TrackedRun", "Tracker"]
