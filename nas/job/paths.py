"""Paths inside a job: which keys are one, and what they are relative to."""

from __future__ import annotations

import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol, TypeVar, cast, runtime_checkable

from pydantic import BaseModel, StrictStr
from pydantic.fields import FieldInfo

AnyModel = TypeVar("AnyModel", bound=BaseModel)


def absolute(path: str, folder: Path) -> str:
    """Return ``path``, which is relative to ``folder``, as an absolute one; ``~`` is the home."""
    return str((folder / Path(path).expanduser()).resolve())


@dataclass(frozen=True)
class JobPath:
    """Marks a key that holds a path relative to the job file.

    Attributes:
        resolve: (text of the key, folder of the job file) -> the text that a loaded job has.
    """

    resolve: Callable[[str, Path], str] = absolute


def network_file(model: str, folder: Path) -> str:
    """Return the name of a network, the file in it absolute, if one is named.

    Args:
        model: a file.py:callable or an ONNX file; module:callable, torchvision.models:NAME and
            timm:NAME stay as they are.
        folder: that files are relative to.
    """
    place, _, function = model.rpartition(":")
    if model.endswith(".onnx"):
        return absolute(model, folder)
    return f"{absolute(place, folder)}:{function}" if place.endswith(".py") else model


def network_files(parameters: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Return ``model`` and ``weights`` of ``parameters``, where they are given, made absolute."""
    found: dict[str, Any] = {}
    model, weights = parameters.get("model"), parameters.get("weights")
    if isinstance(model, str):
        found["model"] = network_file(model, folder)
    if isinstance(weights, str):
        found["weights"] = absolute(weights, folder)
    return found


@runtime_checkable
class OwnPaths(Protocol):
    """A section that knows itself which of its values are paths."""

    def with_own_paths(self, folder: Path) -> BaseModel:
        """Return the section with its paths, relative to ``folder``, made absolute."""
        ...


RelativePath = Annotated[StrictStr, JobPath()]
"""A path relative to the job file, absolute once the job is loaded."""


def with_absolute_paths(section: AnyModel, folder: Path) -> AnyModel:
    """Return ``section`` with every marked key, at any depth, resolved against ``folder``."""
    if isinstance(section, OwnPaths):
        return cast(AnyModel, section.with_own_paths(folder))
    changed: dict[str, Any] = {}
    for name, field in type(section).model_fields.items():
        value = getattr(section, name)
        found = _resolved(value, marker_of(field), folder)
        if found != value:
            changed[name] = found
    return section.model_copy(update=changed) if changed else section


def _resolved(value: Any, marker: JobPath | None, folder: Path) -> Any:
    if isinstance(value, BaseModel):
        return with_absolute_paths(value, folder)
    if isinstance(value, list):
        return [_resolved(item, marker, folder) for item in value]
    return marker.resolve(value, folder) if marker and isinstance(value, str) else value


def marker_of(field: FieldInfo) -> JobPath | None:
    """Return the mark of a field, whether of its type or of a part of a union or list."""
    found = [item for item in field.metadata if isinstance(item, JobPath)]
    return found[0] if found else _of_type(field.annotation)


def _of_type(hint: Any) -> JobPath | None:
    for item in getattr(hint, "__metadata__", ()):
        if isinstance(item, JobPath):
            return item
    inner = (_of_type(part) for part in typing.get_args(hint))
    return next((marker for marker in inner if marker is not None), None)
