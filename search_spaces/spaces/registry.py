"""The registry of search spaces.

A registered space is a class with ``from_config(*, preset, input_channels, outputs,
**overrides)``; other packages add theirs through the entry point ``nas.search_spaces``. A
function of a module that Python can import needs no registration: ``my_module:make_space``.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Collection, Mapping
from typing import Any

from search_spaces.errors import InputError
from search_spaces.registry import Registry
from search_spaces.seeds import seeded
from search_spaces.space import SearchSpace

SPACES: Registry[type[SearchSpace]] = Registry(
    "search space",
    group="nas.search_spaces",
    modules=(
        "search_spaces.spaces.autoencoder",
        "search_spaces.spaces.decoder",
        "search_spaces.spaces.dense",
        "search_spaces.spaces.encoder_decoder",
        "search_spaces.spaces.hybrid",
        "search_spaces.spaces.mobilenet",
        "search_spaces.spaces.nasbench201",
        "search_spaces.spaces.resnet",
        "search_spaces.spaces.signal",
        "search_spaces.spaces.tokens",
        "search_spaces.spaces.vit",
    ),
)


def build_space(name: str, *, generator_seed: int = 0, **config: Any) -> SearchSpace:
    """Return the space called ``name``, built from its configuration.

    Args:
        name: a registered name, or ``module:function`` of a function that takes
            ``input_channels`` and ``outputs`` (3 and 10 unless they are in ``config`` or have
            defaults) and the other keys of ``config``, and returns a space. The module is looked
            for in the current folder, too.
        generator_seed: by which such a function draws random numbers, the weights of a module among
            them; the module itself is imported under seed 0.
        config: parameters of the space.

    Raises:
        InputError: an unknown name, parameter or value; a module that cannot be imported.
    """
    if ":" not in name:
        return SPACES.get(name).from_config(**config)  # type: ignore[attr-defined]
    function = _function(name)
    with seeded(generator_seed, "own space"):
        known = inspect.signature(function).parameters
        unsaid = {
            name: value
            for name, value in {"input_channels": 3, "outputs": 10}.items()
            if name not in known or known[name].default is inspect.Parameter.empty
        }
        space = function(**{**unsaid, **config})
    if not isinstance(space, SearchSpace):
        raise InputError(f"{name} returned a {type(space).__name__}, not a search space")
    return space


def takes_input_size(name: str) -> bool:
    """Whether the space called ``name`` builds networks for inputs of other than square shape.

    Raises:
        InputError: an unknown name, or a module that cannot be imported.
    """
    make = _function(name) if ":" in name else SPACES.get(name).from_config  # type: ignore[attr-defined]
    return "input_size" in inspect.signature(make).parameters


def refuse_parameters(
    space: str, parameters: Mapping[str, Any], *, allowed: Collection[str]
) -> None:
    """Raise InputError for a parameter that the space called ``space`` does not have."""
    unknown = sorted(set(parameters) - set(allowed))
    if unknown:
        known = ", ".join(allowed) or "none"
        raise InputError(f"the space {space!r} has no parameter {unknown[0]!r} (it has {known})")


def _function(name: str) -> Any:
    module_name, _, attribute = name.partition(":")
    if "" not in sys.path:
        # The command line has its own folder first on the path, not the current one.
        sys.path.append("")
    try:
        # A module may build its network as it is imported, by whichever process does so first.
        with seeded(0, "import", module_name):
            module = importlib.import_module(module_name)
    except ImportError as error:
        hint = (
            f"a module is named without its ending: {module_name.removesuffix('.py')}:{attribute}"
            if module_name.endswith(".py")
            else f"call nas in the folder of {module_name.split('.')[0]}, or install it"
        )
        raise InputError(f"space {name!r}: {error}; {hint}") from error
    except SyntaxError as error:
        raise InputError(f"space {name!r}: {error.filename}:{error.lineno}: {error.msg}") from error
    if not callable(getattr(module, attribute, None)):
        raise InputError(f"space {name!r}: {module_name} has no function {attribute!r}")
    return getattr(module, attribute)
