"""ResNet-20 (He et al., CVPR 2016, section 4.2) for one channel, as a user would write it.

No part of the framework is used here: it is the network that somebody brings along.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Two 3x3 convolutions and a shortcut, a 1x1 convolution where the shape changes."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or channels != filters:
            self.shortcut = nn.Sequential(
                nn.Conv2d(channels, filters, 1, stride, bias=False), nn.BatchNorm2d(filters)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Turn (batch, channels, h, w) into (batch, filters, h / stride, w / stride)."""
        h = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.shortcut(x) + self.bn2(self.conv2(h)))


class ResNet20(nn.Module):
    """Three stages of three blocks.

    Args:
        width: factor of all channels (16, 32 and 64).
        depth: blocks of each stage.
        outputs: classes.
    """

    def __init__(self, width: float = 1.0, depth: int = 3, outputs: int = 10) -> None:
        super().__init__()
        first, second, third = (max(4, round(width * c / 4) * 4) for c in (16, 32, 64))
        self.conv = nn.Conv2d(1, first, 3, 1, 1, bias=False)
        self.bn = nn.BatchNorm2d(first)

        def stage(channels: int, filters: int, stride: int) -> nn.Sequential:
            blocks = [Block(channels, filters, stride)]
            blocks += [Block(filters, filters, 1) for _ in range(depth - 1)]
            return nn.Sequential(*blocks)

        self.stage1 = stage(first, first, 1)
        self.stage2 = stage(first, second, 2)
        self.stage3 = stage(second, third, 2)
        self.fc = nn.Linear(third, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Turn images (batch, 1, h, w) into logits (batch, outputs)."""
        x = F.relu(self.bn(self.conv(x)))
        x = self.stage3(self.stage2(self.stage1(x)))
        return self.fc(x.mean((2, 3)))


def make(width: float = 1.0, depth: int = 3) -> ResNet20:
    """Return the network with random weights."""
    return ResNet20(width, depth)
