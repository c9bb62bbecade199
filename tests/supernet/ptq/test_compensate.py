"""Rounding that makes up for what it lost: on the grid, and nearer in what the layer gives."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from supernet.ptq.compensate import compensate
from supernet.ptq.quantize import quantize_post_training
from supernet.ptq.ranges import quantize_weight, weight_steps

LAYERS = {
    "convolution": lambda: nn.Conv2d(6, 8, 3, padding=1),
    "strided, with holes": lambda: nn.Conv2d(6, 8, 3, stride=2, padding=2, dilation=2),
    "pointwise": lambda: nn.Conv2d(6, 8, 1),
    "depthwise": lambda: nn.Conv2d(6, 12, 3, padding=1, groups=6),
    "groups": lambda: nn.Conv2d(6, 4, 3, padding=1, groups=2),
    "linear": lambda: nn.Linear(6, 8),
}


def inputs(linear: bool) -> list[torch.Tensor]:
    """Smooth images, whose neighbours and channels say much of each other."""
    generator = torch.Generator().manual_seed(1)
    noise = torch.randn(24, 3, 14, 14, generator=generator)
    mixed = torch.einsum("oc,nchw->nohw", torch.rand(6, 3, generator=generator), noise)
    images = nn.functional.avg_pool2d(mixed, 3, 1)
    images = images.mean((2, 3)).repeat(4, 1) if linear else images
    return list(images.split(8))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("bits", [3, 8])
@torch.no_grad()
def test_outputs_are_nearer_and_weights_on_the_grid(name, bits):
    torch.manual_seed(0)
    layer = LAYERS[name]()
    before = copy.deepcopy(layer)
    data = inputs(name == "linear")
    nearest = quantize_weight(layer.weight, weight_steps(layer.weight, bits), bits)
    found, step = compensate(layer, weight_steps(layer.weight, bits), bits, data)
    assert torch.equal(layer.weight, before.weight)
    codes = found / step.view(-1, *[1] * (found.dim() - 1))
    assert torch.allclose(codes, codes.round(), atol=1e-3)
    assert codes.round().min() >= -(2 ** (bits - 1)) and codes.round().max() < 2 ** (bits - 1)
    errors = []
    for weight in (nearest, found):
        changed = copy.deepcopy(layer)
        changed.weight.copy_(weight)
        errors.append(sum((changed(x) - layer(x)).square().sum().item() for x in data))
    assert errors[1] < 0.7 * errors[0]


@torch.no_grad()
def test_inputs_that_say_nothing_of_each_other_are_rounded_to_nearest():
    layer = nn.Linear(4, 3)
    data = [100 * torch.eye(4)]
    step = weight_steps(layer.weight, 4)
    found, chosen = compensate(layer, step, 4, data)
    # On the grid that is nearest of all that are tried.
    assert torch.allclose(found, quantize_weight(layer.weight, chosen, 4))
    assert bool((chosen >= step).all() and (chosen <= 1.41 * step).all())


@torch.no_grad()
def test_inputs_that_are_never_there_do_no_harm():
    layer = nn.Conv2d(3, 4, 1)
    step = weight_steps(layer.weight, 8)
    assert torch.isfinite(compensate(layer, step, 8, [torch.zeros(2, 3, 4, 4)])[0]).all()


@torch.no_grad()
def test_a_network_of_few_bits_is_nearer_to_itself():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(6, 12, 3), nn.ReLU(), nn.Conv2d(12, 12, 3, groups=12), nn.ReLU(),
        nn.Conv2d(12, 8, 1), nn.Flatten(), nn.Linear(8 * 64, 4),
    )  # fmt: skip
    data = inputs(linear=False)
    expected = torch.cat([network(x) for x in data])
    errors = []
    for steps in ((), ("compensate", "bias")):
        quantised = quantize_post_training(network, data, (3, 8), steps=steps, edge_bits=None)
        errors.append((torch.cat([quantised(x) for x in data]) - expected).norm())
    assert errors[1] < 0.7 * errors[0]


@torch.no_grad()
def test_rows_of_very_many_weights_are_rounded_to_nearest(monkeypatch):
    monkeypatch.setattr("supernet.ptq.compensate.MANY", 8)
    layer = nn.Conv2d(6, 4, 3)
    step = weight_steps(layer.weight, 4)
    found, same = compensate(layer, step, 4, inputs(linear=False))
    assert torch.equal(found, quantize_weight(layer.weight, step, 4)) and torch.equal(same, step)
