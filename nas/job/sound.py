"""The sections of a job that are valid once what is broken is left out."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Set
from typing import Annotated, Any

from pydantic import (
    BeforeValidator,
    TypeAdapter,
    ValidationError,
)
from pydantic.fields import FieldInfo

from nas.job.schema import Job


def sound_sections(
    raw: Mapping[str, Any], broken: Iterable[tuple[str | int, ...]]
) -> dict[str, Any]:
    """Return the top-level values that are valid once the broken keys are left out."""
    pruned = _without(raw, set(broken), ())
    sections: dict[str, Any] = {}
    for name, field in Job.model_fields.items():
        if name not in raw:
            if not field.is_required():
                sections[name] = field.get_default(call_default_factory=True)
        elif name in pruned:
            found = _salvaged(name, field, pruned)
            if found is not None:
                sections[name] = found
    return sections


def _salvaged(name: str, field: FieldInfo, pruned: Mapping[str, Any]) -> Any:
    """Return the section without its unsound parts, or None where nothing sound is left."""
    # What makes values of shorter ways to write them is a part of the type; limits are not.
    shorter = [one for one in field.metadata if isinstance(one, BeforeValidator)]
    kind: Any = field.annotation
    for one in shorter:
        kind = Annotated[kind, one]
    adapter: TypeAdapter[Any] = TypeAdapter(kind)
    for _ in range(3):
        try:
            return adapter.validate_python(pruned[name])
        except ValidationError as error:
            # A list with an unsound entry is left out as a whole: its places must keep fitting.
            unsound = {
                tuple(
                    itertools.takewhile(lambda step: isinstance(step, str), (name, *e["loc"][:-1]))
                )
                for e in error.errors(include_url=False)
            }
            pruned = _without(pruned, unsound, ())
            if name not in pruned:
                return None
    return None


def _without(value: Any, broken: Set[tuple[str | int, ...]], here: tuple[str | int, ...]) -> Any:
    if isinstance(value, dict):
        return {
            key: _without(item, broken, (*here, key))
            for key, item in value.items()
            if (*here, key) not in broken
        }
    if isinstance(value, list):
        # Entries keep their places, so that locations still fit the file.
        return [_without(item, broken, (*here, i)) for i, item in enumerate(value)]
    return value
