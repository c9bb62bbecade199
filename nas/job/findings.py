"""What is wrong with a job, in words: where, what it is near, and what may stand there."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from nas.job.registries import registry_for

Finding = tuple[tuple["str | int", ...], str]
"""A location in the job and what is wrong there."""


def unknown_name(key: str, at: tuple[str | int, ...], name: str) -> Iterator[Finding]:
    """Yield that ``name`` is not in the registry of ``key``, with what is."""
    registry = registry_for(key)
    if name in registry:
        return
    if name in registry.broken:
        yield at, f"{dotted(at)}: {registry.broken[name]}"
    else:
        known = registry.names()
        yield (
            at,
            f"{dotted(at)}: unknown {registry.kind} {name!r}{nearest(name, known)} "
            f"(available: {', '.join(known)})",
        )


def unknown_key(location: tuple[str | int, ...], allowed: Sequence[str]) -> str:
    """Return what to say of a key that is none of ``allowed``."""
    parent = dotted(location[:-1])
    where = f" in {parent}" if parent else ""
    return (
        f"unknown key {str(location[-1])!r}{where}{nearest(location[-1], allowed)} "
        f"(allowed: {', '.join(allowed)})"
    )


def nearest(word: Any, known: Iterable[Any]) -> str:
    """Return a question for the known word that ``word`` may be a slip of, or nothing."""
    near = difflib.get_close_matches(str(word), [str(k) for k in known], n=1)
    return f"; did you mean {near[0]!r}?" if near else ""


def dotted(location: Iterable[str | int]) -> str:
    """Return a location as text: search.objectives.0."""
    return ".".join(map(str, location))


def shown(value: Any) -> str:
    """Return a value as it is shown in a message."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (dict, list)):
        return kind_of(value)
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def kind_of(value: Any) -> str:
    """Return what a value of YAML is called: a mapping, a list, text ..."""
    names = {dict: "a mapping", list: "a list", str: "text", bool: "true or false"}
    return names.get(type(value), "a number" if isinstance(value, (int, float)) else "nothing")
