"""Whatever training did, what passes the gate is nowhere worse than what it began with."""

from __future__ import annotations

import pytest
import torch

from search_spaces import build_space
from supernet.network import Supernet
from supernet.training.gate import pass_gate, snapshot
from supernet.training.weights import plain_weights


@pytest.fixture
def supernet():
    torch.manual_seed(0)
    return Supernet(build_space("mobilenet", preset="8x8", input_channels=1, outputs=2))


def moved(supernet, begun):
    """How far weights are from where they began, in units of how far training took them: 1."""
    now = plain_weights(supernet)
    return max(float((now[name] - begun[name]).abs().max()) for name in now)


def trained(supernet):
    begun = snapshot(supernet)
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter += 1.0
    return begun


@pytest.mark.parametrize(("best", "share"), [(1.0, 1.0), (0.45, 0.8), (0.35, 0.6), (0.15, 0.2)])
def test_the_largest_share_at_which_nothing_is_lost_is_kept(supernet, best, share):
    begun = trained(supernet)
    # The first only gains; the second is best part of the way, and worse than before beyond.
    gated = pass_gate(
        supernet,
        begun,
        (0.0, -best),
        lambda network: (moved(network, begun), -abs(moved(network, begun) - best)),
    )
    assert gated.share == share
    assert moved(supernet, begun) == pytest.approx(share, abs=1e-5)
    assert all(now >= then for now, then in zip(gated.after, gated.before, strict=True))


def test_a_training_that_only_harms_is_undone_quantisers_included(supernet):
    begun = trained(supernet)
    gated = pass_gate(supernet, begun, (0.0,), lambda network: (-moved(network, begun),))
    assert (gated.share, gated.after) == (0.0, (0.0,))
    for name, value in supernet.state_dict().items():
        assert torch.equal(value, begun[name]), name


def test_quantisers_keep_what_they_learnt_beside_weights_part_of_the_way(supernet):
    begun = trained(supernet)
    ended = snapshot(supernet)
    pass_gate(supernet, begun, (0.0,), lambda n: (0.0 if moved(n, begun) < 0.5 else -1.0,))
    weights = plain_weights(supernet).keys()
    quantisers = [name for name in ended if name not in weights]
    assert quantisers
    assert all(torch.equal(supernet.state_dict()[n], ended[n]) for n in quantisers)


def test_noise_of_one_is_no_loss_but_a_loss_on_average_is(supernet):
    begun = trained(supernet)
    noisy = pass_gate(supernet, begun, (0.5, 0.5), lambda network: (0.49, 0.53), noise=(0.02, 0.02))
    assert noisy.share == 1.0
    lost = pass_gate(supernet, begun, (0.5, 0.5), lambda network: (0.49, 0.5), noise=(0.02, 0.02))
    assert lost.share == 0.0
