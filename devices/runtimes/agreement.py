"""Whether two sessions of one model compute the same."""

from __future__ import annotations

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
        rng = np.random.default_rng(1)
        noisy = [
            (a + 1e-3 * rng.standard_normal(a.shape)).astype(a.dtype) if a.dtype.kind == "f" else a
            for a in inputs
        ]
        moved = max(map(relative_error, reference(*noisy), expected))
        if error > max(tolerance, 3 * moved):
            raise InputError(
                f"{what}: its outputs differ by {error:.2g} (relative), where a thousandth of "
                f"noise at the input makes {moved:.2g}; the conversion is wrong for this model"
            )
    return error


def relative_error(output: np.ndarray, expected: np.ndarray) -> float:
    """Return the norm of the difference over the norm of what was expected."""
    norm = float(np.linalg.norm(expected))
    difference = float(np.linalg.norm(np.asarray(output, dtype=np.float64) - expected))
    return difference / norm if norm else difference
