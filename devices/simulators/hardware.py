"""Descriptions of accelerators for the roofline: versioned JSON, ours or the user's."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from search_spaces.errors import InputError
from search_spaces.number_formats import number_format

LONGEST_NAME = 64
"""Characters that the name of an accelerator may have."""

VERSION = 1
"""Version of the format; a description of another is refused."""

Positive = Annotated[float, Field(gt=0)]
NotNegative = Annotated[float, Field(ge=0)]
Whole = Annotated[int, Field(ge=1)]


class Memory(BaseModel):
    """On-chip buffers and what lies beyond.

    Attributes:
        activation_buffer_kib: activations of a layer that fit (input and output together)
            never leave the chip.
        weight_buffer_kib: weights of a layer that fit are fetched once; of others, the inputs
            are fetched again for each part.
        bandwidth_gb_s: to the memory beyond, 10^9 bytes a second.
        resident_weights: the weights of the whole network stay on the chip.
    """

    model_config = ConfigDict(extra="forbid")
    activation_buffer_kib: NotNegative
    weight_buffer_kib: NotNegative
    bandwidth_gb_s: Positive
    resident_weights: bool = False


class Energy(BaseModel):
    """Energies of the parts.

    Attributes:
        mac_pj: a multiply-accumulate of 8 x 8 bits.
        buffer_pj_per_byte, memory_pj_per_byte: moving a byte on the chip, and beyond.
        static_mw: drawn all the time.
    """

    model_config = ConfigDict(extra="forbid")
    mac_pj: NotNegative
    buffer_pj_per_byte: NotNegative
    memory_pj_per_byte: NotNegative
    static_mw: NotNegative = 0.0


class Area(BaseModel):
    """Areas of the parts, for designs.

    Attributes:
        unit_um2: of a unit of 8 x 8 bits with its accumulator. The default is a multiplier of 8
            and an adder of 32 bits at 45 nm (Horowitz, ISSCC 2014).
        buffer_um2_per_kib: of memory on the chip; the default is cells of 0.374 um2, of which an
            array at 45 nm is 60 %.
    """

    model_config = ConfigDict(extra="forbid")
    unit_um2: Positive = 419.0
    buffer_um2_per_kib: Positive = 5100.0


class FormatUnit(BaseModel):
    """What arithmetic in a number format costs beside that of 8 x 8 bit integers.

    Attributes:
        energy: of a multiply-accumulate, times that of integers.
        products: of one unit in a cycle, against the 1 of 8 x 8 bits.
        area: of a unit, times that of integers.
    """

    model_config = ConfigDict(extra="forbid")
    energy: Positive = 1.0
    products: Positive = 1.0
    area: Positive = 1.0


class Hardware(BaseModel):
    """An accelerator as the roofline sees it.

    Attributes:
        version: of the format.
        name, description: for people; the description names the source of the figures.
        kind: how arithmetic depends on bits. ``fixed``: units of ``native_bits``; fewer bits
            gain nothing, more take several passes. ``fusion``: units of 2-bit bricks that
            recombine, so that 4 x 4 bits run four times as often as 8 x 8 (Sharma et al., Bit
            Fusion, ISCA 2018). ``serial_activations``: one bit of the activations a cycle
            (Judd et al., Stripes, MICRO 2016). ``serial``: one bit of both (Sharify et al.,
            Loom, DAC 2018).
        rows: units along a product's inner axis. ``columns``: units along output channels.
        depthwise_columns: groups of a depthwise convolution computed side by side; 1 where
            the array has no way to.
        clock_mhz: of the array.
        native_bits: of a ``fixed`` unit.
        layer_overhead_us: set-up of each layer.
        area: of the parts.
        formats: name of a number format -> its units. Formats whose values are small whole
            numbers run on units of integers where they have none of their own; others cannot
            run.
    """

    model_config = ConfigDict(extra="forbid")
    version: int
    name: Annotated[str, Field(pattern=rf"^[\w.+-]{{1,{LONGEST_NAME}}}$")]
    description: str = ""
    kind: Literal["fixed", "fusion", "serial_activations", "serial"]
    rows: Whole
    columns: Whole
    depthwise_columns: Whole = 1
    clock_mhz: Positive
    native_bits: Whole = 8
    layer_overhead_us: NotNegative = 0.0
    memory: Memory
    energy: Energy
    area: Area = Area()
    formats: dict[str, FormatUnit] = {}

    @field_validator("formats")
    @classmethod
    def _known(cls, value: dict[str, FormatUnit]) -> dict[str, FormatUnit]:
        for name in value:
            try:
                number_format(name)
            except InputError as error:
                raise ValueError(str(error)) from error
        return value


def built_in_hardware() -> list[str]:
    """Return the names of the descriptions in the package."""
    folder = resources.files("devices.simulators").joinpath("hardware")
    return sorted(entry.name[:-5] for entry in folder.iterdir() if entry.name.endswith(".json"))


def read_hardware(name: str | Path) -> Hardware:
    """Return a description: one of the package's by name, or a JSON file by path.

    Raises:
        InputError: there is none, or the file is wrong; every mistake is named.
    """
    if str(name) in built_in_hardware():
        folder = resources.files("devices.simulators").joinpath("hardware")
        text = folder.joinpath(f"{name}.json").read_text(encoding="utf-8")
    elif str(name).endswith(".json"):
        try:
            text = Path(name).read_text(encoding="utf-8")
        except OSError as error:
            raise InputError(
                f"cannot read the hardware description {name}: {error.strerror}"
            ) from error
    else:
        raise InputError(
            f"unknown hardware {str(name)!r} (in the package: {', '.join(built_in_hardware())}; "
            f"or give the path of a .json description)"
        )
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{name}:{error.lineno}:{error.colno}: {error.msg}") from error
    found = value.get("version") if isinstance(value, dict) else None
    if found != VERSION:
        raise InputError(
            f"{name}: the description has version {found!r}; this program reads {VERSION}"
        )
    try:
        return Hardware.model_validate(value)
    except ValidationError as error:
        problems = [
            f"{name}: {'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors()
        ]
        raise InputError("\n".join(problems)) from error
