"""Training for a time: it ends with it, the rate follows it, 8 bits come at its end."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.studies.value.family import PlainMobileNet
from nas.studies.value.training import TimedRecipe, TimedTrainer, extract


class Steps:
    """A clock that runs on by a second each time it is read, and images that can be told apart."""

    def __init__(self):
        self.now = 0.0

    def __call__(self):
        self.now += 1.0
        return self.now


class Batches:
    """Two batches an epoch."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(16, 1, 8, 8, generator=generator)
        self.labels = (self.images.mean((1, 2, 3)) > 0).long()

    def __len__(self):
        return 2

    def epoch(self, epoch, *, start=0):
        for i in range(start, 2):
            yield self.images[8 * i : 8 * i + 8], self.labels[8 * i : 8 * i + 8]


def trainer(seconds, **recipe):
    return TimedTrainer(
        Batches(),
        nn.functional.cross_entropy,
        TimedRecipe(**recipe),
        seconds=seconds,
        clock=Steps(),
    )


def test_weights_of_pictures_lie_as_the_pictures_do_and_signals_train_too():
    module = PlainMobileNet(1, 8, 2, 0.5)
    trainer(4.0).train(module)
    for layer in (m for m in module.modules() if isinstance(m, nn.Conv2d)):
        assert layer.weight.is_contiguous(memory_format=torch.channels_last)
    signals = trainer(4.0)
    signals._batches.images = torch.randn(16, 1, 64)
    network = nn.Sequential(nn.Conv1d(1, 2, 5), nn.Flatten(), nn.Linear(120, 2))
    assert signals.train(network).steps > 0


def test_the_rate_rises_to_its_peak_and_falls_to_nothing():
    recipe = TimedRecipe(learning_rate=0.01, warmup=0.25)
    assert recipe.rate(0.0) == pytest.approx(0.01 / 25)
    assert recipe.rate(0.25) == pytest.approx(0.01)
    assert recipe.rate(1.0) == pytest.approx(0.0, abs=1e-12)
    rates = [recipe.rate(i / 100) for i in range(101)]
    peak = rates.index(max(rates))
    assert peak == 25
    assert rates[: peak + 1] == sorted(rates[: peak + 1])
    assert rates[peak:] == sorted(rates[peak:], reverse=True)


@pytest.mark.parametrize("seconds", [10, 57])
def test_it_ends_when_its_time_does(seconds):
    done = trainer(seconds).train(PlainMobileNet(1, 8, 2, 0.25))
    assert done.quantised_steps == 0
    # Read twice for each training, at its begin and its end, and once a step.
    assert seconds - 2 <= done.steps <= seconds
    assert seconds <= done.seconds <= seconds + 2


def test_a_training_of_no_time_still_takes_a_step():
    assert trainer(1e-9).train(PlainMobileNet(1, 8, 2, 0.25)).steps == 1


def test_the_last_share_is_at_8_bits_and_exports_as_such():
    torch.manual_seed(0)
    net = PlainMobileNet(1, 8, 2, 0.25)
    network, plan, done = trainer(40, qat_share=0.25).train_quantised(net, (1, 8, 8))
    assert done.steps - done.quantised_steps == pytest.approx(30, abs=2)
    assert done.quantised_steps == pytest.approx(10, abs=2)
    plain = extract(network, plan, [Batches().images])
    bits = {(layer.weight_bits, layer.activation_bits) for layer in plain.plan.layers()}
    assert bits == {(8, 8)}


def test_it_learns_what_can_be_learned():
    torch.manual_seed(0)
    net = PlainMobileNet(1, 8, 2, 0.5)
    batches = Batches()

    def loss():
        return nn.functional.cross_entropy(net(batches.images), batches.labels).item()

    before = loss()
    trainer(60).train(net)
    assert loss() < 0.5 * before
