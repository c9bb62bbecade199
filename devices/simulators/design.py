"""Accelerators as a choice: what may vary of a description, within bounds on area and bandwidth.

The area is that of the array and its buffers, from the figures in the description; wires, control
and the memory beyond are not in it. The bounds are those of HAO (Dong et al., FCCM 2021), which
searches bits and the size of an array together.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from devices.simulators.hardware import LONGEST_NAME, Hardware, read_hardware
from search_spaces.errors import InputError

VERSION = 1
"""Version of the format; a file of another is refused."""

Positive = Annotated[float, Field(gt=0)]
Options = Annotated[list[Any], Field(min_length=1)]


class Limits(BaseModel):
    """What a design must keep.

    Attributes:
        area_mm2: of array and buffers.
        bandwidth_gb_s: to the memory beyond.
    """

    model_config = ConfigDict(extra="forbid")
    area_mm2: Positive | None = None
    bandwidth_gb_s: Positive | None = None


class Design(BaseModel):
    """What may be built.

    Attributes:
        version: of the format.
        bases: descriptions to begin with, by name or path, such as a systolic and a bit-serial one.
        rows, columns, native_bits, clock_mhz: values they may have; by default their own.
        activation_buffer_kib, weight_buffer_kib, bandwidth_gb_s: likewise.
        formats: lists of number formats that units may be built for, of those a base describes.
        limits: what every design must keep.
    """

    model_config = ConfigDict(extra="forbid")
    version: Literal[1]
    bases: Annotated[list[str], Field(min_length=1)]
    rows: Options | None = None
    columns: Options | None = None
    native_bits: Options | None = None
    clock_mhz: Options | None = None
    activation_buffer_kib: Options | None = None
    weight_buffer_kib: Options | None = None
    bandwidth_gb_s: Options | None = None
    formats: Annotated[list[list[str]], Field(min_length=1)] | None = None
    limits: Limits = Limits()


_OWN = ("rows", "columns", "native_bits", "clock_mhz")
_MEMORY = ("activation_buffer_kib", "weight_buffer_kib", "bandwidth_gb_s")


def read_design(path: Path) -> Design:
    """Read a design from JSON.

    Raises:
        InputError: no such file, or one that is wrong; every mistake is named.
    """
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"cannot read the design {path}: {error.strerror}") from error
    except json.JSONDecodeError as error:
        raise InputError(f"{path}:{error.lineno}:{error.colno}: {error.msg}") from error
    try:
        return Design.model_validate(value)
    except ValidationError as error:
        problems = [
            f"{path}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        ]
        raise InputError("\n".join(problems)) from error


def area_mm2(hardware: Hardware) -> float:
    """Return the area of array and buffers, in square millimetres.

    A unit of ``native_bits`` takes ``(native_bits / 8)**2`` of one of 8 bits, as a multiplier does;
    one that computes in number formats as well takes what the largest of them takes.
    """
    unit = hardware.area.unit_um2 * max([1.0, *(one.area for one in hardware.formats.values())])
    if hardware.kind == "fixed":
        unit *= (hardware.native_bits / 8) ** 2
    buffers = hardware.memory.activation_buffer_kib + hardware.memory.weight_buffer_kib
    array = hardware.rows * hardware.columns * unit
    return (array + buffers * hardware.area.buffer_um2_per_kib) * 1e-6


def all_designs(design: Design) -> Iterator[Hardware]:
    """Yield every description that ``design`` allows and that keeps its limits.

    Raises:
        InputError: a value that a description cannot have, or a format that a base lacks.
    """
    for name in design.bases:
        base = read_hardware(name)
        varied = [key for key in (*_OWN, *_MEMORY) if getattr(design, key) is not None]
        formats = design.formats or [sorted(base.formats)]
        for units in formats:
            for unknown in sorted(set(units) - set(base.formats)):
                raise InputError(
                    f"{base.name} describes no units for {unknown}; name them under 'formats' in "
                    "its description"
                )
        axes = [getattr(design, key) for key in varied]
        for *values, units in itertools.product(*axes, formats):
            chosen = dict(zip(varied, values, strict=True))
            found = _changed(base, chosen, units)
            limit = design.limits
            if limit.area_mm2 is not None and area_mm2(found) > limit.area_mm2:
                continue
            if (
                limit.bandwidth_gb_s is not None
                and found.memory.bandwidth_gb_s > limit.bandwidth_gb_s
            ):
                continue
            yield found


def _short(name: str) -> str:
    """Return ``name`` in as many characters as hardware may have, of different ones different."""
    if len(name) <= LONGEST_NAME:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name[: LONGEST_NAME - 9]}-{digest}"


def _changed(base: Hardware, chosen: dict[str, Any], units: list[str]) -> Hardware:
    raw = base.model_dump()
    for key, value in chosen.items():
        (raw["memory"] if key in _MEMORY else raw)[key] = value
    raw["formats"] = {name: raw["formats"][name] for name in units}
    parts = [f"{_SHORT[key]}{value}" for key, value in chosen.items()]
    if set(units) != set(base.formats):
        parts += units or ["integers"]
    raw["name"] = _short("-".join([base.name, *parts]))
    try:
        return Hardware.model_validate(raw)
    except (ValidationError, TypeError, ValueError) as error:
        raise InputError(f"a design of {base.name} with {chosen} is none: {error}") from error


_SHORT = {
    "rows": "r",
    "columns": "c",
    "native_bits": "n",
    "clock_mhz": "f",
    "activation_buffer_kib": "a",
    "weight_buffer_kib": "w",
    "bandwidth_gb_s": "b",
}
