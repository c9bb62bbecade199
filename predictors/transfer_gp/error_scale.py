"""How far off a model is on one device, judged from its own measurements.

A model's standard deviation is a promise; each measurement predicted from the others shows how
well it is kept on this very device. How far errors elsewhere follow those errors is a slope
between logarithms. Noise-free devices do far
better than the promise, noisy ones worse, and both show in the errors. The
widths of intervals in units of the corrected deviation are learned on practice devices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from predictors.transfer_gp.conformal import LEVELS, Calibration

_USUAL_ERROR = 0.6
_LARGEST = 4.0  # of one standardised error: a glitch is no reason for doubt about all others
_LEAST = 0.05  # of the mean: a perfect fit of a few measurements proves no perfection
_USUAL_DEVICES = 5.0  # practice devices that outweigh the widths expected before

# At n measurements: slope, and before any practice the multiple and degrees of freedom of
# Student's t. With measurements chosen by design the model's own deviation is nearly right on
# devices it has never seen the like of (made-up chains and networks with a resolution, none or one
# device known): errors there followed the leave-one-out errors with slopes of -0.2 to 0.3 up to 20
# measurements, and of 1 at 40.
_USUAL = {5: (0.2, 0.75, 3.0), 10: (0.3, 0.82, 3.0), 20: (0.3, 0.95, 4.0), 40: (0.6, 1.05, 5.0)}

# With practice. Slopes were found on devices left out of NAS-Bench-201's meta-training ones, on
# other GPUs, on both without their noise, and on made-up devices with noise of 0 to 30 % of their
# spread; learned on five or nine devices they were anything from 0.9 to 2.3, and covered worse.
_PRACTISED = {5: (0.65, 1.36, 3.0), 10: (1.3, 1.7, 3.0), 20: (1.3, 1.55, 4.0), 40: (1.3, 1.5, 5.0)}


@dataclass(frozen=True)
class Run:
    """One practice adaptation to a device that was left out.

    Attributes:
        left_out: (n,) standardised leave-one-out errors of the measurements.
        held: (m,) standardised errors on architectures that were not measured.
    """

    left_out: np.ndarray
    held: np.ndarray


@dataclass(frozen=True)
class ErrorScale:
    """Widths of intervals that follow the errors on the measurements themselves.

    Attributes:
        slope: of log(error elsewhere) against log(leave-one-out error).
        widths: where the mean leave-one-out error is one standard deviation.
    """

    slope: float
    widths: Calibration

    def calibration(self, left_out: np.ndarray) -> Calibration:
        """Return the widths, in the model's own standard deviations, for one device.

        Args:
            left_out: (n,) standardised leave-one-out errors; below four of them say too little.
        """
        return replace(self.widths, widths=size(left_out) ** self.slope * self.widths.widths)

    def arrays(self, prefix: str) -> dict[str, np.ndarray]:
        """Return the state, for a file."""
        return {f"{prefix}slope": np.array([self.slope]), **self.widths.arrays(prefix)}

    @classmethod
    def from_arrays(cls, arrays: dict[str, np.ndarray]) -> ErrorScale:
        """Rebuild from what :meth:`arrays` returned, without the prefix."""
        return cls(float(arrays["slope"][0]), Calibration(arrays["levels"], arrays["widths"]))


def size(left_out: np.ndarray) -> float:
    """Return the mean absolute standardised error, glitches bounded: left_out: (n,)."""
    if len(left_out) < 4:
        return _USUAL_ERROR
    return max(float(np.minimum(np.abs(left_out), _LARGEST).mean()), _LEAST)


def usual(count: int, *, practised: bool = False) -> ErrorScale:
    """Return what is expected at ``count`` measurements before any practice.

    Args:
        practised: as a start for widths that practice will correct.
    """
    from scipy.stats import t

    known = _PRACTISED if practised else _USUAL
    at = sorted(known)
    slope, multiple, degrees = (
        float(np.interp(np.log(count), np.log(at), [known[n][k] for n in at])) for k in range(3)
    )
    return ErrorScale(slope, Calibration(LEVELS, multiple * t.ppf(0.5 + LEVELS / 2, degrees)))


def learned(runs: list[Run], devices: int, count: int) -> ErrorScale:
    """Return widths that cover what they say on average over practice runs.

    Few devices say little about the next one, and less than their number where they are of one
    kind, so the widths (their logarithms) are drawn towards the usual ones: by a half with five
    devices.

    Args:
        runs: on all devices together.
        devices: how many devices were practised on.
        count: measurements in each run.
    """
    before = usual(count, practised=True)
    scores = np.concatenate([run.held / size(run.left_out) ** before.slope for run in runs])
    found = np.maximum(Calibration.from_scores(scores).widths, 1e-6)
    share = devices**2 / (devices**2 + _USUAL_DEVICES**2)
    widths = np.exp(share * np.log(found) + (1 - share) * np.log(before.widths.widths))
    return ErrorScale(before.slope, Calibration(LEVELS, widths))
