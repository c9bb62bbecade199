"""Keys that take values of several kinds, such as true, false or a word.

Of such a key pydantic tells what each kind finds wrong with the value, under a name of its own
that stands in no file. Here they become what a person would say: what is wrong inside the kind
that the value has, or once that it has none of them.
"""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from pydantic import BaseModel

NONE_OF_KINDS = "none_of_kinds"
"""Type of the finding that a value is of no kind that its key takes; the context has ``kinds``."""

KEY = "[key]"
"""What pydantic adds to the place of a key that is itself wrong."""


@dataclass(frozen=True)
class Wrong:
    """Something wrong with a value.

    Attributes:
        place: where it stands in the file.
        kind: pydantic's type of the error, or ``NONE_OF_KINDS``.
        value: what stands there.
        context: further facts by name, such as a limit.
        text: pydantic's words, for kinds of error that have none of ours.
    """

    place: tuple[str | int, ...]
    kind: str
    value: Any
    context: typing.Mapping[str, Any]
    text: str = ""


def wrong_values(errors: Iterable[Any], schema: type[BaseModel]) -> Iterator[Wrong]:
    """Yield pydantic's ``errors`` about a value of ``schema`` at their places in the file."""
    several: dict[tuple[str | int, ...], list[tuple[Wrong, Any]]] = {}
    for details in errors:
        place, union = _place(details["loc"], schema)
        key = KEY in details["loc"][:-1]  # a key of several kinds, told once as such
        kind = "invalid_key" if key else details["type"]
        one = Wrong(place, kind, details["input"], details.get("ctx", {}), details["msg"])
        if union is None:
            yield one
        else:
            several.setdefault(union[0], []).append((one, union[1]))
    for at, found in several.items():
        # What a kind that the value has finds wrong, inside it or with its size.
        within = {
            one.place: one for one, _ in found if one.place != at or not _another_kind(one.kind)
        }
        if within:
            yield from within.values()
        else:
            one, hint = found[0]
            yield Wrong(at, NONE_OF_KINDS, one.value, {"kinds": members(hint)})


def members(hint: Any) -> list[Any]:
    """Return the kinds that a type allows: those of a union, without null; otherwise itself."""
    hint = _bare(hint)
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return [_bare(one) for one in typing.get_args(hint) if one is not type(None)]
    return [hint]


def words(kinds: Iterable[Any]) -> list[str]:
    """Return what values of ``kinds`` are called in a file, or the values themselves."""
    said: list[str] = []
    for kind in kinds:
        origin = typing.get_origin(kind) or kind
        if kind is bool:
            said += ["true", "false"]
        elif origin is typing.Literal:
            said += map(str, typing.get_args(kind))
        elif origin is list:
            said.append("a list")
        elif origin is dict or (inspect.isclass(kind) and issubclass(kind, BaseModel)):
            said.append("a mapping of keys to values")
        elif kind in (int, float):
            said.append("a number")
        else:
            said.append("text")
    return said


def _place(
    loc: Iterable[str | int], schema: Any
) -> tuple[tuple[str | int, ...], tuple[tuple[str | int, ...], Any] | None]:
    """Return the place that pydantic's location means, and of its first union place and type."""
    place: list[str | int] = []
    first: tuple[tuple[str | int, ...], Any] | None = None
    hint: Any = schema
    for step in loc:
        if step == KEY:
            break  # what follows are kinds that a key may have
        kinds = members(hint)
        tried = next((k for k in kinds if len(kinds) > 1 and _tag(k, step)), None)
        if tried is not None:
            first = first or (tuple(place), hint)
            hint = tried
            continue
        place.append(step)
        hint = _below(kinds[0], step)
    return tuple(place), first


def _another_kind(error: str) -> bool:
    """Whether an error of pydantic's says that a value is of another kind."""
    return error.endswith("_type") or error == "literal_error"


def _below(kind: Any, step: str | int) -> Any:
    """Return the type of what stands at ``step`` of a value of ``kind``, or None if unknown."""
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        field = kind.model_fields.get(str(step))
        return None if field is None else field.annotation
    inner = typing.get_args(kind)
    return inner[-1] if inner else None


def _tag(kind: Any, step: str | int) -> bool:
    """Whether pydantic calls ``kind`` by ``step``."""
    origin = typing.get_origin(kind)
    name = "literal" if origin is typing.Literal else getattr(origin or kind, "__name__", "")
    return isinstance(step, str) and (step == name or (origin and step.startswith(f"{name}[")))


def _bare(hint: Any) -> Any:
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Annotated else hint
