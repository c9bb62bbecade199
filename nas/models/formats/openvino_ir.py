"""OpenVINO's own format: ``.xml`` beside its ``.bin``."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import ClassVar

from nas.models.formats.base import FORMATS, Format, Source, Written
from nas.models.formats.embedded import agreement_of_embedded, write_embedded
from nas.models.formats.preprocessing import input_text
from search_spaces.errors import InputError, MissingExtraError


@FORMATS.register("openvino")
class OpenVinoIr(Format):
    """An intermediate representation with the file's quantisation kept."""

    name: ClassVar[str] = "openvino"
    summary: ClassVar[str] = "OpenVINO IR (.xml, .bin), integers kept; extra openvino"

    embeds: ClassVar[bool] = True

    @classmethod
    def require(cls) -> None:
        """See :meth:`Format.require`."""
        try:
            import openvino  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("openvino", "openvino") from error

    @classmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """See :meth:`Format.write`: an ``.xml`` and its ``.bin``."""
        cls.require()
        import openvino

        from devices.runtime import one_line
        from devices.runtimes.agreement import agreement, check_parity
        from devices.runtimes.conversion import TOLERANCE
        from devices.runtimes.onnxruntime import OnnxRuntime
        from devices.runtimes.openvino import OpenVino, keep_roundings
        from devices.runtimes.widening import with_whole_bytes

        runtime = OpenVino()
        path = folder / f"{source.file_id}.xml"
        given = source.path
        data: bytes | str
        if source.embed:
            with tempfile.TemporaryDirectory() as temporary:
                given = write_embedded(source, given, Path(temporary) / "model.onnx")
                data = with_whole_bytes(given, extra="openvino") or given.read_bytes()
        else:
            data = with_whole_bytes(given, extra="openvino") or str(given)
        try:
            model = openvino.Core().read_model(data)
            keep_roundings(model)
            for key, value in (("labels", list(source.labels)), ("id", source.id)):
                model.set_rt_info(value, ["model_info", key])
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except RuntimeError as error:
            raise InputError(f"{source.path}: OpenVINO: {one_line(error)}") from error
        session = runtime.load(path)
        files = (path.name, f"{source.file_id}.bin")
        if source.embed:
            found = agreement_of_embedded(session, source, source.path)
            return Written.compared(cls.name, files, found, note=input_text(source.preprocessing))
        reference = OnnxRuntime(graph_optimization="off").load(source.path)
        check_parity(
            session, reference, tolerance=TOLERANCE["file"], what=f"{source.path}: OpenVINO IR"
        )
        found = agreement(lambda *inputs: session(*inputs)[0], reference)
        return Written.compared(cls.name, files, found)
