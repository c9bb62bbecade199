"""Spaces by the name a table or a file gives them, and spaces as JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Union

from search_spaces.errors import InputError
from search_spaces.nasbench201 import NasBench201
from search_spaces.space import SearchSpace
from search_spaces.spaces import SPACES, build_space
from search_spaces.tokens import TokensSpace

SpaceOrFactory = Union[SearchSpace, Callable[[Sequence[str]], SearchSpace]]


def table_space(name: str) -> SpaceOrFactory:
    """Return what :func:`search_spaces.table.read_table` takes for a space of this name.

    ``tokens`` is inferred from the architecture column, ``nasbench201`` is built in, any other
    name is looked up among the registered spaces with their default configuration.

    Raises:
        InputError: there is no space of that name.
    """
    if name == "tokens":
        return TokensSpace.infer
    if name == "nasbench201":
        return NasBench201()
    if name not in SPACES:
        known = ", ".join(sorted({"tokens", "nasbench201", *SPACES.names()}))
        raise InputError(f"unknown search space {name!r} (available: {known})")
    return build_space(name)


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
    built = table_space(spec["name"]) if space is None else space
    if space_to_json(built)["choices"] != spec["choices"]:  # type: ignore[arg-type]
        raise InputError(
            f"the file is about a space {spec['name']!r} with other choices; "
            "pass the space it was made with"
        )
    return built  # type: ignore[return-value]
