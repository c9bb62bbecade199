"""The file of a language model that gives one more token, from the keys and values kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from nas.models.file_check import FEW_BITS_TOLERANCE
from nas.models.parity import OUTPUT_TOLERANCE, UnusableModel, open_session

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.decoding import DecodingStep
    from supernet.onnx.export import ExportSummary
    from supernet.plain import PlainNetwork

DECODE = "decode"
"""Which of an architecture's files this is; it is called ``ID-decode.onnx``."""

_TOKENS = 24
"""Tokens of a window that are run through a file to see that it is sound."""

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def step_path(model: Path) -> Path:
    """Return where the file of a step lies beside the file ``model`` of the whole window."""
    return model.with_name(f"{model.stem}-{DECODE}.onnx")


def export_step(
    network: PlainNetwork,
    path: Path,
    windows: Tensor,
    *,
    has_vnni: bool | None = None,
    weight_storage: str = "packed",
    metadata: Mapping[str, str] | None = None,
) -> ExportSummary:
    """Write a step of decoding as ONNX, and see that steps give what a window at once does.

    Inputs and outputs are those of :class:`supernet.decoding.DecodingStep`.

    Args:
        network: of the space ``decoder``, in evaluation mode.
        path: file to write.
        windows: (batch, 1, 1, length), tokens for the comparison.
        has_vnni: see :func:`nas.models.parity.export_checked`.
        weight_storage, metadata: see :func:`supernet.onnx.export.export_onnx`.

    Raises:
        InputError: the network is of another space.
        UnusableModel: steps give something else; the file is removed.
    """
    import torch

    from supernet.decoding import DecodingStep
    from supernet.onnx.export import export_onnx

    if has_vnni is None:
        from devices.device import device_fingerprint

        has_vnni = bool(device_fingerprint()["has_vnni"])
    step = DecodingStep(network)
    summary = export_onnx(
        step,
        path,
        reduce_range=not has_vnni,
        weight_storage=weight_storage,
        metadata=metadata,
        inputs=step.inputs,
        outputs=step.outputs,
    )
    windows = windows[:4]
    with torch.no_grad():
        expected = network(windows).numpy()[:, :_TOKENS]
    session = open_session(path, optimise=False)

    def run(given: Sequence[np.ndarray]) -> Sequence[np.ndarray]:
        found: list[np.ndarray] = session.run(None, dict(zip(step.inputs, given, strict=True)))
        return found

    tokens = windows.numpy().reshape(len(windows), -1)[:, :_TOKENS]
    found = _decoded(run, step, tokens)
    error = float(np.linalg.norm(found - expected)) / max(1e-12, float(np.linalg.norm(expected)))
    # Reduced codes are another network, whose difference is no mistake.
    allowed = OUTPUT_TOLERANCE if summary.reduced_layers else FEW_BITS_TOLERANCE
    if not error <= allowed:
        Path(path).unlink(missing_ok=True)
        raise UnusableModel(
            f"{path} gives values that differ from the network's by {error:.3g} (relative; at most "
            f"{allowed:g} is rounding): a token at a time is not what a window at once is"
        )
    return summary


def _decoded(run: Run, step: DecodingStep, tokens: np.ndarray) -> np.ndarray:
    """Return the values after each of tokens (batch, n): (batch, n, vocabulary)."""
    caches = [cache.numpy() for cache in step.empty(len(tokens))]
    found = []
    for place in range(tokens.shape[1]):
        free = np.full((len(tokens), 1), step.length - 1 - place, np.float32)
        logits, *new = run([tokens[:, place : place + 1].astype(np.float32), free, *caches])
        keep(caches, new, place)
        found.append(logits)
    return np.stack(found, 1)


def keep(caches: Sequence[np.ndarray], new: Sequence[np.ndarray], place: int) -> None:
    """Put a token's keys and values into their place of the caches, by turns of either."""
    for i, (cache, one) in enumerate(zip(caches, new, strict=True)):
        if i % 2 == 0:
            cache[..., place] = one[..., 0]
        else:
            cache[..., place, :] = one[..., 0, :]
