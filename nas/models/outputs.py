"""Outputs of networks and of files, which are one array or several."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnxruntime


def as_arrays(outputs: Any) -> list[np.ndarray]:
    """Return what a network gives, nested or not, as arrays in the order of a file's outputs."""
    if isinstance(outputs, Mapping):
        outputs = list(outputs.values())
    if isinstance(outputs, (tuple, list)):
        return [array for part in outputs for array in as_arrays(part)]
    return [] if outputs is None else [outputs.detach().cpu().numpy()]


def concatenated(batches: Iterable[Sequence[np.ndarray]]) -> list[np.ndarray]:
    """Return the outputs of all batches: each (images, ...)."""
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def relative_error(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> float:
    """Return the norm of the difference over that of ``expected``, of the worst output.

    Infinite where outputs differ in number or shape, or are not finite.
    """
    if [f.shape for f in found] != [e.shape for e in expected]:
        return float("inf")
    return max((_relative(f, e) for f, e in zip(found, expected, strict=True)), default=0.0)


def _relative(found: np.ndarray, expected: np.ndarray) -> float:
    if not np.isfinite(found).all():
        return float("inf")
    norm = float(np.linalg.norm(expected))
    return float(np.linalg.norm(found - expected)) / norm if norm else float(np.any(found))


def run_file(session: onnxruntime.InferenceSession, images: np.ndarray) -> list[np.ndarray]:
    """Return a file's outputs for ``images`` (n, ...), whatever number it takes at once.

    A file of a fixed batch, as boards want it, gets its images in such groups, the last of them
    filled up with zeros.
    """
    given = session.get_inputs()[0]
    name, size = given.name, given.shape[0]
    if not isinstance(size, int) or size < 1 or len(images) == size:
        found: list[np.ndarray] = session.run(None, {name: images})
        return found
    parts = []
    for start in range(0, len(images), size):
        part = images[start : start + size]
        padding = np.zeros((size - len(part), *part.shape[1:]), part.dtype)
        outputs = session.run(None, {name: np.concatenate([part, padding])})
        parts.append([output[: len(part)] for output in outputs])
    return concatenated(parts)
