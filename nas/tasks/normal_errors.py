"""How strange an error of a network is beside its errors on normal windows, with NumPy alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from search_spaces.spaces.autoencoder import PATCH

SEGMENT = 64
"""Values of a segment, of all channels together; see :class:`NormalErrors`."""


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


def segment_length(channels: int, length: int) -> int:
    """Return how many values of each channel a segment of a window has: a multiple of PATCH."""
    return PATCH * max(1, min(length, SEGMENT // channels) // PATCH)


def _segments(windows: np.ndarray) -> np.ndarray:
    """Return (n, segments, channels * values) float64 of windows (n, channels, length)."""
    count, channels, length = windows.shape
    long = segment_length(channels, length)
    views = np.lib.stride_tricks.sliding_window_view(windows, long, axis=2)[:, :, ::PATCH]
    return views.transpose(0, 2, 1, 3).reshape(count, -1, channels * long).astype(np.float64)
