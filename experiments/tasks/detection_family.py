"""Hand-made detectors beside a front: what a good engineer would train at each size.

As TinyissimoYOLO (Moosmann et al., 2023): plain 3x3 convolutions whose width doubles as their map
halves, and one grid of cells at the end; one width multiplier a member. Anchor-free cells and loss
are those of the task, so that only the networks differ.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from torch import Tensor, nn

if TYPE_CHECKING:
    from nas.studies.value.family import Request

CELL = 8
"""Pixels of a cell; a scene of 96 pixels has 12 x 12."""

UNSURE = -3.0


class Tinyissimo(nn.Module):
    """Images (batch, channels, side, side) -> (batch, cells, outputs)."""

    def __init__(self, channels: int, outputs: int, width: int, *, downs: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = channels
        for i in range(downs):
            out = width * 2**i
            layers += [*_conv(inside, out, 2), *_conv(out, out, 1)]
            inside = out
        layers += [*_conv(inside, 2 * inside, 1), *_conv(2 * inside, inside, 1, kernel=1)]
        self.body = nn.Sequential(*layers)
        self.predict = nn.Conv2d(inside, outputs, 1)
        nn.init.constant_(self.predict.bias[: outputs - 4], UNSURE)  # type: ignore[index]

    def forward(self, x: Tensor) -> Tensor:
        """See the class."""
        return self.predict(self.body(x)).flatten(2).transpose(1, 2)


def _conv(inside: int, out: int, stride: int, *, kernel: int = 3) -> list[nn.Module]:
    return [
        nn.Conv2d(inside, out, kernel, stride, kernel // 2, bias=False),
        nn.BatchNorm2d(out),
        nn.ReLU(),
    ]


def family(request: Request) -> dict[str, Callable[[], nn.Module]]:
    """Return the members: for each size asked for the widest network within it at 8 bits.

    Args:
        request: ``input_channels``, ``outputs`` and ``sizes_kib``.
    """
    widths = sorted({_width(request, kib) for kib in request.sizes_kib})
    return {f"tinyissimo-{w}": lambda w=w: _make(request, w) for w in widths}  # type: ignore[misc]


def _make(request: Request, width: int) -> nn.Module:
    return Tinyissimo(request.input_channels, request.outputs, width)


def _width(request: Request, kib: float) -> int:
    fits = [w for w in range(2, 129) if _kib(_make(request, w)) <= kib]
    return max(fits, default=2)


def _kib(network: nn.Module) -> float:
    """Packed bytes at 8 bits: a byte a weight, a scale and a bias for each output channel."""
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    return sum(m.weight.numel() + 8 * m.out_channels for m in layers) / 1024
