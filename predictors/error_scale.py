"""How far off a model is on one device, judged from its own measurements.

A model's standard deviation is a promise; each measurement predicted from the others shows how
well it is kept on this very device. Ten such errors are few: usual ones are drawn towards what
is usual, by a regression over devices that were left out. Errors far below the usual are
believed, since only a device without noise shows them. The widths of intervals in units of the
corrected deviation are learned on practice devices, or are the usual ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.conformal import LEVELS, Calibration

# log(error scale) against log(mean absolute standardised leave-one-out error), slopes above and
# below _LOW. Found on devices left out of NAS-Bench-201's meta-training ones, on other GPUs and
# on made-up devices with noise of 0 to 30 % of their spread; signs beside the errors (spread
# left unexplained, share of noise) added nothing.
_SLOPE, _SLOPE_BELOW, _LOW = 0.32, 0.95, 0.5

_USUAL_ERROR = 0.6
_LARGEST = 4.0  # of one standardised error: a glitch is no reason for doubt about all others
_LEAST = 0.02  # of the mean: a perfect fit of a few measurements proves no perfection
_USUAL_DEVICES = 6.0  # practice devices the usual widths count for

# Widths at n measurements: multiple and degrees of freedom of Student's t. Found as the slopes.
_USUAL_WIDTHS = {5: (1.4, 5.0), 10: (1.07, 7.0), 20: (1.03, 8.0), 40: (0.98, 9.0)}


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
    size = _USUAL_ERROR
    if len(left_out) >= 4:
        size = max(float(np.minimum(np.abs(left_out), _LARGEST).mean()), _LEAST)
    return size**_SLOPE * min(size / _LOW, 1.0) ** (_SLOPE_BELOW - _SLOPE)


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
