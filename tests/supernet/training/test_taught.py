"""The taught schedule: one network first, then all sizes alike."""

from __future__ import annotations

import numpy as np
import pytest

from search_spaces import build_space
from search_spaces.plan import FLOAT_BITS
from supernet.network import Supernet
from supernet.training.subnets import BitsStage
from supernet.training.taught import Taught


@pytest.fixture(scope="module")
def schedule():
    space = build_space("mobilenet", preset="28x28-lean", input_channels=1, outputs=10)
    stages = [BitsStage(0.5, (8, 4, 3, 2))]
    return Taught(space, Supernet(space).ranges, stages=stages, random_subnets=2, seed=1)


def test_the_largest_is_alone_until_it_is_trained(schedule):
    (plan,) = schedule.plans(0, 0.49)
    assert {layer.weight_bits for layer in plan.layers()} == {FLOAT_BITS}
    assert next(iter(plan.layers())).out_channels == 16
    assert schedule.teaching(0.49) == "none"
    assert schedule.teaching(0.5) == "remembered"


def test_sizes_are_drawn_evenly_on_a_scale_of_ratios(schedule):
    space = schedule.space
    sizes = [plan.weights_kib for step in range(200) for plan in schedule.plans(step, 0.7)]
    ends = space.costs(space.genes([space.smallest(), space.largest()]))["weights_kib"]
    share = (np.log(sizes) - np.log(ends[0])) / (np.log(ends[1]) - np.log(ends[0]))
    assert np.quantile(share, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.12)
    plain = space.costs(space.sample_genes(np.random.default_rng(0), 400))["weights_kib"]
    # Drawn choice by choice, few are at the ends.
    near = ends[0] * (ends[1] / ends[0]) ** 0.15
    assert (np.array(sizes) < near).mean() > 1.5 * (plain < near).mean()


def test_some_have_one_pair_of_bits_for_all_layers(schedule):
    def pairs(plan):
        searched = [layer for layer in plan.layers() if layer.role in ("expand", "project")]
        return {(layer.weight_bits, layer.activation_bits) for layer in searched}

    one = [len(pairs(plan)) == 1 for step in range(200) for plan in schedule.plans(step, 0.7)]
    # By chance three blocks of four bit-widths are alike once in sixteen times.
    assert 0.2 < sum(one) / len(one) < 0.45


def test_the_largest_is_not_trained_again(schedule):
    largest = schedule.space.plan(schedule.space.largest()).macs
    drawn = [plan.macs for step in range(100) for plan in schedule.plans(step, 0.7)]
    assert np.mean(drawn) < 0.5 * largest


def test_a_fall_from_the_teacher_to_a_small_subnet_is_no_collapse(schedule):
    assert schedule.watched(schedule.plans(3, 0.4), 0.4) == schedule.plans(3, 0.4)[0]
    assert schedule.watched(schedule.plans(3, 0.6), 0.6) is None
