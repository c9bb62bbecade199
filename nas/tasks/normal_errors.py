"""How strange an error of a network is beside its errors on normal windows, with NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.spaces.autoencoder import PATCH

SEGMENT = 64
"""Values of a segment, of all channels together; see :class:`NormalErrors`."""

DIRECTIONS = (1, 2, 4, 8, 16, 32, 64)
"""How many directions :class:`NormalWindows` may leave out, as far as they fit in what
:class:`NormalErrors` keeps: ``SEGMENT ** 2`` values."""


@dataclass(frozen=True)
class NormalErrors:
    """How a network errs on normal windows, beside which errors of others are judged.

    Errors of a network are alike from window to window: what its code has no room for, and the
    noise of a channel. So an error is measured by mean and covariance of those on normal windows
    (Malhotra et al., LSTM-based encoder-decoder for multi-sensor anomaly detection, 2016, section
    2.3). Covariances are those of segments, :data:`SEGMENT` values of all channels together or
    fewer, one at every :data:`PATCH`-th value of a window: few enough to be known from few windows
    and to be kept on a device.

    Attributes:
        mean: of a segment, (channels * values,) float64.
        inverse: of the covariance, (channels * values, channels * values) float64.
    """

    mean: np.ndarray
    inverse: np.ndarray

    @classmethod
    def of(cls, differences: np.ndarray) -> NormalErrors:
        """Return what the errors of normal windows say.

        The covariance is drawn to a multiple of the identity, the more the fewer segments there
        are for the values of one.

        Args:
            differences: (windows, channels, length), what is given back minus what was there.
        """
        segments = _segments(differences)
        size = segments.shape[2]
        mean = segments.mean((0, 1))
        away = (segments - mean).reshape(-1, size)
        covariance = away.T @ away / len(away)
        # Segments overlap: values of their own there are only so many.
        drawn = size / (size + differences.size / size)
        even = max(float(np.trace(covariance)) / size, float(np.finfo(np.float32).tiny))
        return cls(mean, np.linalg.inv((1 - drawn) * covariance + drawn * even * np.eye(size)))

    def scores(self, differences: np.ndarray) -> np.ndarray:
        """Return the anomaly score of each window, (windows,): larger for stranger ones.

        About 1 for normal windows. ``differences``: (windows, channels, length).
        """
        away = _segments(differences) - self.mean
        # Squares are summed where they are: no windows x segments x values x values.
        return ((away @ self.inverse) * away).mean((1, 2))


@dataclass(frozen=True)
class NormalWindows:
    """Directions in which errors on whole normal windows differ, which say nothing.

    What is left of an error without them is judged: principal components (Pearson, 1901) of
    errors. Where windows are aligned, as heartbeats are, it says more than segments, which do not
    know where in a window they are; where the network gives nothing back, it is what principal
    components of the windows say.

    Attributes:
        mean: of an error, (channels * length,) float64.
        directions: orthonormal columns, (channels * length, count) float64.
    """

    mean: np.ndarray
    directions: np.ndarray

    @classmethod
    def of(cls, differences: np.ndarray, count: int) -> NormalWindows:
        """Return the ``count`` first directions of errors (windows, channels, length), if as many.

        Fewer than ``count`` windows have no more directions than there are windows.
        """
        errors = differences.reshape(len(differences), -1).astype(np.float64)
        mean = errors.mean(0)
        return cls(mean, np.linalg.svd(errors - mean, full_matrices=False)[2][:count].T)

    def scores(self, differences: np.ndarray) -> np.ndarray:
        """Return the mean square of what is left of each window, (windows,).

        ``differences``: (windows, channels, length).
        """
        away = differences.reshape(len(differences), -1) - self.mean
        left = away - away @ self.directions @ self.directions.T
        return (left**2).mean(1)


def judge_of(differences: np.ndarray, directions: int) -> NormalErrors | NormalWindows:
    """Return what errors of normal windows say: of segments for no ``directions``, else of windows.

    ``differences``: (windows, channels, length).
    """
    if directions:
        return NormalWindows.of(differences, directions)
    return NormalErrors.of(differences)


def segment_length(channels: int, length: int) -> int:
    """Return how many values of each channel a segment of a window has: a multiple of PATCH."""
    return PATCH * max(1, min(length, SEGMENT // channels) // PATCH)


def _segments(windows: np.ndarray) -> np.ndarray:
    """Return (n, segments, channels * values) float64 of windows (n, channels, length)."""
    count, channels, length = windows.shape
    long = segment_length(channels, length)
    views = np.lib.stride_tricks.sliding_window_view(windows, long, axis=2)[:, :, ::PATCH]
    return views.transpose(0, 2, 1, 3).reshape(count, -1, channels * long).astype(np.float64)
