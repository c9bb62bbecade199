"""Spaces that are a preset, some of its parameters replaced."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any, ClassVar, TypeVar

from search_spaces.errors import InputError
from search_spaces.parameters import known_names
from search_spaces.planned import PlannedSpace

_Space = TypeVar("_Space", bound="PresetSpace")


class PresetSpace(PlannedSpace):
    """A space of networks built from one object of parameters and the sizes of the data.

    Attributes:
        NAME: registered name.
        PRESETS: named parameters.
        PRESET: the one where a job names none.
        LARGE: parameters, ascending tuples, whose last values make the largest networks.
    """

    NAME: ClassVar[str]
    PRESETS: ClassVar[Mapping[str, Any]]
    PRESET: ClassVar[str] = "32x32"
    LARGE: ClassVar[tuple[str, ...]] = ()
    parameters: Any

    @classmethod
    def from_config(
        cls: type[_Space],
        *,
        preset: str | None = None,
        input_size: tuple[int, int] | None = None,
        **rest: Any,
    ) -> _Space:
        """Build the space from a preset, some of its parameters replaced.

        Args:
            preset: of :attr:`PRESETS`.
            input_size: height and width of the data.
            rest: ``input_channels`` and ``outputs`` of the networks; parameters to replace.

        Raises:
            InputError: an unknown preset or parameter, or a value it cannot take.
        """
        sizes = {name: rest.pop(name) for name in ("input_channels", "outputs") if name in rest}
        make: Any = cls
        space: _Space = make(cls.parameters_of(preset, rest), input_size=input_size, **sizes)
        return space

    @classmethod
    def parameters_of(cls, preset: str | None, overrides: Mapping[str, Any]) -> Any:
        """Return a preset with some parameters replaced; lists become tuples.

        Raises:
            InputError: an unknown preset or parameter.
        """
        preset = preset or cls.PRESET
        if preset not in cls.PRESETS:
            raise InputError(f"unknown preset {preset!r} (available: {', '.join(cls.PRESETS)})")
        base = cls.PRESETS[preset]
        known_names(cls.NAME, overrides, ["preset", *(f.name for f in fields(base))])
        return replace(
            base, **{k: tuple(v) if isinstance(v, list) else v for k, v in overrides.items()}
        )
