"""Training one architecture alone."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from search_spaces.plan import FLOAT_BITS
from supernet.training.standalone import FloatThenBits, train_alone
from supernet.training.train import Recipe


@pytest.fixture(scope="module")
def space(tiny):
    return tiny.build().space


@pytest.fixture(scope="module")
def alone(space, tiny):
    def train(seed=1, steps=4, float_share=0.5):
        return train_alone(
            space,
            space.smallest(),
            batches=tiny.batches(),
            loss=F.cross_entropy,
            recipe=Recipe(steps=steps, learning_rate=0.01),
            seed=seed,
            float_share=float_share,
        )

    return train


def test_the_network_is_the_architecture_and_nothing_more(space, alone):
    network = alone()
    plan = space.plan(space.smallest())
    assert network.plan(network.space.largest()) == plan
    weights = sum(p.numel() for n, p in network.named_parameters() if n.endswith(".weight"))
    assert weights == sum(layer.weight_count for layer in plan.layers())
    assert not any("transforms" in name for name, _ in network.named_parameters())


def test_it_depends_on_its_seed_alone_and_leaves_the_global_one(alone):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = alone().state_dict()
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    again, other = alone().state_dict(), alone(seed=2).state_dict()
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["layers.stem.weight"], other["layers.stem.weight"])


def test_float_first_then_its_bits(space):
    plan = space.plan(space.smallest())
    schedule = FloatThenBits(plan, float_share=0.4)
    (before,), (after,) = schedule.plans(0, 0.39), schedule.plans(0, 0.4)
    assert {layer.weight_bits for layer in before.layers()} == {FLOAT_BITS}
    assert after == plan


def test_quantisers_begin_when_the_bits_are_set(alone):
    def begun(network):
        flags = [
            f for n, f in network.named_buffers() if n.endswith("weight_quantizer.initialized")
        ]
        return all(bool(flag.all()) for flag in flags)

    assert begun(alone())
    assert not begun(alone(float_share=1.0))
