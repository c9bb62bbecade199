"""The files that a model of texts has beside the one that reads everything at once."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search_spaces.plan import NetworkPlan

ENCODE, DECODE = "encode", "decode"
"""Which of an architecture's files it is: ``ID-encode.onnx`` reads a source, ``ID-decode.onnx``
gives a token more."""

PARTS = (ENCODE, DECODE)


def part_path(model: Path, part: str) -> Path:
    """Return where the file of a part lies beside the file ``model`` of the whole."""
    return model.with_name(f"{model.stem}-{part}.onnx")


def parts_of(plan: NetworkPlan) -> tuple[str, ...]:
    """Return the parts that a network is exported in, beside the whole."""
    kinds = {block.kind for block in plan.blocks}
    if "cross_decoder" in kinds:
        return PARTS
    return (DECODE,) if "decoder" in kinds else ()


def part_named(variant: str) -> str | None:
    """Return the part that a variant of an architecture's files is; None for the whole."""
    _, _, last = variant.rpartition("-")
    return last if last in PARTS and last != variant else None
