"""How far off a model is on one device, judged from its own measurements.

A model's standard deviation is a promise; each measurement predicted from the others shows how
well it is kept on this very device. Ten such errors are few, and a model that happened to fit
its ten measurements well is surer than it should be. So the promise is corrected by a
regression over devices that were left out, on three signs: the size of the standardised
leave-one-out errors, how much of the spread of the measurements the model leaves unexplained,
and how much of that it takes for noise. A device without noise gets narrow intervals, one whose
noise hides behind a lucky fit does not. The widths of intervals in units of the corrected
deviation are learned on practice devices, or are the usual ones.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.conformal import LEVELS, Calibration

# Slopes of log(error scale), found on devices left out of NAS-Bench-201's meta-training ones,
# on other GPUs and on made-up devices with noise of 0 to 30 % of their spread.
_BY_ERRORS, _BY_SPREAD, _BY_NOISE = 0.59, -0.14, 0.24

_USUAL_ERROR = 0.6  # mean absolute standardised leave-one-out error
_LARGEST = 4.0  # of one standardised error: a glitch is no reason for doubt about all others
_LEAST = 0.02  # of any sign: a perfect fit of a few measurements proves no perfection
_USUAL_DEVICES = 6.0  # practice devices the usual widths count for

# Widths at n measurements: multiple and degrees of freedom of Student's t. Found as the slopes.
_USUAL_WIDTHS = {5: (1.15, 6.0), 10: (1.10, 7.0), 20: (1.05, 8.0), 40: (1.0, 9.0)}


@dataclass(frozen=True)
class Signs:
    """What an adapted model shows of its own errors; all without unit.

    Attributes:
        left_out: (n,) standardised leave-one-out errors of the measurements.
        spread: typical predictive standard deviation over that of the measurements.
        noise: standard deviation taken for noise over the predictive one.
    """

    left_out: np.ndarray
    spread: float
    noise: float


@dataclass(frozen=True)
class Run:
    """One practice adaptation to a device that was left out.

    Attributes:
        signs: what the adapted model showed.
        held: (m,) standardised errors on architectures that were not measured.
    """

    signs: Signs
    held: np.ndarray


def factor(signs: Signs) -> float:
    """Return what to multiply a model's standard deviation by.

    Below four measurements the leave-one-out errors say too little and are not looked at.
    """
    size = _USUAL_ERROR
    if len(signs.left_out) >= 4:
        size = float(np.minimum(np.abs(signs.left_out), _LARGEST).mean())
    return float(
        max(size, _LEAST) ** _BY_ERRORS
        * np.clip(signs.spread, _LEAST, 1.0) ** _BY_SPREAD
        * np.clip(signs.noise, _LEAST, 1.0) ** _BY_NOISE
    )


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
    scores = np.concatenate([run.held / factor(run.signs) for run in runs])
    found = np.maximum(Calibration.from_scores(scores).widths, 1e-6)
    share = devices / (devices + _USUAL_DEVICES)
    widths = np.exp(share * np.log(found) + (1 - share) * np.log(usual_widths(count).widths))
    return Calibration(LEVELS, widths)
