"""A channel matters by the variance that it brings to the outputs of what reads it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from supernet.own_model.graph import ModuleGraph
from supernet.own_model.importance import channel_importance


class Chain(nn.Module):
    """A convolution of six channels, read by two others, one of them behind a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 3, bias=False), nn.BatchNorm2d(6)
        self.left = nn.Conv2d(6, 4, 1, bias=False)
        self.right, self.behind = nn.Conv2d(6, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        h = F.relu(self.norm(self.first(x)))
        both = torch.cat([self.left(h), self.behind(self.right(h))], 1)
        return self.fc(F.relu(both).mean((2, 3)))


def importance(network: nn.Module) -> torch.Tensor:
    graph = ModuleGraph(network.eval(), (1, 8, 8))
    width = next(w for w in graph.free_widths() if w.layers == ["first"])
    return channel_importance(graph, width)


@torch.no_grad()
def test_it_is_the_variance_that_random_inputs_bring():
    torch.manual_seed(0)
    network = Chain()
    network.norm.weight.uniform_(0.2, 2)
    network.norm.bias.normal_()
    network.behind.running_var.uniform_(0.1, 4)
    found = importance(network)
    # The norm makes normal variables; what each brings is measured on many of them.
    values = torch.randn(200_000, 6) * network.norm.weight + network.norm.bias
    variance = F.relu(values).var(0)
    deviation = (network.behind.running_var + network.behind.eps).sqrt()
    right = network.right.weight.flatten(1) * (network.behind.weight / deviation)[:, None]
    read = network.left.weight.flatten(1).square().sum(0) + right.square().sum(0)
    assert torch.allclose(found, variance * read, rtol=0.05, atol=1e-4)


@torch.no_grad()
def test_a_channel_that_never_varies_comes_last_whatever_its_weights():
    torch.manual_seed(0)
    network = Chain()
    network.first.weight[2] *= 100
    network.norm.weight[2] = 0
    # Always below zero: it is cut off.
    network.norm.bias[4] = -50
    assert set(importance(network).argsort()[:2].tolist()) == {2, 4}


@torch.no_grad()
def test_the_scale_of_weights_before_a_norm_says_nothing():
    torch.manual_seed(0)
    network = Chain()
    before = importance(network)
    network.right.weight *= 50
    network.behind.running_var.mul_(2500).add_((2500 - 1) * network.behind.eps)
    assert torch.allclose(importance(network), before, rtol=1e-3)
