"""An outside reference for our post-training quantisation: ONNX Runtime's own, static."""

from __future__ import annotations

import contextlib
import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from search_spaces.atomic import write_atomic

if TYPE_CHECKING:
    from torch import Tensor, nn


def quantize_onnxruntime(
    module: nn.Module, path: Path, calibration: Sequence[Tensor], *, has_vnni: bool
) -> None:
    """Write ``module`` at 8 bits as ``onnxruntime.quantization.quantize_static`` makes it.

    QDQ, a weight scale a channel, ranges of activations from their minima and maxima. Without
    dot-product instructions weights take 7 bits' range, as its documentation advises: its
    kernels would saturate otherwise.

    Args:
        module: a trained float network; batch norms are folded first.
        path: file to write.
        calibration: images (batch, channels, height, width), float32.
        has_vnni: of the device.
    """
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    from supernet.onnx.export import export_onnx
    from supernet.ptq.quantize import quantize_post_training

    class Reader(CalibrationDataReader):
        def __init__(self, name: str) -> None:
            self._batches = iter([{name: x.cpu().numpy()} for x in calibration])

        def get_next(self) -> dict[str, Any] | None:
            return next(self._batches, None)

    folded = quantize_post_training(module, calibration[:1], (32, 32), steps=(), edge_bits=None)
    with tempfile.TemporaryDirectory() as folder, _without_advice():
        source = Path(folder) / "float.onnx"
        export_onnx(folded, source)

        def write(target: Path) -> None:
            quantize_static(
                str(source),
                str(target),
                Reader(_input_name(source)),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                reduce_range=not has_vnni,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
            )

        write_atomic(path, write)


def _input_name(path: Path) -> str:
    import onnx

    return str(onnx.load(str(path), load_external_data=False).graph.input[0].name)


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    # It advises to fold batch norms first, on the root logger; they are folded.
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
