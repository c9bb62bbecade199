"""The file of a language model that gives one more token, from the keys and values kept."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np

from nas.models.file_check import FEW_BITS_TOLERANCE
from nas.models.language.parts import DECODE, part_path
from nas.models.parity import OUTPUT_TOLERANCE, UnusableModel, open_session

if TYPE_CHECKING:
    from torch import Tensor

    from supernet.decoding import DecodingStep
    from supernet.onnx.export import ExportSummary
    from supernet.plain import PlainNetwork
    from supernet.transducing import TransducingStep

    Step = Union[DecodingStep, TransducingStep]

_TOKENS = 24
"""Tokens of a window that are run through a file to see that it is sound."""

Run = Callable[[Sequence[np.ndarray]], Sequence[np.ndarray]]


def step_path(model: Path) -> Path:
    """Return where the file of a step lies beside the file ``model`` of the whole window."""
    return part_path(model, DECODE)


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

    step = DecodingStep(network)
    summary = export_onnx(
        step,
        path,
        reduce_range=reduces_range(has_vnni),
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
    found = decoded(run, step, tokens)
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


def reduces_range(has_vnni: bool | None) -> bool:
    """Whether weight codes are kept to 7 bits, for want of dot products that cannot saturate.

    ``has_vnni``: of the device; None for this machine.
    """
    if has_vnni is None:
        from devices.device import device_fingerprint

        has_vnni = bool(device_fingerprint()["has_vnni"])
    return not has_vnni


def decoded(
    run: Run, step: Step, tokens: np.ndarray, *, beside: Sequence[np.ndarray] = ()
) -> np.ndarray:
    """Return the values after each of tokens (batch, n): (batch, n, vocabulary).

    ``beside``: what the step is given between the free places and the caches.
    """
    caches = [cache.numpy() for cache in step.empty(len(tokens))]
    found = []
    for place in range(tokens.shape[1]):
        free = np.full((len(tokens), 1), step.length - 1 - place, np.float32)
        token = tokens[:, place : place + 1].astype(np.float32)
        logits, *new = run([token, free, *beside, *caches])
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
