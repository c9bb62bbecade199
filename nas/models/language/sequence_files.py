"""Two files of an encoder-decoder that answer a source: one reads it, one gives a symbol more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.models.file_check import FEW_BITS_TOLERANCE
from nas.models.language.step_file import decoded, reduces_range
from nas.models.outputs import relative_error
from nas.models.parity import OUTPUT_TOLERANCE, UnusableModel, open_session

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.onnx.export import ExportSummary
    from supernet.plain import PlainNetwork


def export_encoding(
    network: PlainNetwork,
    path: Path,
    inputs: Tensor,
    *,
    has_vnni: bool | None = None,
    weight_storage: str = "packed",
    metadata: Mapping[str, str] | None = None,
) -> ExportSummary:
    """Write the file that reads a source; see :class:`supernet.transducing.EncodingStep`.

    Args:
        network: of the space ``encoder_decoder``, in evaluation mode.
        path: file to write.
        inputs: (batch, 1, 1, source + target), for the comparison.
        has_vnni: see :func:`nas.models.parity.export_checked`.
        weight_storage, metadata: see :func:`supernet.onnx.export.export_onnx`.

    Raises:
        InputError: the network is of another space.
        UnusableModel: the file gives something else than the network; it is removed.
    """
    import torch

    from supernet.onnx.export import export_onnx
    from supernet.transducing import EncodingStep

    step = EncodingStep(network)
    summary = export_onnx(
        step,
        path,
        reduce_range=reduces_range(has_vnni),
        weight_storage=weight_storage,
        metadata=metadata,
        inputs=step.inputs,
        outputs=step.outputs,
    )
    source = inputs[:4, :, :, : step.length]
    with torch.no_grad():
        expected = [part.numpy() for part in step(source)]
    found = open_session(path, optimise=False).run(None, {"source": source.numpy()})
    _compare(path, found[1:], expected[1:], summary, "keys and values of the source")
    return summary


def export_decoding(
    network: PlainNetwork,
    path: Path,
    inputs: Tensor,
    *,
    has_vnni: bool | None = None,
    weight_storage: str = "packed",
    metadata: Mapping[str, str] | None = None,
) -> ExportSummary:
    """Write the file that gives a symbol more; see :class:`supernet.transducing.TransducingStep`.

    Arguments and errors are those of :func:`export_encoding`.
    """
    import torch

    from supernet.onnx.export import export_onnx
    from supernet.transducing import EncodingStep, TransducingStep

    reader, step = EncodingStep(network), TransducingStep(network)
    summary = export_onnx(
        step,
        path,
        reduce_range=reduces_range(has_vnni),
        weight_storage=weight_storage,
        metadata=metadata,
        inputs=step.inputs,
        outputs=step.outputs,
    )
    inputs = inputs[:4]
    with torch.no_grad():
        expected = network(inputs).numpy()
        memory = [part.numpy() for part in reader(inputs[:, :, :, : reader.length])]
    session = open_session(path, optimise=False)

    def run(given: Sequence[np.ndarray]) -> Any:
        return session.run(None, dict(zip(step.inputs, given, strict=True)))

    given = inputs.numpy().reshape(len(inputs), -1)[:, reader.length :]
    found = decoded(run, step, given, beside=memory)
    _compare(path, [found], [expected[:, : found.shape[1]]], summary, "values of the symbols")
    return summary


def _compare(
    path: Path,
    found: Sequence[np.ndarray],
    expected: Sequence[np.ndarray],
    summary: ExportSummary,
    what: str,
) -> None:
    error = relative_error(found, expected)
    # Reduced codes are another network, whose difference is no mistake.
    allowed = OUTPUT_TOLERANCE if summary.reduced_layers else FEW_BITS_TOLERANCE
    if not error <= allowed:
        Path(path).unlink(missing_ok=True)
        raise UnusableModel(
            f"{path} gives {what} that differ from the network's by {error:.3g} (relative; at most "
            f"{allowed:g} is rounding)"
        )
