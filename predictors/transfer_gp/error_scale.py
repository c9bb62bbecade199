"""How far off a model is on one device, judged from its own measurements.

A model's standard deviation is a promise; each measurement predicted from the others, everything
found again without it, shows how well it is kept on this very device: devices without noise do far
better, devices that the model cannot express worse. Those errors are exchangeable with errors
elsewhere as far as the measured architectures are with others (Vovk et al., *Algorithmic Learning
in a Random World*, on conformal prediction; Barber et al., *Predictive Inference with the
Jackknife+*, Annals of Statistics 2021). Ten of them are too few for a quantile, so their mean
square estimates a scale, and Student's t says what is lost by estimating it.

The scale is estimated twice. In the deviations predicted it keeps what the model says about where
little is known, but errors are divided by a deviation that was itself estimated from few
measurements, and its doubt is in the widths twice. In plain units, the same everywhere, it is
steadier, but too wide where the measurements are farther from each other than others are from
them, as those of a design. Their weighted geometric mean errs less than either: where one is far
off, the other seldom is in the same direction.

The constants are from made-up devices on made-up families of networks and from devices of
NAS-Bench-201, with 0 to 8 known devices and 10 or 20 measurements, none of them among the devices
that the predictor is judged by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from predictors.transfer_gp.mixture import LeftOut
from predictors.transfer_gp.widths import Calibration

_LARGEST = 3.0  # of one standardised error: a glitch is no reason for doubt about all others
_PROMISE = 0.5  # of an error of the promised size: perfect errors prove no perfection
_PLAIN = 0.3  # share of the plain error in the deviation


@dataclass(frozen=True)
class ErrorScale:
    """Deviations of one device as its errors say.

    Attributes:
        factor: errors over the deviations predicted.
        plain: root mean square of the errors, in units of the target; None where there are none.
        widths: of intervals, in deviations.
    """

    factor: float
    plain: float | None
    widths: Calibration

    @classmethod
    def of(cls, left_out: LeftOut) -> ErrorScale:
        """Judge a device by its measurements (n,); without any the promise is left as it is."""
        count = len(left_out.errors)
        widths = Calibration.student(max(count - 1, 1) + _PROMISE)
        if not count:
            return cls(1.0, None, widths)
        promised = left_out.deviations
        # Bounded in the deviation of its own, so that no glitch counts as more in either scale.
        bounded = np.minimum(np.abs(left_out.errors) / promised, _LARGEST)
        factor = _root_mean_square(bounded, 1.0)
        plain = _root_mean_square(bounded * promised, float((promised**2).mean()))
        return cls(factor, plain, widths)

    def deviation(self, promised: np.ndarray) -> np.ndarray:
        """Deviations of predictions from those that the model promises: (q,) -> (q,)."""
        own = self.factor * promised
        if self.plain is None:
            return own
        deviation: np.ndarray = self.plain**_PLAIN * own ** (1 - _PLAIN)
        return deviation


def _root_mean_square(errors: np.ndarray, promised: float) -> float:
    """Of errors (n,) and of :data:`_PROMISE` errors with the mean square ``promised``."""
    total = float((errors**2).sum()) + _PROMISE * promised
    return float(np.sqrt(total / (len(errors) + _PROMISE)))
