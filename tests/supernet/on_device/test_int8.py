"""Training in integers follows training in floats, given the right scale."""

from __future__ import annotations

from functools import lru_cache

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.training.update import Update
from supernet.on_device.contribution import contributions
from supernet.on_device.int8 import Int8Training, channel_squares, folded, quantisation_aware
from supernet.ptq.quantize import quantize_post_training

INNER = {"2": 1.0, "7": 1.0}


@lru_cache
def network(bits=8):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Identity(), nn.Linear(128, 4),
    ).eval()  # fmt: skip
    images = [batch(seed)[0] for seed in range(2)]
    return quantize_post_training(module, images, (bits, 8), steps=("mse",), edge_bits=None)


def batch(seed, size=32):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(size, 1, 8, 8, generator=generator)
    quarter = torch.stack([x[..., :4, :4], x[..., :4, 4:], x[..., 4:, :4], x[..., 4:, 4:]])
    return x, quarter.sum((2, 3, 4)).argmax(0)


def weights(training):
    return {n: layer.op.weight.detach().clone() for n, (layer, _) in training._layers.items()}


def trained(rounding, steps=30, *, scaled=True, rate=0.05, seed=0, shares=INNER, **options):
    training = Int8Training(
        network(), Update(shares=shares, **options), learning_rate=rate, rounding=rounding,
        scaled=scaled, seed=seed,
    )  # fmt: skip
    losses = [training.step(*batch(step), F.cross_entropy) for step in range(steps)]
    return training, losses


def test_one_step_is_the_float_step_in_whole_codes():
    start = weights(trained("none", 0)[0])
    floats, _ = trained("none", 1, rate=1.0)
    whole, _ = trained("nearest", 1, rate=1.0)
    for name, codes in floats.codes.items():
        step = floats._layers[name][0].weight_step.view(-1, *[1] * (codes.dim() - 1))
        # The float update of real weights: minus the rate times the gradient.
        gradient = floats._layers[name][0].op.weight.grad
        wanted = ((start[name] - gradient) / step).clamp(-128, 127)
        assert torch.allclose(codes, wanted, atol=1e-3)
        assert torch.equal(whole.codes[name], codes.round().clamp(-128, 127))


def test_codes_that_are_rounded_by_chance_move_on_average_as_floats_do():
    floats, _ = trained("none", 1)
    begun, _ = trained("none", 0)
    for name in INNER:
        wanted = (floats.codes[name] - begun.codes[name]).flatten()
        draws = torch.stack(
            [trained("stochastic", 1, seed=s)[0].codes[name].flatten() for s in range(200)]
        )
        mean = draws.mean(0) - begun.codes[name].flatten()
        # The standard error of a mean of 200 of variance at most a quarter.
        assert (mean - wanted).abs().mean() < 2 * 0.5 / 200**0.5
        # To nearest nothing would move where the update is below half a step.
        nearest = trained("nearest", 1)[0].codes[name].flatten() - begun.codes[name].flatten()
        assert (mean - wanted).norm() < (nearest - wanted).norm()


def test_training_in_integers_follows_training_in_floats():
    floats, wanted = trained("none", 80, rate=0.5)
    integers, found = trained("stochastic", 80, rate=0.5)
    assert sum(wanted[-10:]) < 0.8 * sum(wanted[:10])
    assert abs(sum(found[-10:]) - sum(wanted[-10:])) < 0.03 * sum(wanted[-10:])
    begun = weights(trained("none", 0)[0])
    for name, weight in weights(integers).items():
        one, other = (
            (weight - begun[name]).flatten(),
            (weights(floats)[name] - begun[name]).flatten(),
        )
        assert F.cosine_similarity(one, other, dim=0) > 0.95
        step = integers._layers[name][0].weight_step.view(-1, *[1] * (weight.dim() - 1))
        codes = weight / step
        assert torch.allclose(codes, codes.round(), atol=1e-3)
        assert codes.abs().max() <= 128


def test_without_the_scale_layers_move_as_their_steps_do_and_hardly_at_all():
    begun = weights(trained("none", 0)[0])
    floats = weights(trained("none", 1)[0])
    plain = weights(trained("none", 1, scaled=False)[0])
    for name in INNER:
        moved = (floats[name] - begun[name]).norm()
        assert (plain[name] - begun[name]).norm() < 0.01 * moved


def test_the_scale_is_that_of_the_square_of_the_step():
    gradient = torch.ones(2, 3)
    found = quantisation_aware(gradient, torch.tensor([0.5, -2.0]))
    assert found.tolist() == [[4.0] * 3, [0.25] * 3]


def test_only_what_was_chosen_is_trained():
    training, _ = trained("nearest", 3, rate=5.0, shares={"2": 0.5}, biases=False)
    before = {layer.layer.name: layer.op for layer in folded(network()).plain_layers()}
    after = {layer.layer.name: layer.op for layer in training.network.plain_layers()}
    changed = after["2"].weight != before["2"].weight
    assert changed[:, :4].any() and not changed[:, 4:].any()
    for name in ("0", "7"):
        assert torch.equal(after[name].weight, before[name].weight)
    assert torch.equal(after["2"].bias, before["2"].bias)


def test_the_network_that_was_given_stays_as_it_is():
    before = [p.clone() for p in network().parameters()]
    trained("nearest", 2, rate=5.0)
    assert all(torch.equal(a, b) for a, b in zip(before, network().parameters(), strict=True))


def test_contributions_are_squares_of_gradients_and_grow_with_the_share():
    found = contributions(network(), [batch(0), batch(1)], F.cross_entropy, (0.25, 1.0))
    assert set(found) == {"0", "2", "7"}
    for row in found.values():
        assert 0 < row[0.0] <= row[0.25] <= row[1.0]
    training = Int8Training(network(), Update(last=None), learning_rate=0.0, rounding="none")
    training.step(*batch(0), F.cross_entropy)
    layer = training._layers["2"][0]
    gradient = layer.op.weight.grad
    assert torch.allclose(channel_squares(gradient, layer).sum(), gradient.square().sum())
    first = contributions(network(), [batch(0)], F.cross_entropy, (0.5,))["2"]
    wanted = gradient[:, :4].square().sum() + layer.op.bias.grad.square().sum()
    assert first[0.5] == pytest.approx(float(wanted), rel=1e-4)


def test_what_cannot_be_trained_in_integers_is_refused():
    images = [batch(0)[0]]
    module = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 4)).eval()
    floats = quantize_post_training(module, images, (32, 32), steps=())
    with pytest.raises(InputError, match="no integer codes"):
        Int8Training(floats, Update(), learning_rate=0.1)
    with pytest.raises(InputError, match="no layer of the network has integer codes"):
        contributions(floats, [batch(0)], F.cross_entropy)
    with pytest.raises(InputError, match="not adam"):
        Int8Training(network(), Update(optimizer="adam"), learning_rate=0.1)
    with pytest.raises(InputError, match="no rounding 'up'"):
        Int8Training(network(), Update(), learning_rate=0.1, rounding="up")
    with pytest.raises(InputError, match="no layer 'nothing'"):
        Int8Training(network(), Update(shares={"nothing": 1.0}), learning_rate=0.1)
