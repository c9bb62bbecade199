"""ONNX, with labels and pre-processing in the file's metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from devices.runtimes.agreement import Agreement, agreement
from nas.models.formats.base import FORMATS, OnnxBased, Source, Written
from nas.models.formats.preprocessing import prepared, with_preprocessing
from search_spaces.atomic import write_bytes_atomic
from search_spaces.errors import InputError


@FORMATS.register("onnx")
class OnnxFile(OnnxBased):
    """The file of the run with metadata; with ``embed`` its pre-processing is part of it."""

    name: ClassVar[str] = "onnx"
    summary: ClassVar[str] = "ONNX with quantised tensors (QDQ): ONNX Runtime, TensorRT, others"
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
            one = source.preprocessing.get("one_class", True)
            note = f"uint8 pixels in; the outputs{' and the class' if one else ''} out"
        known = {entry.key for entry in model.metadata_props}
        notes = {
            "labels": json.dumps(list(source.labels)),
            "preprocessing": json.dumps(dict(source.preprocessing)),
        }
        for key, value in notes.items():
            if key not in known:
                model.metadata_props.add(key=key, value=value)
        name = f"{source.id}-uint8.onnx" if source.embed else f"{source.id}.onnx"
        write_bytes_atomic(folder / name, model.SerializeToString())
        return Written.compared(cls.name, (name,), _found(folder / name, source), note=note)


def _found(path: Path, source: Source) -> Agreement:
    """Compare with the run's file; the class must be the largest output."""
    from devices.runtimes.onnxruntime import OnnxRuntime

    reference = OnnxRuntime(graph_optimization="off").load(source.path)
    session = OnnxRuntime(graph_optimization="off").load(path)
    if not source.embed:
        return agreement(lambda *inputs: session(*inputs)[0], reference)
    pixels = np.random.default_rng(0).integers(0, 256, reference.inputs[0].shape).astype(np.uint8)
    expected = np.array(reference(prepared(pixels, source.preprocessing))[0])
    outputs, *classes = (np.array(o) for o in session(pixels))
    if classes and not np.array_equal(outputs.argmax(1), classes[0]):
        raise InputError(f"{path}: the class is not the largest output")
    return Agreement.of([outputs], [expected])
