"""Hand-made autoencoders of windows beside a front: what a good engineer would train at each size.

Three strided convolutions, a code of few channels and one convolution back (Sakurada & Yairi, MLSDA
2014, with convolutions in place of full layers); one width multiplier a member. Windows, loss and
score are those of the task, so that only the networks differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

from nas.studies.value.family import packed_kib

if TYPE_CHECKING:
    from nas.studies.value.family import Request

CODE = 4
"""Channels of the code, for every eight values of a channel."""

KERNEL = 9


class PlainAutoencoder(nn.Module):
    """Windows (batch, channels, 1, length) -> (batch, outputs, 1, length / 8)."""

    def __init__(self, channels: int, outputs: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = channels
        for out in (width, 2 * width, 2 * width):
            layers += [*_conv(inside, out, KERNEL, 2), nn.ReLU()]
            inside = out
        self.encode = nn.Sequential(*layers, *_conv(inside, CODE, 1, 1))
        self.decode = nn.Sequential(*_conv(CODE, 2 * width, 3, 1), nn.ReLU())
        self.predict = nn.Conv2d(2 * width, outputs, (1, 3), padding=(0, 1))

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.predict(self.decode(self.encode(x)))


def _conv(inside: int, out: int, kernel: int, stride: int) -> list[nn.Module]:
    padding = (0, kernel // 2)
    return [
        nn.Conv2d(inside, out, (1, kernel), (1, stride), padding, bias=False),
        nn.BatchNorm2d(out),
    ]


def family(request: Request) -> dict[str, Callable[[], nn.Module]]:
    """Return the members: for each size asked for the widest network within it at 8 bits.

    Args:
        request: ``input_channels``, ``outputs`` and ``sizes_kib``.
    """

    def make(width: int) -> nn.Module:
        return PlainAutoencoder(request.input_channels, request.outputs, width)

    widths = set()
    for kib in request.sizes_kib:
        widths.add(max((w for w in range(2, 65) if packed_kib(make(w)) <= kib), default=2))
    return {f"plain-{w}": lambda w=w: make(w) for w in sorted(widths)}  # type: ignore[misc]
