"""Section ``protocol``: how one latency is measured."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import operator
import re
import types
import typing
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import (
    BaseModel,
    Field,
    StrictBool,
    StrictStr,
    create_model,
)

from devices.measuring.protocol import Protocol
from nas.job.findings import Finding
from nas.job.values import Section, Whole
from search_spaces.errors import InputError


def _protocol_section() -> type[BaseModel]:
    """Return the section that sets :class:`devices.protocol.Protocol`, field by field.

    Types, defaults and descriptions are the dataclass's own, so the two cannot part. Its seed
    is the job's.
    """
    described = re.findall(
        r"^    (\w+): (.*(?:\n {8}.*)*)", inspect.getdoc(Protocol) or "", flags=re.MULTILINE
    )
    texts = {name: " ".join(text.split()) for name, text in described}
    hints = typing.get_type_hints(Protocol)
    sections: dict[str, Any] = {}
    for field in dataclasses.fields(Protocol):
        if field.name == "seed":
            continue
        kinds = [_YAML_TYPES[kind] for kind in _kinds(hints[field.name])]
        sections[field.name] = (
            functools.reduce(operator.or_, kinds),
            Field(default=field.default, description=texts.get(field.name)),
        )
    return create_model("ProtocolConfig", __base__=Section, **sections)


def _kinds(hint: Any) -> list[Any]:
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    return [typing.get_origin(h) or h for h in (typing.get_args(hint) if union else (hint,))]


_YAML_TYPES: dict[Any, Any] = {
    int: Annotated[int, Field(strict=True)],
    float: Annotated[float, Field(strict=True)],
    bool: StrictBool,
    str: StrictStr,
    tuple: list[Whole],
    type(None): None,
}


if TYPE_CHECKING:
    ProtocolConfig = Section
else:
    ProtocolConfig = _protocol_section()
"""How one latency is measured; a limit of null is not applied."""


def check_protocol(protocol: BaseModel) -> Iterator[Finding]:
    """Yield the fields that the protocol refuses, each alone."""
    for key in sorted(protocol.model_fields_set):
        try:
            Protocol.from_json({key: getattr(protocol, key)})
        except InputError as error:
            yield ("protocol", key), str(error)
