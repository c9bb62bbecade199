"""Training for seconds: the rate follows the clock, and what was cut off ends the same."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.nn import functional as F

from search_spaces import build_space
from search_spaces.errors import InputError
from supernet.narrow import narrowed
from supernet.network import Supernet
from supernet.training.own_time import (
    CHECK_EPOCHS,
    CHECK_STEPS,
    OwnRecipe,
    OwnTraining,
    suited_recipe,
)
from supernet.training.subnets import at_bits, float_plan
from supernet.training.teacher import RememberingTeacher


class Batches:
    """Four fixed batches whose label is whether the left half is brighter."""

    def __len__(self):
        return 4

    def epoch(self, epoch, *, start=0):
        for index in range(start, len(self)):
            generator = torch.Generator().manual_seed(index)
            x = torch.randn(32, 1, 8, 8, generator=generator)
            yield x, (x[..., :4].sum((1, 2, 3)) > x[..., 4:].sum((1, 2, 3))).long()


class Ticks:
    """A clock that moves by one second each time it is read."""

    def __init__(self):
        self.time = 50.0

    def __call__(self):
        self.time += 1.0
        return self.time


@pytest.fixture(scope="module")
def supernet():
    torch.manual_seed(0)
    return Supernet(build_space("mobilenet", preset="8x8", input_channels=1, outputs=2))


def begin(supernet, **options):
    return OwnTraining(
        copy.deepcopy(supernet),
        supernet.plan(supernet.space.smallest()),
        batches=Batches(),
        loss=F.cross_entropy,
        distillation_loss=lambda outputs, taught: F.cross_entropy(outputs, taught.softmax(1)),
        now=Ticks(),
        **options,
    )


def loss_of(network):
    plan = network.plan(network.space.smallest())
    with torch.no_grad():
        return sum(F.cross_entropy(network(x, plan), y).item() for x, y in Batches().epoch(0))


def test_the_rate_rises_stays_and_falls_to_zero_with_the_time():
    recipe = OwnRecipe(learning_rate=0.1, warmup=10, decay=0.4)
    assert recipe.rate(0, 0.0, 100.0) == pytest.approx(0.01)
    assert recipe.rate(20, 10.0, 100.0) == recipe.rate(90, 60.0, 100.0) == 0.1
    assert recipe.rate(95, 80.0, 100.0) == pytest.approx(0.05)
    assert recipe.rate(100, 100.0, 100.0) == 0.0
    assert recipe.rate(101, 120.0, 100.0) == 0.0


def test_seconds_are_kept_to_and_the_network_learns(supernet):
    training = begin(supernet)
    training.run(until=30.0, total=30.0)
    assert training.spent == 30.0
    assert 25 <= training.step <= 30
    assert loss_of(training.reached()) < loss_of(supernet)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_in_parts_and_from_the_checkpoint_it_ends_as_in_one(supernet, tmp_path, optimizer):
    recipe = OwnRecipe(optimizer=optimizer)
    whole = begin(supernet, recipe=recipe)
    whole.run(until=12.0, total=24.0)
    whole.run(until=24.0, total=24.0)
    parts = None
    for until in (5.0, 12.0, 17.0, 24.0):
        parts = begin(
            supernet, recipe=recipe,
            checkpoint=tmp_path / "a.safetensors", checkpoint_every_s=3.0,
        )  # fmt: skip
        parts.run(until=until, total=24.0)
    assert (parts.step, parts.spent) == (whole.step, whole.spent)
    expected, found = whole.reached().state_dict(), parts.reached().state_dict()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_averages_follow_the_weights_and_share_nothing_with_them(supernet):
    training = begin(supernet, recipe=OwnRecipe(average=0.0))
    training.run(until=9.0, total=90.0)
    averaged = training.reached()
    own = dict(training.network.named_parameters())
    for name, parameter in averaged.named_parameters():
        assert torch.equal(parameter, own[name]), name
        assert parameter.data_ptr() != own[name].data_ptr(), name


def test_a_teacher_is_asked_for_each_batch(supernet):
    asked = []

    class Teacher:
        remembers = False

        def outputs(self, images, epoch, index):
            asked.append((epoch, index, len(images)))
            return torch.zeros(len(images), 2)

    training = begin(supernet, teacher=Teacher())
    training.run(until=6.0, total=6.0)
    assert asked == [(step // 4, step % 4, 32) for step in range(training.step)]


def test_what_a_teacher_remembers_for_all_is_not_paid_for_by_one(supernet):
    class Slow:
        def __init__(self, clock, *, remembers):
            self.clock, self.remembers = clock, remembers

        def outputs(self, images, epoch, index):
            self.clock.time += 5.0
            return torch.zeros(len(images), 2)

    steps = {}
    for remembers in (False, True):
        training = begin(supernet)
        training.teacher = Slow(training.now, remembers=remembers)
        training.run(until=30.0, total=30.0)
        steps[remembers] = training.step
    assert steps[True] >= 3 * steps[False]


def test_a_few_steps_are_not_looked_at_however_many_epochs_they_are(supernet):
    training = begin(supernet)
    epochs = math.ceil(CHECK_STEPS / 4)
    assert epochs > CHECK_EPOCHS
    due = []
    for training.step in range(1, 2 * CHECK_STEPS + 8):
        if training._due(math.inf):
            due.append(training.step)
    assert due == [4 * epochs, 8 * epochs]


def test_where_nothing_is_gained_the_rate_falls_and_time_is_saved(supernet, monkeypatch):
    monkeypatch.setattr("supernet.training.own_time.CHECK_STEPS", 1)
    flat, gaining = begin(supernet), begin(supernet)
    looks = []

    def rising(network):
        looks.append(len(looks))
        return float(len(looks))

    flat.run(until=2000.0, total=2000.0, validate=lambda network: 0.9)
    gaining.run(until=400.0, total=400.0, validate=rising)
    assert len(flat.checks) == 4
    assert flat.spent == pytest.approx(2 * 4 * CHECK_EPOCHS * 4, rel=0.1)
    assert flat.ends == pytest.approx(flat.spent, abs=1.5)
    assert gaining.spent == 400.0 and math.isinf(gaining.ends)
    # It looks only while the rate stays: that it gains when the rate falls is known.
    assert len(looks) == 200 // (CHECK_EPOCHS * 4)


def test_a_checkpoint_of_another_space_is_refused(supernet, tmp_path):
    path = tmp_path / "a.safetensors"
    training = begin(supernet, checkpoint=path)
    training.run(until=3.0, total=9.0)
    other = Supernet(
        build_space("mobilenet", preset="8x8", input_channels=1, outputs=2, stem_channels=8)
    )
    with pytest.raises(InputError, match="of another training; remove the file"):
        begin(other, checkpoint=path)


def test_once_the_rate_has_fallen_the_weights_themselves_are_what_it_has_reached(
    supernet, tmp_path
):
    training = begin(supernet, checkpoint=tmp_path / "a.safetensors")
    training.run(until=12.0, total=24.0)
    own = dict(training.network.named_parameters())
    assert any(not torch.equal(p, own[n]) for n, p in training.reached().named_parameters())
    training.run(until=24.0, total=24.0)
    again = begin(supernet, checkpoint=tmp_path / "a.safetensors")
    for name, parameter in again.reached().named_parameters():
        assert torch.equal(parameter, own[name]), name


def test_it_begins_in_float_and_ends_at_its_bits(supernet):
    """Quantisers begin from what training in float made of weights and values."""
    training = begin(supernet, recipe=OwnRecipe(float_share=0.5))
    seen = []
    training.network.register_forward_pre_hook(lambda module, given: seen.append(given[1]))
    training.run(until=20.0, total=40.0)
    assert set(seen) == {float_plan(training.plan)} and not training.at_bits
    step = training.network.layer("stem").inputs["none"].quantizer.log_step
    before = step.detach().clone()
    seen.clear()
    training.run(until=40.0, total=40.0)
    assert set(seen) == {training.plan} and training.at_bits
    assert not torch.equal(step.detach(), before)
    assert loss_of(training.reached()) < loss_of(supernet)


def test_cut_off_in_float_it_ends_as_in_one(supernet, tmp_path):
    recipe = OwnRecipe(float_share=0.6)
    whole = begin(supernet, recipe=recipe)
    whole.run(until=24.0, total=24.0)
    for until in (7.0, 12.0, 17.0, 24.0):
        parts = begin(supernet, recipe=recipe, checkpoint=tmp_path / "a.safetensors")
        parts.run(until=until, total=24.0)
    assert parts.at_bits
    expected, found = whole.reached().state_dict(), parts.reached().state_dict()
    for name, tensor in expected.items():
        assert torch.equal(tensor, found[name]), name


def test_half_precision_learns_too(supernet):
    training = begin(supernet, recipe=OwnRecipe(precision="bfloat16"))
    training.run(until=30.0, total=30.0)
    assert all(p.dtype == torch.float32 for p in training.network.parameters())
    assert loss_of(training.reached()) < loss_of(supernet)


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_teacher_is_asked_in_the_precision_of_training(supernet, precision):
    asked = []

    class Views:
        views = None

        def views_of(self, epoch, index):
            return None

    def network(images):
        asked.append(torch.get_autocast_dtype("cpu") if torch.is_autocast_enabled("cpu") else None)
        return torch.zeros(len(images), 2)

    recipe = OwnRecipe(precision=precision)
    begin(supernet, recipe=recipe, teacher=RememberingTeacher(network, Views())).run(
        until=3.0, total=3.0
    )
    assert set(asked) == {torch.bfloat16 if precision == "bfloat16" else None}


def test_a_narrow_copy_takes_its_bits_too(supernet):
    """Of single channels quantisers have a step for each of the widest network's."""
    plan = supernet.plan(supernet.space.smallest())
    training = OwnTraining(
        narrowed(supernet, plan),
        plan,
        batches=Batches(),
        loss=F.cross_entropy,
        distillation_loss=F.cross_entropy,
        recipe=OwnRecipe(float_share=0.5),
        now=Ticks(),
    )
    training.run(until=20.0, total=20.0)
    assert training.at_bits
    assert any(layer.groups > 1 for layer in plan.layers())


def test_what_suits_follows_from_bits(supernet):
    plan = supernet.plan(supernet.space.largest())

    def suited(weights, activations):
        return suited_recipe(at_bits(plan, weights, activations))

    for bits in [(8, 8), (4, 8), (3, 3), (2, 4)]:
        assert 0.5 < suited(*bits).float_share < 1
        assert suited(*bits).learning_rate > OwnRecipe.learning_rate
    # Activations of two bits take longer to learn.
    assert suited(2, 2).float_share == 0.5
    # At bits from the first steps, because it is asked for so, the rate is the careful one.
    for share in (0.0, 0.3):
        careful = OwnRecipe(float_share=share, optimizer="muon")
        assert suited_recipe(plan, float_share=share) == careful
