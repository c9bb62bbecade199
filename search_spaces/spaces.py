"""The registry of search spaces.

A registered space is a class with ``from_config(*, preset, input_channels, outputs,
**overrides)``; other packages add theirs through the entry point ``nas.search_spaces``.
"""

from __future__ import annotations

from typing import Any

from search_spaces.registry import Registry
from search_spaces.space import SearchSpace

SPACES: Registry[type[SearchSpace]] = Registry("search space", group="nas.search_spaces")


def build_space(name: str, **config: Any) -> SearchSpace:
    """Return the space registered as ``name``, built from its configuration.

    Raises:
        InputError: an unknown name, parameter or value.
    """
    return SPACES.get(name).from_config(**config)  # type: ignore[attr-defined]
