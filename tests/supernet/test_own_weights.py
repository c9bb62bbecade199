"""Weights of a network that was trained elsewhere as the start of a supernet."""

from __future__ import annotations

import torch

from search_spaces import build_space
from supernet.network import Supernet
from supernet.training.subnets import float_plan
from supernet.training.train import load_weights, weights_of_plain


def supernet(outputs=10, seed=0):
    torch.manual_seed(seed)
    space = build_space("mobilenet", preset="8x8", input_channels=1, outputs=outputs)
    return Supernet(space, zero_init_residual=False)


def test_an_extracted_network_gives_its_function_back():
    trained, fresh = supernet(seed=1), supernet(seed=2)
    x = torch.randn(16, 1, 8, 8)
    plan = float_plan(trained.plan(trained.space.largest()))
    statistics = trained.statistics(plan, [x])
    own = trained.extract(plan, statistics)
    missing = load_weights(fresh, weights_of_plain(fresh, own.state_dict()))
    assert torch.allclose(fresh.evaluate(x, plan, statistics), own(x), atol=1e-5)
    assert all("step" in n or "offset" in n or "initialized" in n or "transforms" in n
               for n in missing)  # fmt: skip


def test_a_classifier_for_other_classes_starts_afresh():
    trained, fresh = supernet(outputs=5), supernet(outputs=10, seed=2)
    before = fresh.state_dict()["layers.head_classifier.weight"].clone()
    missing = load_weights(fresh, trained.state_dict())
    assert "layers.head_classifier.weight" in missing
    assert torch.equal(fresh.state_dict()["layers.head_classifier.weight"], before)
    assert torch.equal(fresh.layers["stem"].weight, trained.layers["stem"].weight)


def test_foreign_names_are_not_taken_for_a_plain_network():
    assert weights_of_plain(supernet(), {"conv1.weight": torch.zeros(1)}) == {}
