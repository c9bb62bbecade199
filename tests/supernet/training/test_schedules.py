"""Every schedule gives subnets of its space, the same for the same step."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from search_spaces.plan import FLOAT_BITS
from supernet.training.schedules import SCHEDULES, ProgressiveShrinking
from supernet.training.subnets import BitOdds, BitsStage, Focus
from supernet.training.train import Recipe, Trainer

STAGES = [BitsStage(0.25, (8,)), BitsStage(0.5, (8, 4, 2))]
STEPS = 8


@pytest.fixture(scope="module")
def net(tiny):
    return tiny.build(expands=[2, 3], kernels=[3, 5], widths=[0.5, 1.0])


@pytest.fixture(scope="module")
def schedule(net):
    def make(name, seed=3):
        return SCHEDULES.get(name)(
            net.space, net.ranges, stages=STAGES, random_subnets=2, seed=seed
        )

    return make


def test_the_documented_names_are_there():
    assert {"sandwich", "progressive", "single_path"} <= set(SCHEDULES)


@pytest.mark.parametrize("name", SCHEDULES.names())
class TestEverySchedule:
    def test_depends_on_seed_and_step_alone(self, name, schedule):
        first, again, other = schedule(name), schedule(name), schedule(name, seed=4)
        steps = [(step, step / 40) for step in range(40)]
        backwards = {step: again.plans(step, progress) for step, progress in reversed(steps)}
        assert all(first.plans(*each) == backwards[each[0]] for each in steps)
        assert any(first.plans(*each) != other.plans(*each) for each in steps)

    def test_is_float_before_the_first_stage_and_at_its_bits_afterwards(self, name, schedule):
        for step in range(40):
            progress = step / 40
            for plan in schedule(name).plans(step, progress):
                for layer in plan.layers():
                    bits = {layer.weight_bits, layer.activation_bits}
                    if progress < 0.25:
                        assert bits == {FLOAT_BITS}
                    elif progress < 0.5:
                        assert bits == {8}
                    else:
                        assert bits <= {8, 4, 2}

    def test_layers_are_within_what_the_supernet_has(self, name, net, schedule):
        for step in range(0, 40, 4):
            for plan in schedule(name).plans(step, step / 40):
                assert net(torch.randn(2, 1, *plan.input_shape[1:]), plan).shape == (2, 3)

    def test_trains_float_as_often_as_it_is_told(self, name, net):
        sampler = SCHEDULES.get(name)(
            net.space, net.ranges, stages=STAGES, random_subnets=2, seed=3, float_share=0.5
        )
        drawn = [
            {layer.weight_bits for layer in plan.layers()} == {FLOAT_BITS}
            for step in range(100)
            for plan in sampler.plans(step, 0.9)
        ]
        # A teacher that is trained in every step has the highest bits.
        most = len(drawn) / 100
        expected = 0.5 * (most - 1) / most if sampler.teaching(0.9) == "first" else 0.5
        assert sum(drawn) / len(drawn) == pytest.approx(expected, abs=0.12)

    def test_draws_near_a_focus_and_by_odds_from_the_step_alone(self, name, net):
        focus = Focus((net.space.smallest(), net.space.largest()), share=0.8, change=0.05)

        def make():
            return SCHEDULES.get(name)(
                net.space,
                net.ranges,
                stages=STAGES,
                seed=3,
                bit_odds=BitOdds(weights={2: 5.0}),
                focus=focus,
            )

        plain = SCHEDULES.get(name)(net.space, net.ranges, stages=STAGES, seed=3)
        steps = [(step, step / 40) for step in range(40)]
        first = [make().plans(*each) for each in steps]
        assert first == [make().plans(*each) for each in steps]
        assert first != [plain.plans(*each) for each in steps]
        for (_, progress), plans in zip(steps, first, strict=True):
            for layer in (layer for plan in plans for layer in plan.layers()):
                allowed = {8} if progress < 0.5 else {8, 4, 2}
                if progress >= 0.25:
                    assert {layer.weight_bits, layer.activation_bits} <= allowed

    def test_trains_and_goes_on_where_it_was_cut_off(self, name, tiny, tmp_path):
        def run(seed, **changes):
            net = tiny.build(seed, expands=[2, 3], kernels=[3, 5])
            sampler = SCHEDULES.get(name)(
                net.space, net.ranges, stages=STAGES, random_subnets=1, seed=3
            )
            return Trainer(
                net,
                sampler=sampler,
                batches=tiny.batches(),
                loss=F.cross_entropy,
                distillation_loss=tiny.distillation,
                recipe=Recipe(steps=STEPS, learning_rate=0.01),
                **changes,
            )

        whole = run(0)
        whole.run()
        path = tmp_path / "c.safetensors"
        run(0, checkpoint=path, checkpoint_every_s=0.0).run(until=5)
        rest = run(1, checkpoint=path)
        rest.run()
        a, b = tiny.everything(whole), tiny.everything(rest)
        assert [key for key in a if not torch.equal(a[key], b[key])] == []


def test_single_path_trains_one_subnet_on_the_targets(schedule):
    sampler = schedule("single_path")
    assert all(len(sampler.plans(step, 0.9)) == 1 for step in range(10))
    assert sampler.teaching(0.9) == "none"
    sizes = {sampler.plans(step, 0.9)[0].macs for step in range(30)}
    assert len(sizes) > 10


def test_progressive_shrinking_unlocks_kernels_then_depth_then_width(net, schedule):
    sampler = schedule("progressive")
    assert isinstance(sampler, ProgressiveShrinking)
    counts = net.space.option_counts
    index = net.space.index

    def locked(name, progress):
        return sampler.allowed(progress)[index[name]] == 1

    # The phases are the thirds of what follows a warm-up of a quarter.
    assert not locked("s1.b1.kernel", 0.26) and locked("s1.depth", 0.26) and locked("width", 0.26)
    assert not locked("s1.depth", 0.51) and locked("s1.b1.expand", 0.51)
    assert sampler.allowed(0.99).tolist() == counts.tolist()
    assert not locked("resolution", 0.26)
    largest = net.space.plan(net.space.largest())
    for step in range(20):
        for plan in sampler.plans(step, 0.26):
            widths = {layer.name: layer.out_channels for layer in largest.layers()}
            assert {layer.name: layer.out_channels for layer in plan.layers()} == widths


def test_progressive_shrinking_lets_a_focus_vary_no_more_than_the_rest(net):
    sampler = ProgressiveShrinking(
        net.space, net.ranges, stages=STAGES, focus=Focus((net.space.smallest(),), share=1.0)
    )
    widths = {x.name: x.out_channels for x in net.space.plan(net.space.largest()).layers()}
    for step in range(10):
        for plan in sampler.plans(step, 0.26):
            assert {x.name: x.out_channels for x in plan.layers()} == widths
    last = {plan.macs for step in range(30) for plan in sampler.plans(step, 0.99)}
    assert min(last) < 2 * net.space.plan(net.space.smallest()).macs


def test_progressive_shrinking_learns_from_a_teacher_that_stays(tiny):
    net = tiny.build()
    sampler = ProgressiveShrinking(net.space, net.ranges, stages=STAGES, seed=3)
    taught = []

    def distil(outputs, teacher):
        taught.append(teacher.clone())
        return tiny.distillation(outputs, teacher)

    run = Trainer(
        net,
        sampler=sampler,
        batches=tiny.batches(),
        loss=F.cross_entropy,
        distillation_loss=distil,
        recipe=Recipe(steps=STEPS, learning_rate=0.05),
    )
    images, labels = next(tiny.batches().epoch(0))
    run.run(until=2)
    assert taught == []
    for _ in range(3):
        run.train_step(images, labels)
    assert len(taught) == 6 and all(torch.equal(taught[0], other) for other in taught)
