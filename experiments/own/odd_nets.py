"""Small networks that each hold something people's networks have beside layers."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Make = Callable[[], nn.Module]


def block(
    inputs: int, outputs: int, kernel: int = 3, stride: int = 1, *, groups: int = 1,
    padding: int | None = None, active: bool = True,
) -> nn.Sequential:  # fmt: skip
    """Convolution, batch norm and ReLU."""
    around = kernel // 2 if padding is None else padding
    layer = nn.Conv2d(inputs, outputs, kernel, stride, around, groups=groups, bias=False)
    parts = [layer, nn.BatchNorm2d(outputs), *([nn.ReLU()] if active else [])]
    return nn.Sequential(*parts)


def ended(channels: int, *layers: nn.Module) -> nn.Sequential:
    """Layers, a mean over all pixels, and a linear layer."""
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5))


class Wired(nn.Module):
    """Modules by name, and a function that wires them."""

    def __init__(self, wire: Callable[..., Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.wire = wire
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (batch, 3, height, width) -> (batch, channels, ...)."""
        return self.wire(self, x)


def _unet(up: nn.Module) -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        a = m.a(x)
        return m.head(m.c(torch.cat([a, m.up(m.b(F.max_pool2d(a, 2)))], 1))).mean((2, 3))

    parts = {"a": block(3, 8), "b": block(8, 16), "up": up, "c": block(16, 8)}
    return Wired(wire, **parts, head=nn.Conv2d(8, 2, 1))


def _upsampled(mode: str) -> nn.Module:
    return nn.Sequential(nn.Upsample(scale_factor=2, mode=mode), nn.Conv2d(16, 8, 3, 1, 1))


def _average_shortcut() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.stem(x)
        return F.relu(m.b(m.a(x)) + m.short(x))

    short = nn.Sequential(nn.AvgPool2d(2), block(16, 32, 1, active=False))
    b = block(32, 32, active=False)
    return ended(32, Wired(wire, stem=block(3, 16), a=block(16, 32, 3, 2), b=b, short=short))


def _uneven(mode: str) -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.a(F.pad(x, (0, 1, 0, 1), mode))
        return m.c(m.b(F.pad(x, (0, 1, 0, 1), mode)))

    b = block(16, 16, 3, 2, groups=16, padding=0)
    return ended(24, Wired(wire, a=block(3, 16, 3, 2, padding=0), b=b, c=block(16, 24, 1)))


def _inception() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.stem(x)
        return torch.cat([m.a(x), m.b(x), m.c(x), m.d(x)], 1)

    parts = {
        "a": block(16, 8, 1),
        "b": nn.Sequential(block(16, 8, 1), block(8, 12)),
        "c": nn.Sequential(block(16, 4, 1), block(4, 8, 5)),
        "d": nn.Sequential(nn.AvgPool2d(3, 1, 1), block(16, 8, 1)),
    }
    return ended(36, Wired(wire, stem=block(3, 16), **parts))


def _shuffled() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        kept, changed = m.stem(x).chunk(2, 1)
        x = torch.cat([kept, m.b(changed)], 1)
        n, c, h, w = x.shape
        return m.last(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    inner = nn.Sequential(block(8, 8, 1), block(8, 8, groups=8), block(8, 8, 1))
    return ended(24, Wired(wire, stem=block(3, 16), b=inner, last=block(16, 24, 1)))


def _focus() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        return m.a(torch.cat([x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)], 1))

    return ended(16, Wired(wire, a=block(12, 16)))


def _cropped() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.c(m.b(x) + x[:, :, 1:-1, 1:-1])

    return ended(8, Wired(wire, a=block(3, 16), b=block(16, 16, padding=0), c=block(16, 8, 1)))


def _widened() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.a(x)
        return F.relu(m.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))

    return ended(16, Wired(wire, a=block(3, 8), b=block(8, 16, 3, 2, active=False)))


def _squeezed() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.b(x * torch.sigmoid(m.u(F.relu(m.d(F.adaptive_avg_pool2d(x, 1))))))

    d, u = nn.Conv2d(16, 4, 1), nn.Conv2d(4, 16, 1)
    return ended(8, Wired(wire, a=block(3, 16), d=d, u=u, b=block(16, 8)))


def _gated() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        a, b = m.a(x).chunk(2, 1)
        return torch.tanh(a) * torch.sigmoid(b)

    return ended(8, Wired(wire, a=nn.Conv2d(3, 16, 3, padding=1)))


def _largest() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.a(x)
        return m.fc(torch.cat([x.amax((2, 3)), x.mean((2, 3))], 1))

    return Wired(wire, a=block(3, 16), fc=nn.Linear(32, 5))


def _normed(norm: Make) -> Make:
    def make() -> nn.Module:
        a, b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1)
        return ended(16, a, norm(), nn.ReLU(), b, norm(), nn.ReLU())

    return make


def _active(function: Make) -> Make:
    def make() -> nn.Module:
        a, b = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1)
        return ended(16, a, nn.BatchNorm2d(16), function(), b, function())

    return make


def _pooled(**options: object) -> Make:
    return lambda: ended(16, block(3, 16), nn.AvgPool2d(3, **options), block(16, 16, 1))  # type: ignore[arg-type]


def _padded(**options: object) -> Make:
    return lambda: ended(16, nn.Conv2d(3, 16, **options), nn.ReLU())  # type: ignore[arg-type]


NETWORKS: dict[str, Make] = {
    "u-net, transposed convolution": lambda: _unet(nn.ConvTranspose2d(16, 8, 2, 2)),
    "u-net, transposed with overlap": lambda: _unet(
        nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1)
    ),
    "u-net, nearest neighbours": lambda: _unet(_upsampled("nearest")),
    "u-net, bilinear": lambda: _unet(_upsampled("bilinear")),
    "transposed by channel": lambda: ended(
        8, block(3, 16), nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16), nn.ReLU(), block(16, 8)
    ),
    "average pools as shortcuts": _average_shortcut,
    "uneven zeros": lambda: _uneven("constant"),
    "uneven reflections": lambda: _uneven("reflect"),
    "uneven edges": lambda: _uneven("replicate"),
    "inception": _inception,
    "channel shuffle": _shuffled,
    "pixel shuffle": lambda: ended(
        8, block(3, 16), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2), block(3, 8)
    ),
    "focus": _focus,
    "cropped": _cropped,
    "channels padded": _widened,
    "squeezed": _squeezed,
    "gated": _gated,
    "largest values": _largest,
    "group norm": _normed(lambda: nn.GroupNorm(4, 16)),
    "group norm of all": _normed(lambda: nn.GroupNorm(1, 16)),
    "instance norm": _normed(lambda: nn.InstanceNorm2d(16, affine=True)),
    "max pool that rounds up": lambda: ended(
        16, block(3, 16), nn.MaxPool2d(3, 2, 1, ceil_mode=True), block(16, 16, 1)
    ),
    "pool that counts its zeros": _pooled(stride=2, padding=1),
    "pool without its zeros": _pooled(stride=2, padding=1, count_include_pad=False),
    "average pool that rounds up": _pooled(stride=2, ceil_mode=True),
    "adaptive pool": lambda: nn.Sequential(
        block(3, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    ),
    "dilated": _padded(kernel_size=3, padding=2, dilation=2),
    "as large, even kernel": _padded(kernel_size=4, padding="same"),
    "circular": _padded(kernel_size=3, padding=1, padding_mode="circular"),
    "reflected": _padded(kernel_size=3, padding=1, padding_mode="reflect"),
    **{
        name: _active(function)
        for name, function in {
            "relu6": nn.ReLU6, "hard-swish": nn.Hardswish, "hard-sigmoid": nn.Hardsigmoid,
            "silu": nn.SiLU, "gelu": nn.GELU, "leaky relu": nn.LeakyReLU, "elu": nn.ELU,
            "mish": nn.Mish, "softplus": nn.Softplus, "parametric relu": lambda: nn.PReLU(16),
            "hard tanh": nn.Hardtanh, "tanh": nn.Tanh, "selu": nn.SELU,
        }.items()
    },
}  # fmt: skip
"""Name -> function that makes a network of images (batch, 3, 16, 16) with random weights."""
