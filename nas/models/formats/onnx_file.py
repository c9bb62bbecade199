"""ONNX, with labels and pre-processing in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

from devices.runtimes.agreement import Agreement, agreement
from nas.models.formats.base import FORMATS, OnnxBased, Source, Written
from nas.models.formats.embedded import agreement_of_embedded
from nas.models.formats.preprocessing import input_text, with_preprocessing
from search_spaces.atomic import write_bytes_atomic


@FORMATS.register("onnx")
class OnnxFile(OnnxBased):
    """The file of the run with metadata; with ``embed`` its pre-processing is part of it."""

    name: ClassVar[str] = "onnx"
    summary: ClassVar[str] = "ONNX with quantised tensors (QDQ): ONNX Runtime and others"
    embeds: ClassVar[bool] = True

    @classmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """See :meth:`Format.write`."""
        cls.require()
        import onnx

        model = onnx.load(str(source.path))
        note = ""
        if source.embed:
            model = with_preprocessing(model, source.preprocessing)
            note = input_text(source.preprocessing)
        known = {entry.key for entry in model.metadata_props}
        notes = {
            "labels": json.dumps(list(source.labels)),
            "preprocessing": json.dumps(dict(source.preprocessing)),
        }
        for key, value in notes.items():
            if key not in known:
                model.metadata_props.add(key=key, value=value)
        name = f"{source.file_id}.onnx"
        write_bytes_atomic(folder / name, model.SerializeToString())
        return Written.compared(cls.name, (name,), _found(folder / name, source), note=note)


def _found(path: Path, source: Source) -> Agreement:
    """Compare with the run's file; the class must be the largest output."""
    from devices.runtimes.onnxruntime import OnnxRuntime

    session = OnnxRuntime(graph_optimization="off").load(path)
    if source.embed:
        return agreement_of_embedded(session, source, source.path)
    reference = OnnxRuntime(graph_optimization="off").load(source.path)
    return agreement(lambda *inputs: session(*inputs)[0], reference)
