"""What an architecture is: choices, validity, sampling, encoding, layer plans. No torch.

Each name below is imported when it is first used: a measuring process needs the errors alone.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from search_spaces.errors import EnvironmentProblem, InfeasibleError, InputError, NasError
    from search_spaces.plan import FLOAT_BITS, BlockPlan, LayerPlan, NetworkPlan
    from search_spaces.space import Arch, Choice, Condition, SearchSpace
    from search_spaces.spaces.registry import SPACES, build_space

__all__ = [
    "FLOAT_BITS",
    "SPACES",
    "Arch",
    "BlockPlan",
    "Choice",
    "Condition",
    "EnvironmentProblem",
    "InfeasibleError",
    "InputError",
    "LayerPlan",
    "NasError",
    "NetworkPlan",
    "SearchSpace",
    "build_space",
]

_HOMES = {
    "errors": ("EnvironmentProblem", "InfeasibleError", "InputError", "NasError"),
    "plan": ("FLOAT_BITS", "BlockPlan", "LayerPlan", "NetworkPlan"),
    "space": ("Arch", "Choice", "Condition", "SearchSpace"),
    "spaces.registry": ("SPACES", "build_space"),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            return getattr(importlib.import_module(f"search_spaces.{home}"), name)
    raise AttributeError(f"module 'search_spaces' has no attribute {name!r}")
