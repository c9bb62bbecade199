"""The kinds of value that a job may hold, and the base of its sections."""

from __future__ import annotations

from typing import Annotated

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
)

Whole = Annotated[int, Field(strict=True, ge=0)]


Positive = Annotated[int, Field(strict=True, ge=1)]


Real = Annotated[float, Field(strict=True)]


NonNegative = Annotated[float, Field(strict=True, ge=0)]


AboveZero = Annotated[float, Field(strict=True, gt=0)]


Share = Annotated[float, Field(strict=True, gt=0, lt=1)]


Probability = Annotated[float, Field(strict=True, ge=0, le=1)]


Name = Annotated[str, Field(strict=True, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=64)]


Bits = Annotated[int, Field(strict=True, ge=1, le=32)]


def _count_or_share(value: float) -> float:
    # 1.0 could be meant as everything or as one image, and neither is of any use.
    if not 0 < value < 1 and (value < 2 or value != int(value)):
        raise ValueError(
            "must be a share between 0 and 1, such as 0.1, or a whole number of images, at least 2"
        )
    return float(value) if value < 1 else int(value)


CountOrShare = Annotated[float, Field(strict=True), AfterValidator(_count_or_share)]


class Section(BaseModel):
    """A part of a job: no other keys than those declared, and no value changes."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True
    )
