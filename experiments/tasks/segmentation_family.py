"""Hand-made U-Nets beside a front: what a good engineer would train at each size.

As U-Net (Ronneberger et al., MICCAI 2015) with nearest-neighbour enlarging and sums in place of
concatenations, a quarter of the image's side at the end; one width multiplier a member.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional as F

from experiments.tasks.detection_family import _conv, _kib

if TYPE_CHECKING:
    from nas.studies.value.family import Request


class TinyUNet(nn.Module):
    """Images (batch, channels, side, side) -> (batch, classes, side / 4, side / 4)."""

    def __init__(self, channels: int, classes: int, width: int) -> None:
        super().__init__()
        w = width
        self.stem = nn.Sequential(*_conv(channels, w, 2), *_conv(w, w, 1))
        self.down1 = nn.Sequential(*_conv(w, 2 * w, 2), *_conv(2 * w, 2 * w, 1))
        self.down2 = nn.Sequential(*_conv(2 * w, 4 * w, 2), *_conv(4 * w, 4 * w, 1))
        self.down3 = nn.Sequential(*_conv(4 * w, 4 * w, 2), *_conv(4 * w, 4 * w, 1))
        self.up2 = nn.Sequential(*_conv(4 * w, 2 * w, 1))
        self.up1 = nn.Sequential(*_conv(2 * w, 2 * w, 1))
        self.classify = nn.Conv2d(2 * w, classes, 1)

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        quarter = self.down1(self.stem(x))
        eighth = self.down2(quarter)
        deep = self.down3(eighth)
        joined = eighth + F.interpolate(deep, scale_factor=2.0, mode="nearest")
        large = F.interpolate(self.up2(joined), scale_factor=2.0, mode="nearest")
        return self.classify(self.up1(quarter + large))


def family(request: Request) -> dict[str, Callable[[], nn.Module]]:
    """Return the members: for each size asked for the widest network within it at 8 bits.

    Args:
        request: ``input_channels``, ``outputs`` and ``sizes_kib``.
    """
    widths = sorted({_width(request, kib) for kib in request.sizes_kib})
    return {f"unet-{w}": lambda w=w: _make(request, w) for w in widths}  # type: ignore[misc]


def _make(request: Request, width: int) -> nn.Module:
    return TinyUNet(request.input_channels, request.outputs, width)


def _width(request: Request, kib: float) -> int:
    fits = [w for w in range(2, 97) if _kib(_make(request, w)) <= kib]
    return max(fits, default=2)
