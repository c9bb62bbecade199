"""Whether two sessions of one model compute the same."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from devices.runtime import Session, random_inputs
from search_spaces.errors import InputError


def check_parity(session: Session, reference: Session, *, tolerance: float, what: str) -> float:
    """Compare two sessions on the same seeded inputs.

    A quantised network answers a rounding that falls the other way with more than rounding
    noise, an untrained one most of all; so three times what the reference itself does when
    its inputs get a thousandth of noise is allowed, if that is more than ``tolerance``.

    Returns:
        The relative error (norm of the difference over the norm) of the worst output.

    Raises:
        InputError: the outputs differ by more, in shape, or are not finite.
    """
    inputs = random_inputs(reference.inputs, 0)
    expected = [np.array(o) for o in reference(*inputs)]
    got = [np.array(o) for o in session(*inputs)]
    if [o.shape for o in got] != [o.shape for o in expected]:
        raise InputError(
            f"{what}: outputs have shapes {[o.shape for o in got]}, not "
            f"{[o.shape for o in expected]}"
        )
    if not all(np.isfinite(o).all() for o in got if o.dtype.kind == "f"):
        raise InputError(f"{what}: its outputs are not finite")
    error = max(map(relative_error, got, expected))
    if error > tolerance:
        moved = moved_by_noise(reference, inputs, expected, 1e-3)
        if error > max(tolerance, 3 * moved):
            raise InputError(
                f"{what}: its outputs differ by {error:.2g} (relative), where a thousandth of "
                f"noise at the input makes {moved:.2g}; the conversion is wrong for this model"
            )
    return error


SEEDS = 8
"""Inputs on which outputs are compared."""


@dataclass(frozen=True)
class Agreement:
    """How far the outputs of several inputs are those of a reference.

    Attributes:
        relative_error: norm of the difference over the norm of the reference, all inputs together.
        range_error: largest difference of one output over the range (largest less smallest) of the
            reference's: what a threshold on the outputs sees. Outputs that nearly cancel have a
            small norm, and so a large relative error, where this one stays small.
        same_largest: share of inputs with the same largest output; None for one output.
    """

    relative_error: float
    range_error: float
    same_largest: float | None

    @classmethod
    def of(cls, outputs: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> Agreement:
        """Compare the outputs of each input, of equal shapes."""
        one, other = (
            np.stack([np.asarray(a, dtype=np.float64).ravel() for a in each])
            for each in (outputs, expected)
        )
        span = float(np.ptp(other)) or 1.0
        same = float((one.argmax(1) == other.argmax(1)).mean()) if other.shape[1] > 1 else None
        return cls(relative_error(one, other), float(np.abs(one - other).max()) / span, same)


def agreement(
    run: Callable[..., np.ndarray], reference: Session, *, seeds: int = SEEDS
) -> Agreement:
    """Compare what ``run`` gives for seeded inputs of a session with the session's first output."""
    outputs, expected = [], []
    for seed in range(seeds):
        inputs = random_inputs(reference.inputs, seed)
        expected.append(np.array(reference(*inputs)[0]))
        outputs.append(np.array(run(*inputs)).reshape(expected[-1].shape))
    return Agreement.of(outputs, expected)


def moved_by_noise(
    reference: Session, inputs: Sequence[np.ndarray], expected: Sequence[np.ndarray], size: float
) -> float:
    """Return the relative error of a session's worst output where its inputs get noise.

    Args:
        reference: the session.
        inputs: of which those of floats get it.
        expected: outputs of the session without noise.
        size: deviation of the noise.
    """
    rng = np.random.default_rng(1)
    noisy = [
        (a + size * rng.standard_normal(a.shape)).astype(a.dtype) if a.dtype.kind == "f" else a
        for a in inputs
    ]
    return max(map(relative_error, reference(*noisy), expected))


def relative_error(output: np.ndarray, expected: np.ndarray) -> float:
    """Return the norm of the difference over the norm of what was expected."""
    norm = float(np.linalg.norm(expected))
    difference = float(np.linalg.norm(np.asarray(output, dtype=np.float64) - expected))
    return difference / norm if norm else difference
