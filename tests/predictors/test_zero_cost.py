"""Zero-cost proxies: their definitions on small networks, and that they leave no trace."""

from __future__ import annotations

import math
import subprocess
import sys

import pytest

from predictors.zero_cost import ZERO_COST, zero_cost_scores

torch = pytest.importorskip("torch")
nn = torch.nn


def network(width: int = 8, seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, bias=False),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(width, 4),
    )


def batch(n: int = 12, seed: int = 1):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 1, 8, 8, generator=generator), torch.arange(n) % 4


def test_the_documented_proxies_are_there():
    expected = {"synflow", "snip", "jacov", "nwot", "zen", "params", "macs"}
    assert expected <= set(ZERO_COST)


def test_importing_loads_no_torch():
    code = "import predictors.zero_cost, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


def test_scores_are_finite_repeatable_and_leave_the_network_as_it_was():
    net = network()
    net.train()
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.get_rng_state()
    first = zero_cost_scores(net, *batch())
    assert first == zero_cost_scores(net, *batch())
    assert all(math.isfinite(v) for v in first.values())
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert all(v.dtype == before[k].dtype for k, v in after.items())
    assert net.training and torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight))
    assert torch.equal(torch.get_rng_state(), state)


def test_counts():
    scores = zero_cost_scores(network(8), *batch())
    assert scores["params"] == 9 * 8 + 16 + 9 * 64 + 16 + 8 * 4 + 4
    assert scores["macs"] == 64 * (9 * 8 + 9 * 64) + 8 * 4


@pytest.mark.parametrize("name", ["synflow", "nwot", "zen"])
def test_wider_networks_score_higher(name):
    narrow = [zero_cost_scores(network(4, seed), *batch())[name] for seed in range(3)]
    wide = [zero_cost_scores(network(32, seed), *batch())[name] for seed in range(3)]
    assert max(narrow) < min(wide)


def test_synflow_of_a_linear_network_is_the_product_of_its_weights():
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False))
    a, b = net[1].weight.abs(), net[2].weight.abs()
    # Each layer's share of the flow is the whole flow, summed over two layers.
    flow = float((b @ a).sum())
    images = torch.zeros(1, 1, 2, 2)
    score = ZERO_COST.get("synflow")(net, images, torch.zeros(1, dtype=torch.int64))
    assert score == pytest.approx(math.log(2 * flow), rel=1e-5)


def test_snip_is_the_sum_of_connection_sensitivities():
    net = nn.Sequential(nn.Flatten(), nn.Linear(64, 4))
    images, labels = batch()
    score = ZERO_COST.get("snip")(net, images, labels)
    w = net[1].weight.detach().clone().requires_grad_(True)
    logits = images.flatten(1) @ w.T + net[1].bias.detach()
    (gradient,) = torch.autograd.grad(nn.functional.cross_entropy(logits, labels), w)
    assert score == pytest.approx(float((w * gradient).abs().sum()), rel=1e-5)


def test_jacov_prefers_images_that_are_told_apart():
    images, labels = batch()
    same = images[:1].expand_as(images).contiguous()
    apart = zero_cost_scores(network(), images, labels)["jacov"]
    alike = zero_cost_scores(network(), same, labels)["jacov"]
    assert apart > alike
