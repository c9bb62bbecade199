"""Which subnets a step trains, and at which bits."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import layer_ranges
from supernet.training.subnets import (
    BitOdds,
    BitsStage,
    Focus,
    SandwichSampler,
    at_bits,
    default_stages,
    float_plan,
)

SEARCHED = ("expand", "depthwise", "project")
STAGES = [BitsStage(0.2, (8,)), BitsStage(0.4, (8, 4)), BitsStage(0.6, (8, 4, 3, 2))]


@lru_cache
def build(weights=(2, 3, 4, 8), activations=(2, 3, 4, 8)):
    space = MobileNetSpace.from_config(
        preset="8x8", weight_bits=weights, activation_bits=activations
    )
    return space, layer_ranges(space)


def sampler(seed: int = 0, **changes) -> SandwichSampler:
    return SandwichSampler(*build(), stages=STAGES, seed=seed, **changes)


def sizes(plan: NetworkPlan) -> NetworkPlan:
    return float_plan(plan)


def bits(plan: NetworkPlan, roles=SEARCHED) -> set[tuple[int, int]]:
    return {(x.weight_bits, x.activation_bits) for x in plan.layers() if x.role in roles}


@settings(max_examples=20)
@given(step=st.integers(0, 10**6), progress=st.floats(0, 1), seed=st.integers(0, 2**40))
def test_a_step_depends_on_seed_and_step_alone(step, progress, seed):
    first, second = sampler(seed), sampler(seed)
    second.plans(step + 1, progress)
    assert first.plans(step, progress) == second.plans(step, progress)


def test_steps_and_seeds_differ():
    made = [sampler(seed).plans(step, 0.9)[2:] for seed in (0, 1) for step in (0, 1)]
    assert all(a != b for i, a in enumerate(made) for b in made[:i])


@settings(max_examples=20)
@given(step=st.integers(0, 10**6), progress=st.floats(0.2, 1), count=st.integers(0, 3))
def test_the_largest_teaches_the_smallest_and_random_ones(step, progress, count):
    space, _ = build()
    plans = sampler(random_subnets=count).plans(step, progress)
    assert len(plans) == 2 + count
    assert sizes(plans[0]) == sizes(space.plan(space.largest()))
    assert sizes(plans[1]) == sizes(space.plan(space.smallest()))
    assert bits(plans[0]) == {(8, 8)}


@settings(max_examples=30)
@given(step=st.integers(0, 10**6), progress=st.floats(0.2, 1))
def test_bits_are_those_of_the_stage(step, progress):
    allowed = {b for stage in STAGES if progress >= stage.start for b in stage.bits}
    for plan in sampler().plans(step, progress):
        assert {b for pair in bits(plan) for b in pair} <= allowed
        assert bits(plan, ("stem", "head", "classifier")) == {(8, 8)}


def test_every_bit_width_of_the_last_stage_is_trained_and_pairs_are_shared_half_of_the_time():
    shared, seen = 0, set()
    for step in range(60):
        plans = sampler(random_subnets=1).plans(step, 0.9)
        for plan in plans[1:]:
            seen |= bits(plan)
            shared += len(bits(plan)) == 1
    assert seen == {(w, a) for w in (2, 3, 4, 8) for a in (2, 3, 4, 8)}
    assert 40 <= shared <= 80


@pytest.mark.parametrize("progress", [0.0, 0.1999])
def test_the_warm_up_trains_the_largest_in_float(progress):
    space, _ = build()
    assert sampler().plans(3, progress) == [float_plan(space.plan(space.largest()))]


def test_stages_may_come_in_any_order():
    other = SandwichSampler(*build(), stages=STAGES[::-1])
    for progress in (0.1, 0.3, 0.5, 0.9):
        assert other.plans(5, progress) == sampler().plans(5, progress)


def test_a_layer_that_lacks_a_bit_width_takes_the_next_higher_it_has():
    space, ranges = build((3, 8), (4, 8))
    made = SandwichSampler(space, ranges, stages=[BitsStage(0, (2,))])
    assert bits(made.plans(0, 0)[0]) == {(3, 4)}
    made = SandwichSampler(*build((2, 3), (2, 4)), stages=[BitsStage(0, (8,))])
    assert bits(made.plans(0, 0)[0]) == {(3, 4)}


def test_every_bit_width_that_is_drawn_has_a_quantiser():
    for weights, activations in (((4, 32), (8, 16)), ((32,), (2, 4)), ((2,), (32,))):
        space, ranges = build(weights, activations)
        made = SandwichSampler(space, ranges, stages=default_stages(ranges, warmup=0.1))
        for step in range(5):
            for plan in made.plans(step, 0.95):
                for layer in plan.layers():
                    assert layer.weight_bits in ranges[layer.name].weight_bits
                    assert layer.activation_bits in ranges[layer.name].activation_bits


def test_default_stages_go_from_high_bits_to_all():
    _, ranges = build()
    stages = default_stages(ranges, warmup=0.2)
    assert [stage.bits for stage in stages] == [(8,), (8, 4), (8, 4, 3, 2)]
    assert [stage.start for stage in stages] == pytest.approx([0.2, 0.32, 0.44])


def test_default_stages_of_few_bit_widths():
    assert default_stages(build((32,), (32,))[1], warmup=0.2) == [BitsStage(0.2, (32,))]
    assert [s.bits for s in default_stages(build((8,), (8,))[1], warmup=0.0)] == [(8,)]
    two = default_stages(build((4,), (4,))[1], warmup=0.0)  # the edges have 8
    assert [s.bits for s in two] == [(8,), (8, 4)]


def test_a_plan_at_other_bits_keeps_its_sizes():
    space, _ = build()
    plan = space.plan(space.largest())
    other = at_bits(plan, 4, 2)
    assert {(x.weight_bits, x.activation_bits) for x in other.layers()} == {(4, 2)}
    assert other.macs == plan.macs and other.parameters == plan.parameters
    assert sizes(other) == sizes(plan) == at_bits(plan, 32, 32)
    assert float_plan(plan).stream_bits == 32


def test_bit_widths_come_as_often_as_their_odds_say():
    made = sampler(
        random_subnets=1, bit_odds=BitOdds(weights={2: 6.0, 8: 0.5}, activations={4: 3.0})
    )
    drawn = [
        (x.weight_bits, x.activation_bits)
        for step in range(200)
        for x in made.plans(step, 0.9)[2].layers()
        if x.role in SEARCHED
    ]
    weights, activations = map(np.array, zip(*drawn, strict=True))
    # Odds 6 : 1 : 1 : 0.5 and 1 : 1 : 3 : 1. Layers that share a pair make draws dependent.
    assert np.mean(weights == 2) == pytest.approx(6 / 8.5, abs=0.08)
    assert np.mean(activations == 4) == pytest.approx(3 / 6, abs=0.08)
    assert set(weights) == set(activations) == {2, 3, 4, 8}


def test_odds_count_among_the_bits_of_the_stage():
    made = sampler(random_subnets=3, bit_odds=BitOdds(weights={2: 100.0}))
    assert all(bits(plan) == {(8, 8)} for plan in made.plans(1, 0.3))


def test_odds_for_bits_that_are_never_trained_are_refused():
    with pytest.raises(InputError, match=r"no stage trains 5 bits \(trained: 8, 4, 3, 2\)"):
        sampler(bit_odds=BitOdds(activations={5: 2.0}))


def near(share: float = 1.0, change: float = 0.0) -> tuple[Focus, list]:
    space, _ = build()
    rng = np.random.default_rng(5)
    archs = [space.sample(rng) for _ in range(3)]
    return Focus(tuple(archs), share, change), archs


def test_subnets_near_the_focus_are_mutations_at_bits_of_their_own():
    space, _ = build()
    focus, archs = near()
    genes = space.genes(archs)
    by_plan = {}
    rng = np.random.default_rng(0)
    for _ in range(200):
        arch = sampler(focus=focus).draw_near(rng)
        # One choice changes at least; one that it switches on or off may follow.
        changed = (space.genes([arch]) != genes).sum(1).min()
        assert changed >= 1
        by_plan[space.plan(arch)] = changed
    assert np.median(list(by_plan.values())) == 1
    for step in range(30):
        for plan in sampler(focus=focus, random_subnets=2).plans(step, 0.9)[2:]:
            origin = min(
                (space.plan(arch) for arch in archs),
                key=lambda other, plan=plan: len(bits_by_layer(plan) ^ bits_by_layer(other)),
            )
            shared = bits_by_layer(plan) & bits_by_layer(origin)
            assert len(shared) >= 0.4 * len(bits_by_layer(origin))


def bits_by_layer(plan: NetworkPlan) -> set[tuple[str, int, int]]:
    return {(x.name, x.weight_bits, x.activation_bits) for x in plan.layers()}


def test_a_focus_keeps_to_the_bits_of_the_stage():
    focus, _ = near()
    for step in range(10):
        for plan in sampler(focus=focus).plans(step, 0.45)[2:]:
            assert {b for pair in bits(plan) for b in pair} <= {8, 4}


def test_the_share_says_how_often_the_focus_is_used():
    focus, _ = near(share=0.25)
    rng = np.random.default_rng(1)
    used = [sampler(focus=focus).draw_near(rng) is not None for _ in range(400)]
    assert 0.18 < np.mean(used) < 0.32
    assert sampler(focus=near(share=0.0)[0]).draw_near(rng) is None


def test_a_focus_on_nothing_is_refused():
    with pytest.raises(InputError, match="one architecture at least"):
        Focus(())
