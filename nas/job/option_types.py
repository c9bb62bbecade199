"""Whether options of a part are of the types that its factory is annotated with.

A source, strategy, executor or tracker is a function or class with keywords; those a job may set. A
wrong type is told with the job, at its line, not in the middle of a run by the part that meets it.
"""

from __future__ import annotations

import inspect
import sys
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.errors import PydanticSchemaGenerationError, PydanticUserError

from nas.job.findings import Finding, dotted, nearest, shown

_WORDS = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    dict: "a mapping",
    list: "a list",
}


def wrong_options(
    at: tuple[str | int, ...],
    options: Mapping[str, Any],
    make: Any,
    what: str,
    *,
    own: Sequence[str],
) -> Iterator[Finding]:
    """Yield the options that a factory does not take, or takes with another type.

    Args:
        at: place of the options in the job.
        options: as the job says them.
        make: the factory.
        what: it makes, in words.
        own: its parameters that are set by the framework.
    """
    accepted = inspect.signature(make).parameters
    if any(p.kind is p.VAR_KEYWORD for p in accepted.values()):
        return
    known = [key for key in accepted if key not in ("self", *own)]
    for key in options:
        if key not in known:
            told = f"options: {', '.join(known)}" if known else "it has none"
            yield (
                (*at, key),
                f"{dotted(at)}: unknown option {key!r} of {what}{nearest(key, known)} ({told})",
            )
        elif (problem := _type_problem(make, key, options[key])) is not None:
            yield (*at, key), f"{dotted((*at, key))}: {problem}"


def _type_problem(make: Any, key: str, value: Any) -> str | None:
    """Return what is wrong with the type of an option, such as ``'8' is not a whole number``.

    Args:
        make: the factory; an annotation that says no type of YAML is not checked.
        key: the option.
        value: as YAML holds it.
    """
    hint = _hint(make, key)
    if hint is None:
        return None
    try:
        TypeAdapter(hint).validate_python(value, strict=True)
    except (PydanticSchemaGenerationError, PydanticUserError):
        return None
    except ValidationError as error:
        places = [each["loc"] for each in error.errors(include_url=False)]
        kinds = [kind for kind in _kinds(hint) if kind is not type(None)]
        items = [kind for kind in kinds if _item(kind) is not None]
        if items and isinstance(value, list):
            place = next((step for loc in places for step in loc if isinstance(step, int)), 0)
            told = _told([_item(items[0])])
            fix = f"; write '{value[place]}'" if _is_text_meant(items[0], value[place]) else ""
            return f"{shown(value[place])} is not {told}{fix}"
        fix = f"; write [{value}]" if items and isinstance(value, (str, int, float)) else ""
        if str in kinds and isinstance(value, (int, float)) and not isinstance(value, bool):
            fix = f"; write '{value}'"
        return f"{shown(value)} is not {_told(kinds)}{fix}"
    if isinstance(value, list):
        twice = [item for i, item in enumerate(value) if item in value[:i]]
        if twice:
            return f"{shown(twice[0])} is there twice"
    return None


def _hint(make: Any, key: str) -> Any:
    """Return the type of a keyword, or None where none can be told."""
    annotation = inspect.signature(make).parameters[key].annotation
    if annotation is inspect.Parameter.empty:
        return None
    where = vars(sys.modules[make.__module__])
    try:
        # One annotation at a time: others may name what is imported for type checkers alone.
        only = types.SimpleNamespace(__annotations__={key: annotation})
        return typing.get_type_hints(only, globalns=where)[key]
    except (NameError, AttributeError, TypeError):
        return None


def _kinds(hint: Any) -> Sequence[Any]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return typing.get_args(hint) if union else (hint,)


def _item(kind: Any) -> Any:
    """Return what a list holds, and None for what is no list."""
    origin = typing.get_origin(kind)
    found = typing.get_args(kind)
    listed = isinstance(origin, type) and issubclass(origin, Sequence)
    return found[0] if listed and found else None


def _is_text_meant(kind: Any, value: Any) -> bool:
    return _item(kind) is str and isinstance(value, (int, float))


def _told(kinds: Sequence[Any]) -> str:
    return " or ".join(dict.fromkeys(_words(kind) for kind in kinds))


def _words(kind: Any) -> str:
    item = _item(kind)
    if item is not None:
        plural = {str: "texts", int: "whole numbers", float: "numbers"}
        return f"a list of {plural.get(item, 'values')}"
    origin = typing.get_origin(kind)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return _WORDS[dict]
    if origin is typing.Literal:
        return " or ".join(map(repr, typing.get_args(kind)))
    return _WORDS.get(kind, getattr(kind, "__name__", str(kind)))
