"""Writing the files that a model of texts has beside the one that reads everything at once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from nas.models.file_check import FEW_BITS_TOLERANCE
from nas.models.language.parts import ENCODE, parts_of
from nas.models.language.step_file import Run, decoded
from nas.models.outputs import relative_error
from nas.models.parity import OUTPUT_TOLERANCE, UnusableModel, open_session, saturates
from search_spaces.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.onnx.export import ExportSummary
    from supernet.plain import PlainNetwork

_TOKENS = 24
"""Tokens of a window that are run through a file to see that it is sound."""

_Arrays = Sequence[np.ndarray]


def export_part(
    network: PlainNetwork,
    path: Path,
    part: str,
    inputs: Tensor,
    *,
    weight_storage: str = "packed",
    metadata: Mapping[str, str] | None = None,
) -> ExportSummary:
    """Write a part of a network as ONNX, and see that it gives what the whole does.

    Inputs and outputs are those of :class:`supernet.decoding.DecodingStep`, or of
    :class:`supernet.transducing.EncodingStep` and :class:`supernet.transducing.TransducingStep`.

    Args:
        network: in evaluation mode.
        path: file to write.
        part: of :func:`parts_of`.
        inputs: of the network, (batch, 1, 1, n), for the comparison.
        weight_storage, metadata: see :func:`supernet.onnx.export.export_onnx`.

    Raises:
        InputError: the network has no such part.
        UnusableModel: the part gives something else; the file is removed.
    """
    import torch

    from supernet.decoding import DecodingStep
    from supernet.onnx.export import export_onnx
    from supernet.transducing import EncodingStep, TransducingStep

    known = parts_of(network.plan)
    if part not in known:
        raise InputError(
            f"a network of {network.plan.space} has no file of its own for {part!r} (it has "
            f"{', '.join(known) or 'none'})"
        )
    step: Any
    answers: Callable[[PlainNetwork, Any, Tensor, Run], tuple[_Arrays, _Arrays]]
    if len(known) == 1:
        step, answers, what = DecodingStep(network), _of_tokens, "values"
    elif part == ENCODE:
        step, answers, what = EncodingStep(network), _of_source, "keys and values of the source"
    else:
        step, answers, what = TransducingStep(network), _of_symbols, "values of the symbols"
    summary = export_onnx(
        step, path, reduce_range=saturates(), weight_storage=weight_storage, metadata=metadata,
        inputs=step.inputs, outputs=step.outputs,
    )  # fmt: skip
    session = open_session(path, optimise=False)

    def run(given: _Arrays) -> Any:
        return session.run(None, dict(zip(step.inputs, given, strict=True)))

    with torch.no_grad():
        error = relative_error(*answers(network, step, inputs[:4], run))
    # Reduced codes are another network, whose difference is no mistake.
    allowed = OUTPUT_TOLERANCE if summary.reduced_layers else FEW_BITS_TOLERANCE
    if not error <= allowed:
        Path(path).unlink(missing_ok=True)
        why = ": a token at a time is not what a window at once is" if len(known) == 1 else ""
        raise UnusableModel(
            f"{path} gives {what} that differ from the network's by {error:.3g} (relative; at most "
            f"{allowed:g} is rounding){why}"
        )
    return summary


def _of_tokens(
    network: PlainNetwork, step: Any, windows: Tensor, run: Run
) -> tuple[_Arrays, _Arrays]:
    """Return what a file gives for a token at a time, and the network for a window at once."""
    tokens = windows.numpy().reshape(len(windows), -1)[:, :_TOKENS]
    return [decoded(run, step, tokens)], [network(windows).numpy()[:, :_TOKENS]]


def _of_source(
    network: PlainNetwork, step: Any, inputs: Tensor, run: Run
) -> tuple[_Arrays, _Arrays]:
    """Return the keys and values of sources from a file, and from the network."""
    source = inputs[:, :, :, : step.length]
    return run([source.numpy()])[1:], [part.numpy() for part in step(source)][1:]


def _of_symbols(
    network: PlainNetwork, step: Any, inputs: Tensor, run: Run
) -> tuple[_Arrays, _Arrays]:
    """Return the values of symbols from a file, and from the network at once."""
    from supernet.transducing import EncodingStep

    reader = EncodingStep(network)
    memory = [part.numpy() for part in reader(inputs[:, :, :, : reader.length])]
    given = inputs.numpy().reshape(len(inputs), -1)[:, reader.length :]
    found = decoded(run, step, given, beside=memory)
    return [found], [network(inputs).numpy()[:, : found.shape[1]]]
