"""How far off a model is on one device, judged from its own leave-one-out errors.

A model's standard deviation is a promise; each measurement predicted from the others shows
how well it is kept on this very device. The mean absolute standardised error, drawn a little
towards what is usual, is the factor by which the promise is corrected; the widths of intervals
in units of the corrected deviation are learned on practice devices, or are the usual ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.conformal import LEVELS, Calibration

_USUAL_FACTOR = 0.65
_STRENGTH = 2.0  # measurements the usual factor counts for
_LARGEST = 4.0  # of one standardised error: a glitch is no reason for doubt about all others
_USUAL_DEVICES = 6.0  # practice devices the usual widths count for

# Widths at n measurements: multiple and degrees of freedom of Student's t. Found on made-up
# tables and on devices left out, over several choices of training devices.
_USUAL_WIDTHS = {5: (1.40, 4.0), 10: (1.35, 4.5), 20: (1.30, 5.0), 40: (1.25, 6.0)}


@dataclass(frozen=True)
class Run:
    """One practice adaptation to a device that was left out.

    Attributes:
        left_out: (n,) standardised leave-one-out errors of the measurements.
        held: (m,) standardised errors on architectures that were not measured.
    """

    left_out: np.ndarray
    held: np.ndarray


def factor(left_out: np.ndarray) -> float:
    """Return what to multiply a model's standard deviation by.

    Args:
        left_out: (n,) standardised leave-one-out errors; below four of them say too little.
    """
    if len(left_out) < 4:
        return _USUAL_FACTOR
    sizes = np.minimum(np.abs(left_out), _LARGEST)
    return float((sizes.sum() + _STRENGTH * _USUAL_FACTOR) / (len(sizes) + _STRENGTH))


def usual_widths(count: int) -> Calibration:
    """Return the widths expected at ``count`` measurements before any practice."""
    from scipy.stats import t

    at = sorted(_USUAL_WIDTHS)
    multiple, degrees = (
        np.interp(np.log(count), np.log(at), [_USUAL_WIDTHS[n][k] for n in at]) for k in (0, 1)
    )
    return Calibration(LEVELS, multiple * t.ppf(0.5 + LEVELS / 2, degrees))


def learned_widths(runs: list[Run], devices: int, count: int) -> Calibration:
    """Return widths that cover what they say on average over practice runs.

    Few devices say little about the next one, so the widths (their logarithms) are drawn
    towards the usual ones.
    """
    scores = np.concatenate([run.held / factor(run.left_out) for run in runs])
    found = np.maximum(Calibration.from_scores(scores).widths, 1e-6)
    share = devices / (devices + _USUAL_DEVICES)
    widths = np.exp(share * np.log(found) + (1 - share) * np.log(usual_widths(count).widths))
    return Calibration(LEVELS, widths)
