"""Formats of runtimes that convert ONNX: LiteRT, ncnn, MNN and ExecuTorch."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

from devices.runtime import make_runtime
from devices.runtimes.agreement import agreement
from devices.runtimes.conversion import ConvertingRuntime
from nas.models.formats.base import FORMATS, Format, Source, Written
from nas.models.formats.embedded import agreement_of_embedded, write_embedded
from nas.models.formats.preprocessing import input_text
from search_spaces.atomic import write_atomic, write_bytes_atomic
from search_spaces.errors import InputError
from search_spaces.model_files.graph import read_graph

_KEPT = (".tflite", ".param", ".bin", ".mnn", ".pte")


class ConvertedFormat(Format):
    """The native file of a runtime, converted and checked as it is for measuring."""

    #: Registered name and parameters of the runtime.
    runtime: ClassVar[str]
    parameters: ClassVar[dict[str, Any]] = {}
    #: Whether the conversion keeps quantisation; otherwise the float twin is converted.
    quantised: ClassVar[bool] = True
    embeds: ClassVar[bool] = True
    #: Whether whole numbers go in as floats, and no class comes out.
    takes_floats: ClassVar[bool] = False

    @classmethod
    def require(cls) -> None:
        """See :meth:`Format.require`: what the runtime needs."""
        cls._runtime()

    @classmethod
    def describe(cls, path: Path, source: Source) -> None:
        """Write id, labels and pre-processing into the model, where its format has room for them.

        By default there is none: the model card and the labels beside it say them.
        """
        return None

    @classmethod
    def _runtime(cls) -> ConvertingRuntime:
        runtime = make_runtime(cls.runtime, cls.parameters)
        assert isinstance(runtime, ConvertingRuntime)
        return runtime

    @classmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """See :meth:`Format.write`: the float twin, where the runtime keeps no quantisation."""
        from devices.runtimes.onnxruntime import OnnxRuntime

        runtime = cls._runtime()
        with tempfile.TemporaryDirectory() as temporary:
            path, reference_name, note = source.path, "the run's ONNX file, unoptimised", ""
            if not cls.quantised and read_graph(path).quantised:
                from nas.models.float_twin import write_float_twin

                path = write_float_twin(path, Path(temporary) / f"{source.id}.onnx")
                reference_name = "the float twin of the run's ONNX file"
                note = f"float32: the conversion for {cls.runtime} keeps no quantisation"
            if source.embed:
                whole = Path(temporary) / f"{source.file_id}.onnx"
                write_embedded(
                    source, path, whole, floats=cls.takes_floats, with_class=not cls.takes_floats
                )
                found = agreement_of_embedded(
                    runtime.load(whole), source, path, floats=cls.takes_floats
                )
                made = runtime.converted(whole)
                told = input_text(source.preprocessing, floats=cls.takes_floats)
                note = f"{note}; {told}" if note else told
            else:
                made = runtime.converted(path)
                session = runtime.load(path)
                reference = OnnxRuntime(graph_optimization="off").load(path)
                found = agreement(lambda *inputs: session(*inputs)[0], reference)
        files = sorted(p for p in made.iterdir() if p.suffix in _KEPT)
        if not files:
            raise InputError(f"{source.path}: converted for {cls.runtime}, but no file was made")
        names = []
        for file in sorted(files, key=lambda p: p.name != runtime.native):
            name = source.file_id + file.name[file.name.index(".") :]
            write_atomic(folder / name, partial(_copy, file))
            names.append(name)
        cls.describe(folder / names[0], source)
        return Written.compared(cls.name, tuple(names), found, reference_name, note)


def _copy(source: Path, target: Path) -> None:
    shutil.copyfile(source, target)


@FORMATS.register("litert")
class LiteRtFile(ConvertedFormat):
    """A ``.tflite`` file of integers, but for the last linear layer, which gives floats."""

    name: ClassVar[str] = "litert"
    summary: ClassVar[str] = "LiteRT (.tflite), integers up to the last linear layer; extra litert"
    runtime: ClassVar[str] = "litert"
    parameters: ClassVar[dict[str, Any]] = {"integers_only": True}

    @classmethod
    def describe(cls, path: Path, source: Source) -> None:
        """See :meth:`ConvertedFormat.describe`: metadata of the file, as JSON by name."""
        from devices.runtimes.tflite.metadata import add_metadata

        notes = {
            "id": source.id,
            "labels": list(source.labels),
            "preprocessing": dict(source.preprocessing),
            "preprocessing_embedded": source.embed,
        }
        data = add_metadata(path.read_bytes(), {k: json.dumps(v) for k, v in notes.items()})
        write_bytes_atomic(path, data)


@FORMATS.register("ncnn")
class NcnnFile(ConvertedFormat):
    """``.param`` and ``.bin`` files."""

    name: ClassVar[str] = "ncnn"
    summary: ClassVar[str] = "ncnn (.param, .bin), float32; extra ncnn"
    runtime: ClassVar[str] = "ncnn"
    quantised: ClassVar[bool] = False
    takes_floats: ClassVar[bool] = True


@FORMATS.register("mnn")
class MnnFile(ConvertedFormat):
    """An ``.mnn`` file."""

    name: ClassVar[str] = "mnn"
    summary: ClassVar[str] = "MNN (.mnn), float32; extra mnn"
    runtime: ClassVar[str] = "mnn"
    quantised: ClassVar[bool] = False


@FORMATS.register("executorch")
class ExecuTorchFile(ConvertedFormat):
    """A ``.pte`` program for XNNPACK."""

    name: ClassVar[str] = "executorch"
    summary: ClassVar[str] = "ExecuTorch (.pte) for XNNPACK; extra executorch"
    runtime: ClassVar[str] = "executorch"
