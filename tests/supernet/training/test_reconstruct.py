"""Channels that are left stand in for those that are gone."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.network import Supernet
from supernet.own_model.wrap import wrap
from supernet.ptq.ranges import weight_steps
from supernet.training.reconstruct import reconstruct
from supernet.training.subnets import float_plan


class Doubled(nn.Module):
    """The second half of its hidden channels is a mixture of the first."""

    def __init__(self, norm: bool, joined: bool = False) -> None:
        super().__init__()
        self.joined = joined
        self.first = nn.Conv2d(3, 16, 1)
        self.second = nn.Conv2d(19 if joined else 16, 12, 3, padding=1, bias=not norm)
        self.norm = nn.BatchNorm2d(12) if norm else nn.Identity()
        self.fc = nn.Linear(12, 4)
        with torch.no_grad():
            # Positive, so that the ReLU between them changes nothing.
            self.first.weight.abs_()
            self.first.bias.fill_(2.0)
            mixture = torch.rand(8, 8)
            self.first.weight[8:] = torch.einsum("ij,jkab->ikab", mixture, self.first.weight[:8])
            self.first.bias[8:] = mixture @ self.first.bias[:8]

    def forward(self, x):
        first = F.relu(self.first(x))
        # Joined behind the channels that vary, so that not only the first ones are read.
        first = torch.cat([first, x], 1) if self.joined else first
        hidden = F.relu(self.norm(self.second(first)))
        return self.fc(hidden.mean((2, 3)))


@pytest.mark.parametrize(("norm", "joined"), [(False, False), (True, False), (True, True)])
def test_what_is_redundant_is_made_up_for_exactly(norm, joined):
    torch.manual_seed(0)
    images = torch.rand(64, 3, 6, 6)
    network = Doubled(norm, joined).train()
    for _ in range(40):
        network(images)  # statistics
    space = wrap(network.eval(), input_shape=(3, 6, 6), widths={"first": (0.5, 1.0)})
    supernet = Supernet(space)
    arch = space.arch({**dict(space.largest().items), "width.first": 0.5})
    plan = float_plan(space.plan(arch))
    before = {name: value.clone() for name, value in supernet.state_dict().items()}
    own = reconstruct(supernet, plan, images.split(16), ridge=1e-9)
    whole = float_plan(space.plan(space.largest()))
    expected = supernet.evaluate(images, whole, supernet.statistics(whole, [images]))

    def error(one):
        found = one.evaluate(images, plan, one.statistics(plan, [images]))
        return float((found - expected).norm() / expected.norm())

    assert error(own) < 1e-3 < 0.01 < error(supernet)
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_it_needs_images():
    torch.manual_seed(0)
    space = wrap(Doubled(False).eval(), input_shape=(3, 6, 6), widths={"first": (0.5, 1.0)})
    with pytest.raises(InputError, match="needs images"):
        reconstruct(Supernet(space), space.plan(space.smallest()), [])


def test_steps_are_those_of_the_new_weights():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 6, 6)
    space = wrap(
        Doubled(False).eval(), input_shape=(3, 6, 6), widths={"first": (0.5, 1.0)},
        weight_bits=(4,), activation_bits=(8,), edge_bits=None,
    )  # fmt: skip
    supernet = Supernet(space)
    supernet.statistics(space.largest(), [images])  # steps of the weights as they are
    plan = space.plan(space.smallest())
    own = reconstruct(supernet, plan, images.split(16))
    for layer in plan.layers():
        module = own.layer(layer.name)
        weight, quantised = module.slice_of(layer), module.quantized_weight(layer).detach()
        assert (quantised - weight).norm() < 0.15 * weight.norm()
        best = weight_steps(weight, 4, per_channel=False)[:1]
        assert torch.allclose(module.weight_step(layer).abs(), best, rtol=1e-4)
