"""Rows that stand and rows that are beaten, with intervals; knees that nobody beats."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.fronts.noise import (
    beaten_by,
    beyond_intervals,
    beyond_paired,
    beyond_shares,
    unbeaten_knee,
)
from nas.fronts.pareto import nondominated

seeds = st.integers(0, 10_000)


def noisy_front(seed, *, rows=8, columns=3, grid=None):
    """Objectives with the quality first, and what differs beyond intervals."""
    rng = np.random.default_rng(seed)
    values = rng.random((rows, columns))
    if grid:
        # Ties, as in small validation sets and in sizes.
        values = np.round(values * grid) / grid
    half = rng.uniform(0, 0.2) * rng.random((rows, columns))
    half[:, -1] = 0.0
    beyond = np.stack(
        [beyond_intervals(values[:, k] - half[:, k], values[:, k] + half[:, k])
         for k in range(columns)], axis=2,
    )  # fmt: skip
    return values, beyond


def test_intervals_decide_what_is_beyond():
    low, high = np.array([1.0, 1.5, 3.0]), np.array([2.0, 2.5, 3.0])
    found = beyond_intervals(low, high)
    assert found.tolist() == [
        [False, False, True],
        [False, False, True],
        [False, False, False],
    ]


@given(seeds, st.sampled_from([None, 4]), st.integers(1, 4))
def test_a_beaten_row_is_worse_in_every_objective_it_differs_in(seed, grid, columns):
    values, beyond = noisy_front(seed, columns=columns, grid=grid)
    for i, j in enumerate(beaten_by(values, beyond)):
        beats = [(values[k] <= values[i]).all() and beyond[k, i].any() for k in range(len(values))]
        assert (j is not None) == any(beats)
        if j is not None:
            assert beats[j]


@given(seeds, st.sampled_from([None, 4]))
def test_exact_values_leave_the_usual_front(seed, grid):
    values, _ = noisy_front(seed, grid=grid)
    exact = np.stack([beyond_intervals(values[:, k], values[:, k]) for k in range(3)], axis=2)
    stands = [by is None for by in beaten_by(values, exact)]
    assert stands == nondominated(values).tolist()


@given(seeds)
def test_wider_intervals_beat_nobody_more(seed):
    values, beyond = noisy_front(seed)
    fewer = beyond & (np.random.default_rng(seed).random(beyond.shape) < 0.5)
    more, less = beaten_by(values, beyond), beaten_by(values, fewer)
    assert all(a is not None for a, b in zip(more, less, strict=True) if b is not None)


@settings(max_examples=300)
@given(seeds, st.sampled_from([None, 3, 8]), st.integers(1, 4), st.integers(1, 12))
def test_no_knee_is_beaten(seed, grid, columns, rows):
    values, beyond = noisy_front(seed, rows=rows, columns=columns, grid=grid)
    at = unbeaten_knee(values, beyond, 0)
    others = [j for j in range(rows) if j != at]
    # In all objectives, whatever the intervals.
    assert not any(
        (values[j] <= values[at]).all() and (values[j] < values[at]).any() for j in others
    )
    # In quality and one cost, beyond the interval of the quality.
    for k in range(1, columns):
        assert not any(beyond[j, at, 0] and values[j, k] <= values[at, k] for j in others)


@given(seeds)
def test_a_knee_stands_wherever_a_row_of_the_front_does(seed):
    values, beyond = noisy_front(seed)
    stands = np.random.default_rng(seed + 1).random(len(values)) < 0.7
    at = unbeaten_knee(values, beyond, 0, [stands])
    assert nondominated(values)[at]
    assert stands[at] or not (stands & nondominated(values)).any()


@given(seeds)
def test_no_knee_is_beaten_by_what_the_test_set_says(seed):
    """Rows of a front by one noisy look at the quality, judged by another."""
    rng = np.random.default_rng(seed)
    values, _ = noisy_front(seed, rows=30)
    values = values[nondominated(values)]
    final = values.copy()
    final[:, 0] += rng.normal(0, 0.2, len(values))
    exact = [beyond_intervals(values[:, k], values[:, k]) for k in range(3)]
    at = unbeaten_knee(values, np.stack(exact, axis=2), 0, [nondominated(final)])
    assert not any(
        (final[j] <= final[at]).all() and (final[j] < final[at]).any() for j in range(len(final))
    )


def test_the_demonstration_on_a_busy_machine():
    """A row of 85.5 % at .081 ms was the knee beside one of 97.2 % at .076 ms."""
    accuracy = np.array([0.855, 0.972, 0.981])
    ms = np.array([0.081, 0.076, 0.110])
    kib = np.array([2.2, 9.0, 30.0])
    values = np.column_stack([-accuracy, ms, kib])
    beyond = np.stack(
        [
            beyond_shares(accuracy, 360),
            beyond_intervals(ms * 0.9, ms * 1.1),
            beyond_intervals(kib, kib),
        ],
        axis=2,
    )
    stands = [by is None for by in beaten_by(values, beyond)]
    # Nobody is beaten in all three, since the first is the smallest ...
    assert all(stands)
    # ... but it is no recommendation.
    assert unbeaten_knee(values, beyond, 0, [stands]) == 1


def test_as_good_for_less_of_everything_is_the_better_recommendation():
    accuracy = np.array([0.9120, 0.9115, 0.80])
    ms, kib = np.array([0.10, 0.09, 0.05]), np.array([40.0, 30.0, 5.0])
    values = np.column_stack([-accuracy, ms, kib])
    exact = [beyond_intervals(v, v) for v in (ms, kib)]
    noisy = np.stack([beyond_shares(accuracy, 5000), *exact], axis=2)
    assert unbeaten_knee(values[:2], noisy[:2, :2], 0) == 1


@pytest.mark.parametrize("accuracy", [0.5, 0.9])
def test_chance_alone_seldom_beats(accuracy):
    # Models that are equally good: one in twenty differences is beyond, half of them this way.
    rng = np.random.default_rng(0)
    shares = rng.binomial(400, accuracy, 400) / 400
    assert 0.01 <= beyond_shares(shares, 400).mean() <= 0.04
    right = rng.random((200, 400)) < accuracy
    assert 0.01 <= beyond_paired(right).mean() <= 0.04


def test_pairs_tell_more_than_shares():
    rng = np.random.default_rng(1)
    hard = rng.random(2000)
    right = np.stack([hard < 0.90, hard < 0.89])
    assert beyond_paired(right)[0, 1] and not beyond_paired(right)[1, 0]
    assert not beyond_shares(right.mean(axis=1), 2000)[0, 1]
    assert not beyond_paired(np.stack([right[0], right[0]])).any()


def test_a_cost_that_hardly_differs_decides_nothing():
    """A row of 38.0 % was the knee beside one of 45.5 %, for being 3 % faster."""
    values = np.array(
        [[-0.455, 0.0435, 10.4], [-0.371, 0.0429, 8.3], [-0.384, 0.0428, 9.5], [-0.38, 0.0423, 8.9]]
    )
    beyond = values[:, None, :] < values[None, :, :]
    # Latencies and the accuracies of the last three are within each other's intervals.
    beyond[:, :, 1] = False
    beyond[1:, 1:, 0] = False
    assert unbeaten_knee(values, beyond, 0) == 0
