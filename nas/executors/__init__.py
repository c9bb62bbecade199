"""Where candidates are worked on: in this process, in several, or on a Ray cluster."""

from __future__ import annotations

from nas.executors import local, processes, ray
from nas.executors.base import EXECUTORS, Executor, Work

__all__ = ["EXECUTORS", "Executor", "Work", "local", "processes", "ray"]
