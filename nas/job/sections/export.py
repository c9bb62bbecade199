"""Section ``export``: what is written beside ONNX files."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Literal

from pydantic import (
    Field,
    StrictStr,
)

from nas.job.findings import Finding, unknown_name
from nas.job.registries import registry_for
from nas.job.values import Section
from search_spaces.errors import EnvironmentProblem


class ExportConfig(Section):
    """The model files of the front."""

    format: Literal["onnx"] = "onnx"
    weights: Literal["packed", "int8"] = "packed"
    """packed stores weights of 2 bits, and of 3 and 4, in 2 and 4 bits of a byte, which ONNX
    Runtime from 1.20 on takes apart when it loads the file; int8 stores every code in a byte,
    for runtimes that do not fold constants."""
    formats: Annotated[list[StrictStr], Field(min_length=1)] = ["onnx"]
    """What each model of the front is written in at the end, to RUN/export/ID: onnx, lowbit, c,
    litert, tensorrt, openvino, ncnn, mnn, executorch, or a plug-in's. The ONNX files are in
    RUN/models in any case."""


def check_export(export: ExportConfig) -> Iterator[Finding]:
    """Yield formats that are unknown, given twice, or cannot be written here."""
    for i, name in enumerate(export.formats):
        at = ("export", "formats", i)
        unknown = list(unknown_name("export.formats", at, name))
        yield from unknown
        if name in export.formats[:i]:
            yield at, f"export.formats: {name!r} is there twice"
        elif not unknown and name != "onnx":  # which the run writes in any case
            try:
                registry_for("export.formats").get(name).require()
            except EnvironmentProblem as error:
                yield at, f"export.formats: {error}"
