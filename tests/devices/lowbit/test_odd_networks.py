"""Small networks with what people's networks have beside layers, in the low-bit runtime.

Each is quantised, exported and packed, and computes what ONNX Runtime makes of the file; those
whose operations have integer kernels run on nothing else.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from devices.lowbit.build import find_compiler
from devices.runtime import make_runtime
from nas.models.parity import evaluate_onnx
from search_spaces.errors import EnvironmentProblem
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training

pytestmark = pytest.mark.long


@pytest.fixture(autouse=True)
def compiler():
    try:
        find_compiler()
    except EnvironmentProblem as error:
        pytest.skip(str(error))


def block(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, **options) -> nn.Module:
    options = {"padding": kernel // 2, **options}
    layer = nn.Conv2d(inputs, outputs, kernel, stride, bias=False, **options)
    return nn.Sequential(layer, nn.BatchNorm2d(outputs), nn.ReLU())


def ended(channels: int, *layers: nn.Module) -> nn.Module:
    tail = nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 5)
    return nn.Sequential(*layers, *tail)


class Wired(nn.Module):
    """Modules by name, and a function that wires them."""

    def __init__(self, wire: Callable[[nn.Module, Tensor], Tensor], **parts: nn.Module) -> None:
        super().__init__()
        self.wire = wire
        for name, part in parts.items():
            self.add_module(name, part)

    def forward(self, x: Tensor) -> Tensor:
        """``x``: (batch, 3, height, width) -> (batch, channels, ...)."""
        return self.wire(self, x)


def unet(up: nn.Module) -> nn.Module:
    def wire(m, x):
        a = m.a(x)
        return m.head(m.c(torch.cat([a, m.up(m.b(F.max_pool2d(a, 2)))], 1)))

    parts = {"a": block(3, 8), "b": block(8, 16), "up": up, "c": block(16, 8)}
    return Wired(wire, **parts, head=nn.Conv2d(8, 2, 1))


def average_shortcut() -> nn.Module:
    def bare(inputs, outputs, kernel):
        layer = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
        return nn.Sequential(layer, nn.BatchNorm2d(outputs))

    return ended(
        32,
        Wired(
            lambda m, x: F.relu(m.b(m.a(s := m.stem(x))) + m.short(s)),
            stem=block(3, 16),
            a=block(16, 32, 3, 2),
            b=bare(32, 32, 3),
            short=nn.Sequential(nn.AvgPool2d(2), bare(16, 32, 1)),
        ),
    )


def uneven(mode: str) -> nn.Module:
    def wire(m, x):
        return m.b(F.pad(m.a(F.pad(x, (0, 1, 0, 1), mode)), (1, 2, 0, 1), mode))

    none = {"padding": 0}
    return ended(
        16, Wired(wire, a=block(3, 16, 3, 2, **none), b=block(16, 16, 3, 2, groups=16, **none))
    )


def inception() -> nn.Module:
    def wire(m, x):
        x = m.stem(x)
        return torch.cat([m.a(x), m.b(x), m.c(x)], 1)

    return ended(
        24,
        Wired(
            wire,
            stem=block(3, 16),
            a=block(16, 8, 1),
            b=nn.Sequential(block(16, 8, 1), block(8, 8)),
            c=nn.Sequential(nn.AvgPool2d(3, 1, 1), block(16, 8, 1)),
        ),
    )


def shuffled() -> nn.Module:
    def wire(m, x):
        kept, changed = m.stem(x).chunk(2, 1)
        x = torch.cat([kept, m.b(changed)], 1)
        n, c, h, w = x.shape
        return m.last(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    inner = nn.Sequential(block(8, 8, 1), block(8, 8, groups=8), block(8, 8, 1))
    return ended(24, Wired(wire, stem=block(3, 16), b=inner, last=block(16, 24, 1)))


def focus() -> nn.Module:
    def wire(m, x):
        parts = [x[..., i::2, j::2] for j in (0, 1) for i in (0, 1)]
        return m.a(torch.cat(parts, 1))

    return ended(16, Wired(wire, a=block(12, 16)))


def cropped() -> nn.Module:
    def wire(m, x):
        x = m.a(x)
        return m.c(m.b(x) + x[:, :, 1:-1, 1:-1])

    return ended(8, Wired(wire, a=block(3, 16), b=block(16, 16, padding=0), c=block(16, 8, 1)))


def widened() -> nn.Module:
    def wire(m, x):
        x = m.a(x)
        return F.relu(m.b(x) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 4, 4)))

    inner = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16))
    return ended(16, Wired(wire, a=block(3, 8), b=inner))


def pooled(pool: nn.Module) -> nn.Module:
    return ended(16, block(3, 16), pool, block(16, 16, 1))


def normed(norm: Callable[[], nn.Module]) -> nn.Module:
    convs = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, 2, 1)
    return ended(16, convs[0], norm(), nn.ReLU(), convs[1], norm(), nn.ReLU())


def activated(function: nn.Module) -> nn.Module:
    return ended(16, nn.Conv2d(3, 16, 3, padding=1), function, nn.Conv2d(16, 16, 3, 2, 1), function)


INTEGER = {
    "average pools as shortcuts": average_shortcut,
    "uneven zeros": lambda: uneven("constant"),
    "uneven reflections": lambda: uneven("reflect"),
    "uneven edges": lambda: uneven("replicate"),
    "inception": inception,
    "focus": focus,
    "channel shuffle": shuffled,
    "cropped": cropped,
    "channels padded": widened,
    "pixel shuffle": lambda: ended(
        8, block(3, 16), nn.Conv2d(16, 12, 3, padding=1), nn.PixelShuffle(2), block(3, 8)
    ),
    "pool that counts its zeros": lambda: pooled(nn.AvgPool2d(3, 2, 1)),
    "relu6": lambda: activated(nn.ReLU6()),
    "adaptive pool": lambda: nn.Sequential(
        block(3, 16), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(64, 5)
    ),
}
"""Networks without a float operation."""

FLOAT = {
    "u-net": lambda: unet(nn.ConvTranspose2d(16, 8, 2, 2)),
    "u-net with overlap": lambda: unet(nn.ConvTranspose2d(16, 8, 3, 2, 1, output_padding=1)),
    "transposed by channel": lambda: ended(
        8, block(3, 16), nn.ConvTranspose2d(16, 16, 4, 2, 1, groups=16), nn.ReLU(), block(16, 8)
    ),
    "pool without its zeros": lambda: pooled(nn.AvgPool2d(3, 2, 1, count_include_pad=False)),
    "pool that rounds up": lambda: pooled(nn.AvgPool2d(3, 2, ceil_mode=True)),
    "group norm": lambda: normed(lambda: nn.GroupNorm(4, 16)),
    "instance norm": lambda: normed(lambda: nn.InstanceNorm2d(16, affine=True)),
    "circular": lambda: ended(16, nn.Conv2d(3, 16, 3, padding=1, padding_mode="circular")),
    "leaky relu": lambda: activated(nn.LeakyReLU()),
    "parametric relu": lambda: activated(nn.PReLU(16)),
    "elu": lambda: activated(nn.ELU()),
    "mish": lambda: activated(nn.Mish()),
    "largest value": lambda: nn.Sequential(
        Wired(lambda m, x: m.a(x).amax((2, 3)), a=block(3, 16)), nn.Linear(16, 5)
    ),
}
"""Networks of which parts are computed in floats."""


PAIRS = [*((name, (8, 4)) for name in INTEGER), *((name, (4, 8)) for name in (*INTEGER, *FLOAT))]


@pytest.mark.parametrize(("name", "bits"), PAIRS)
def test_it_computes_what_onnx_runtime_makes_of_the_file(name, bits, tmp_path):
    torch.manual_seed(0)
    network = {**INTEGER, **FLOAT}[name]()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(16, 3, 16, 16))
    images = torch.randn(8, 3, 16, 16)
    codes = quantize_post_training(network.eval(), [images], bits, steps=(), edge_bits=None)
    path = tmp_path / "m.onnx"
    export_onnx(codes, path)
    expected = evaluate_onnx(path, [images], optimise=False)
    session = make_runtime("lowbit", {"batch": 8, "tune": False}).load(path)
    found = session(images.numpy())[0]
    # Some values lie between two codes, and another order of sums takes the other one.
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    off = np.abs(found - expected).reshape(8, -1).max(1) > 1e-4 * np.abs(expected).max()
    assert off.mean() <= 0.5
    assert (session.network.float_operations == []) == (name in INTEGER)
