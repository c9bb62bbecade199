"""Layers as two of a smaller rank: nested, whole at the full rank, best on the data."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from search_spaces.errors import InputError
from supernet.ptq.quantize import quantize_post_training
from supernet.ptq.rank import (
    can_be_two,
    layer_factors,
    most_useful_rank,
    rank_sensitivity,
    traced,
    with_ranks,
)


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1), nn.ReLU(),
        nn.Conv2d(12, 12, 3, padding=1, groups=12), nn.Flatten(), nn.Linear(192, 40), nn.ReLU(),
        nn.Linear(40, 10),
    ).eval()  # fmt: skip


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(64, 2, 8, 8, generator=generator)
    return x * torch.linspace(0.2, 2, 8)  # columns of unlike size, so that the data matters


@pytest.fixture(scope="module")
def found():
    graph = traced(network(), [images()])
    return graph, layer_factors(graph, [images()])


def test_which_layers_can_be_two(found):
    graph, factors = found
    assert list(factors) == [n for n in graph.layers if can_be_two(graph.layer(n))]
    assert len(factors) == 4  # not the depthwise one
    assert most_useful_rank(40, 192) == 33 and most_useful_rank(1, 9) == 0


def test_the_full_rank_loses_nothing(found):
    graph, factors = found
    whole = with_ranks(graph, factors, {name: factors[name].largest for name in factors})
    torch.testing.assert_close(whole(images()), network()(images()), rtol=1e-3, atol=1e-4)


def test_smaller_ranks_are_prefixes_and_err_more(found):
    graph, factors = found
    name = list(factors)[1]
    down, up = factors[name].cut(5)
    assert torch.equal(factors[name].cut(3)[0], down[:3])
    assert torch.equal(factors[name].cut(3)[1], up[:, :3])
    wanted = network()(images())
    errors = [
        (with_ranks(graph, factors, {name: rank})(images()) - wanted).norm().item()
        for rank in (2, 5, 9, 12)
    ]
    assert errors == sorted(errors, reverse=True) and errors[-1] < 1e-3


def test_the_outputs_of_a_layer_are_better_kept_than_its_weights_are(found):
    graph, factors = found
    name = list(factors)[2]
    layer, rank = graph.layer(name), 8
    from supernet.ptq.graph import Recorded

    x = Recorded(graph.module, images()).input_of(graph.layers[name])
    left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    plain = (left[:, :rank] * values[:rank]) @ right[:rank]
    down, up = factors[name].cut(rank)
    kept = (x @ (up @ down - layer.weight).T).norm()
    assert kept < (x @ (plain - layer.weight).T).norm()
    # What is lost is what the singular values say.
    lost = factors[name].values[rank:].square().sum().sqrt() * len(x) ** 0.5
    assert kept.item() == pytest.approx(lost.item(), rel=0.05)


def test_two_layers_are_quantised_each_by_itself(found):
    graph, factors = found
    name = list(factors)[2]
    module = with_ranks(graph, factors, {name: 8})
    quantised = quantize_post_training(module, [images()], (8, 8), steps=("mse",))
    shapes = [tuple(layer.op.weight.shape) for layer in quantised.plain_layers()]
    assert shapes[3:] == [(8, 192), (40, 8), (10, 40)]


def test_sensitivity_is_none_for_the_weights_themselves(found):
    graph, _ = found
    name = list(graph.layers)[1]
    weight = graph.layer(name).weight.detach()
    values = rank_sensitivity(graph, [images()], {name: [weight, weight * 0.9, weight * 0.5]})
    assert values[name][0] == pytest.approx(0, abs=1e-6)
    assert 0 < values[name][1] < values[name][2]


def test_sensitivity_is_in_the_metric_asked_for(found):
    graph = found[0]
    name = next(iter(graph.layers))
    weight = graph.layer(name).weight.detach()
    squares = rank_sensitivity(graph, [images()], {name: [weight / 2]}, "logits_mse")[name][0]
    changed = network()
    with torch.no_grad():
        before = changed(images())
        changed[0].weight.div_(2)
        after = changed(images())
    assert squares == pytest.approx(float((after - before).square().mean()), rel=1e-4)


def test_what_cannot_be_is_refused(found):
    graph, factors = found
    depthwise = next(n for n in graph.layers if n not in factors)
    with pytest.raises(InputError, match="cannot be two layers"):
        with_ranks(graph, factors, {depthwise: 1})
    name = next(iter(factors))
    with pytest.raises(InputError, match="has ranks from 1 to 8, not 9"):
        with_ranks(graph, factors, {name: 9})
    with pytest.raises(InputError, match="at least one batch"):
        layer_factors(graph, [])
