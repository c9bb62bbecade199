"""Plain convolutional networks for signals: what a good engineer tries first."""

from __future__ import annotations

import math

from torch import Tensor, nn

from search_spaces.parameters import round_channels

LAYERS = ((128, 9), (256, 5), (128, 3))
"""Output channels at width 1, and kernel."""

_LONGEST = 32
"""Signals are halved, by at most each layer once, until they are about that long."""


class PlainSignalNet(nn.Module):
    """Three convolutions, the mean over time and a linear layer.

    The fully convolutional network of Wang, Yan and Oates (IJCNN 2017), a strong baseline for time
    series; its layers halve long signals, and its first kernel has 9 points instead of 8.

    Args:
        input_channels, length, outputs: of the signals (batch, channels, 1, length), and of the
            last layer.
        width: multiplier of every number of channels, rounded to multiples of 2.
    """

    def __init__(self, input_channels: int, length: int, outputs: int, width: float) -> None:
        super().__init__()
        halvings = max(0, round(math.log2(max(1.0, length / _LONGEST))))
        layers: list[nn.Module] = []
        before = input_channels
        for index, (at_one, kernel) in enumerate(LAYERS):
            channels = int(round_channels(at_one * width, 2))
            layers += [
                nn.Conv2d(
                    before,
                    channels,
                    (1, kernel),
                    (1, 2 if index < halvings else 1),
                    (0, kernel // 2),
                    bias=False,
                ),
                nn.BatchNorm2d(channels),
                nn.ReLU(),
            ]
            before = channels
        self.body = nn.Sequential(*layers)
        self.classifier = nn.Linear(before, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return (batch, outputs) of signals (batch, channels, 1, length)."""
        return self.classifier(self.body(x).mean((2, 3)))
