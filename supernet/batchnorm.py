"""Batch-norm statistics as values: of a batch, recorded over batches, or frozen.

A shared network has no single set of running statistics: they depend on the
architecture and on its bits. So the layers hold only scale and shift, and the
statistics are an argument of the forward pass. Re-estimating them for each subnet is
the calibration of Yu & Huang (Universally Slimmable Networks, ICCV 2019, section 3.2).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

EPSILON = 1e-5

Statistics = Mapping[str, tuple[Tensor, Tensor]]
"""Layer name -> (mean, variance), each (channels,)."""


class BatchNorm(ABC):
    """How a layer's output is normalised in a forward pass."""

    @abstractmethod
    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise ``x`` (batch, channels, height, width) of the layer ``name``."""


class BatchStatistics(BatchNorm):
    """Normalise by the moments of the batch itself, as in training."""

    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise ``x`` (batch, channels, height, width); ``name`` is not used."""
        return F.batch_norm(x, None, None, weight, bias, True, 0.0, EPSILON)


class MomentRecorder(BatchNorm):
    """Normalise by batch moments and pool them over batches.

    The pooled variance holds the variance of the batch means, so the result is that of
    all images together (for a layer whose input does not depend on the batching).
    """

    def __init__(self) -> None:
        self._sums: dict[str, tuple[Tensor, Tensor, int]] = {}

    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise ``x`` (batch, channels, height, width) and record its moments."""
        y, mean, inverse = torch.native_batch_norm(x, weight, bias, None, None, True, 0.0, EPSILON)
        count = x.numel() // x.shape[1]
        mean = mean.double()
        square = inverse.double().pow(-2) - EPSILON + mean**2
        total = self._sums.get(name)
        first, second, n = total or (torch.zeros_like(mean), torch.zeros_like(mean), 0)
        self._sums[name] = (first + count * mean, second + count * square, n + count)
        return y

    def statistics(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Return the pooled mean and variance of every layer seen, each (channels,) float32."""
        pooled = {}
        for name, (first, second, count) in self._sums.items():
            mean = first / count
            variance = (second / count - mean**2).clamp(min=0)
            pooled[name] = (mean.float(), variance.float())
        return pooled


class FrozenStatistics(BatchNorm):
    """Normalise by given statistics, as in inference."""

    def __init__(self, statistics: Statistics) -> None:
        self.statistics = statistics

    def __call__(self, name: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """Normalise ``x`` (batch, channels, height, width).

        Raises:
            KeyError: no statistics were recorded for ``name``.
        """
        mean, variance = self.statistics[name]
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, EPSILON)


@torch.no_grad()
def record_statistics(
    forward: Callable[[Tensor, BatchNorm], Tensor], batches: Iterable[Tensor]
) -> dict[str, tuple[Tensor, Tensor]]:
    """Pool batch-norm statistics of ``forward(images, norm)`` over ``batches``.

    ``forward`` must run with the bits it will be used with: quantisation changes every
    moment, so statistics recorded before the bits are set belong to another network.
    """
    recorder = MomentRecorder()
    for images in batches:
        forward(images, recorder)
    return recorder.statistics()
