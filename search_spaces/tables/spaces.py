"""Spaces by the name a table or a file gives them, and spaces as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Union

from search_spaces.errors import InputError
from search_spaces.space import SearchSpace
from search_spaces.spaces.registry import SPACES, build_space
from search_spaces.spaces.tokens import TokensSpace

SpaceOrFactory = Union[SearchSpace, Callable[[Sequence[str]], SearchSpace]]


def table_space(name: str, *, preset: str | None = None) -> SpaceOrFactory:
    """Return what :func:`search_spaces.tables.table.read_table` takes for a space of this name.

    A space that can be inferred from architectures (``tokens``) is; any other registered name,
    or ``module:function``, is built with its default configuration or a preset of it.

    Raises:
        InputError: there is no space or preset of that name.
    """
    config: dict[str, Any] = {} if preset is None else {"preset": preset}
    if ":" not in name:
        infer = getattr(SPACES.get(name), "infer", None)
        if infer is not None and preset is None:
            return infer
    return build_space(name, **config)


def space_to_json(space: SearchSpace) -> dict[str, Any]:
    """Describe a space so that :func:`space_from_json` can rebuild or check it."""
    choices = [[choice.name, list(choice.options)] for choice in space.choices]
    out: dict[str, Any] = {"name": space.name, "choices": choices}
    if isinstance(space, TokensSpace):
        out["lengths"] = list(space.lengths)
    return out


def space_from_json(spec: dict[str, Any], space: SearchSpace | None = None) -> SearchSpace:
    """Return the space of a description.

    Args:
        space: use this one, after checking that it has the same choices; needed for a
            registered space that was not built with its default configuration.

    Raises:
        InputError: the choices differ from the description's.
    """
    if space is None and spec["name"] == "tokens":
        positions = [options for name, options in spec["choices"] if name != "length"]
        return TokensSpace(positions, lengths=spec["lengths"])
    for built in _candidates(spec["name"]) if space is None else [space]:
        if space_to_json(built)["choices"] == spec["choices"]:
            return built
    raise InputError(
        f"the file is about a space {spec['name']!r} with other choices; "
        "pass the space it was made with"
    )


def _candidates(name: str) -> Iterator[SearchSpace]:
    """The space of a name with its default configuration, then with each preset."""
    if ":" in name:
        return  # a function of a module: a file may not decide what code runs
    yield build_space(name)
    for preset in getattr(SPACES.get(name), "PRESETS", ()):
        yield build_space(name, preset=preset)
