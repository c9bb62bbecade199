"""Ranges of channels are made alike, and the network computes what it did."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from supernet.ptq.balance import balance, streams
from supernet.ptq.graph import trace_float
from supernet.ptq.quantize import quantize_post_training


class Bottlenecks(nn.Module):
    """A stream of sums without non-linearities, as between linear bottlenecks, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.wide = nn.ModuleList(nn.Conv2d(8, 16, 1) for _ in range(2))
        self.deep = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1, groups=16) for _ in range(2))
        self.back = nn.ModuleList(nn.Conv2d(16, 8, 1) for _ in range(2))
        self.fc = nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x)
        for wide, deep, back in zip(self.wide, self.deep, self.back, strict=True):
            x = x + back(F.relu(deep(F.relu6(wide(x)))))
        return self.fc(x.mean((2, 3)))


@pytest.fixture
@torch.no_grad()
def network():
    torch.manual_seed(0)
    made = Bottlenecks().eval()
    uneven = torch.logspace(-2, 1, 8)
    for layer in (made.stem, *made.back):
        layer.weight.mul_(uneven.view(-1, 1, 1, 1))
        layer.bias.mul_(uneven)
    for layer in made.wide:
        layer.weight.div_(uneven.view(1, -1, 1, 1))
    made.fc.weight.div_(uneven)
    return made


def images(count: int = 32) -> torch.Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def test_streams_end_where_channels_are_not_free(network):
    found = {frozenset(s.makers): set(s.readers) for s in streams(trace_float(network, images()))}
    # The stream is one; a ReLU passes a factor on, and one that is cut off at 6 does not.
    assert found[frozenset({"stem", "back.0", "back.1"})] == {"wide.0", "wide.1", "fc"}
    assert found[frozenset({"deep.0"})] == {"back.0"}
    assert not any("wide.0" in makers for makers in found)


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
@torch.no_grad()
def test_the_outputs_stay_and_full_strength_makes_ranges_equal(network, strength):
    expected = network(images())
    graph = trace_float(network, images())
    assert balance(graph, images(), strength=strength) == 3
    assert torch.allclose(graph.module(images()), expected, rtol=1e-4, atol=1e-4)
    if strength == 1.0:
        stem = graph.layer("stem")(images()).abs().amax((0, 2, 3))
        before = network.stem(images()).abs().amax((0, 2, 3))
        assert stem.max() / stem.min() < 0.1 * (before.max() / before.min())


@torch.no_grad()
def test_eight_bits_lose_less_where_channels_differ(network):
    expected = network(images())
    errors = []
    for steps in ((), ("balance",)):
        quantised = quantize_post_training(copy.deepcopy(network), [images()], (8, 8), steps=steps)
        errors.append((quantised(images()) - expected).norm() / expected.norm())
    assert errors[1] < 0.5 * errors[0]


class Odd(nn.Module):
    """A stream that is also an output, one with a constant added, and one that is concatenated."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Conv2d(3 if i == 0 else 4, 4, 1) for i in range(3))
        self.d = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.a(x)
        y = self.b(x + 1.0)
        z = self.c(y)
        return self.d(torch.cat([y, z], 1)).mean((2, 3)), z


def test_what_anything_else_looks_at_is_left_alone():
    torch.manual_seed(0)
    assert streams(trace_float(Odd().eval(), images())) == []
