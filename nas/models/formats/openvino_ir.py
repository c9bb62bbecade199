"""OpenVINO's own format: ``.xml`` beside its ``.bin``."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

from nas.models.formats.base import FORMATS, Format, Source, Written
from search_spaces.errors import InputError, MissingExtraError


@FORMATS.register("openvino")
class OpenVinoIr(Format):
    """An intermediate representation with the file's quantisation kept."""

    name: ClassVar[str] = "openvino"
    summary: ClassVar[str] = "OpenVINO IR (.xml, .bin), integers kept; extra openvino"

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
        path = folder / f"{source.id}.xml"
        data = with_whole_bytes(source.path, extra="openvino") or str(source.path)
        try:
            model = openvino.Core().read_model(data)
            keep_roundings(model)
            for key, value in (("labels", list(source.labels)), ("id", source.id)):
                model.set_rt_info(value, ["model_info", key])
            openvino.save_model(model, str(path), compress_to_fp16=False)
        except RuntimeError as error:
            raise InputError(f"{source.path}: OpenVINO: {one_line(error)}") from error
        session = runtime.load(path)
        reference = OnnxRuntime(graph_optimization="off").load(source.path)
        check_parity(
            session, reference, tolerance=TOLERANCE["file"], what=f"{source.path}: OpenVINO IR"
        )
        found = agreement(lambda *inputs: session(*inputs)[0], reference)
        return Written.compared(cls.name, (path.name, f"{source.id}.bin"), found)
