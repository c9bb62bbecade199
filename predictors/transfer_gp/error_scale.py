"""How far off a model is on one device, judged from its own measurements.

A model's standard deviation is a promise; each measurement predicted from the others, everything
found again without it, shows how well it is kept on this very device: devices without noise do far
better, devices that the model cannot express worse. Those errors are exchangeable with errors
elsewhere as far as the measured architectures are with others (Vovk et al., *Algorithmic Learning
in a Random World*, on conformal prediction; Barber et al., *Predictive Inference with the
Jackknife+*, Annals of Statistics 2021). Ten of them are too few for a quantile, so their mean
square estimates a scale, and Student's t says what is lost by estimating it.

The constants are from made-up devices on made-up families of networks, with 0 to 9 known devices
and 10 or 20 measurements, none of them in the tables that the predictor is judged by.
"""

from __future__ import annotations

import numpy as np

from predictors.transfer_gp.widths import Calibration

_LARGEST = 3.0  # of one standardised error: a glitch is no reason for doubt about all others
_PROMISE = 0.5  # of an error of the promised size: perfect errors prove no perfection
_ELSEWHERE = 1.1  # errors elsewhere over those on the measurements


def widths_of(left_out: np.ndarray) -> Calibration:
    """Return the widths of intervals, in the model's own standard deviations, for one device.

    Args:
        left_out: (n,) standardised leave-one-out errors; few of them leave the promise as it is.
    """
    count = len(left_out)
    squares = np.minimum(np.abs(left_out), _LARGEST) ** 2
    scale = np.sqrt((squares.sum() + _PROMISE) / (count + _PROMISE))
    return Calibration.student(max(count - 1, 1) + _PROMISE, _ELSEWHERE * float(scale))
