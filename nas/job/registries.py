"""The registries that know the names a job may hold."""

from __future__ import annotations

import importlib
from typing import Any

from search_spaces.registry import Registry

REGISTRIES: dict[str, tuple[str, str]] = {
    "task": ("nas.tasks", "TASKS"),
    "data.name": ("nas.data.sources", "DATA_SOURCES"),
    "space.name": ("search_spaces.spaces.registry", "SPACES"),
    "supernet.schedule": ("supernet.training.schedules", "SCHEDULES"),
    "search.strategy": ("nas.strategies", "STRATEGIES"),
    "executor": ("nas.executors", "EXECUTORS"),
    "latency.predictor": ("predictors.transfer_gp.predictor", "LATENCY_PREDICTORS"),
    "devices.runtime": ("devices.runtime", "RUNTIMES"),
    "tracking": ("nas.trackers", "TRACKERS"),
    "export.formats": ("nas.models.formats.base", "FORMATS"),
}
"""Key of the job -> module and name of the registry that knows its values."""


def registry_for(key: str) -> Registry[Any]:
    """Return the registry of the names that ``key`` may hold."""
    module, name = REGISTRIES[key]
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry
