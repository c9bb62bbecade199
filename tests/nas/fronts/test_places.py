"""Which candidates are verified: feasible ones first, spread over the best fronts."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.fronts.coverage import most_useful
from nas.fronts.metrics import Constraint, Goal, Metric
from nas.fronts.pareto import nondominated
from nas.fronts.places import pick_spread
from search_spaces.space import Choice, SearchSpace

SPACE = SearchSpace("numbers", [Choice("n", tuple(range(60)))])
GOALS = [Goal(Metric("accuracy")), Goal(Metric("weights_kib"))]
BUDGET = [Constraint(Metric("weights_kib"), 6.0)]

# Few distinct values, so that ties and equal points occur.
points = st.lists(
    st.tuples(st.integers(0, 10).map(lambda v: v / 10), st.integers(1, 12).map(float)),
    min_size=1,
    max_size=25,
)


def pick(values, count, constraints=(), noise=0.0):
    archs = [SPACE.arch({"n": i}) for i in range(len(values))]
    metrics = [{"accuracy": a, "weights_kib": k} for a, k in values]
    picked = pick_spread(
        archs, metrics, GOALS, list(constraints), count, metric="accuracy", noise=noise
    )
    return [arch["n"] for arch in picked]


def objectives(values) -> np.ndarray:
    return np.array([[-a, k] for a, k in values])


def fronts(values, rows) -> dict[int, int]:
    """Number of the front of each row, by peeling."""
    rank, left, number = {}, np.array(rows), 0
    while left.size:
        on = nondominated(objectives(values)[left])
        rank.update({int(i): number for i in left[on]})
        left, number = left[~on], number + 1
    return rank


@given(points, st.integers(0, 30))
def test_as_many_as_asked_for_each_once(values, count):
    picked = pick(values, count)
    assert len(picked) == len(set(picked)) == min(count, len(values))


@given(points, st.integers(1, 30))
def test_no_infeasible_one_is_taken_while_there_are_feasible_ones(values, count):
    feasible = [i for i, (_, kib) in enumerate(values) if kib <= 6.0]
    picked = pick(values, count, BUDGET)
    if feasible:
        assert set(picked) <= set(feasible) and len(picked) == min(count, len(feasible))
    else:
        missed = sorted(kib for _, kib in values)
        assert [values[i][1] for i in picked] == missed[: len(picked)]
        assert len(picked) == min(count, len(values))


@given(points, st.integers(1, 30))
def test_a_later_front_is_begun_only_when_the_earlier_are_used_up(values, count):
    rank = fronts(values, range(len(values)))
    taken = [rank[i] for i in pick(values, count)]
    assert taken == sorted(taken)
    for number in range(taken[-1]):
        assert taken.count(number) == list(rank.values()).count(number)


@given(points, st.integers(2, 30))
def test_the_best_of_the_front_is_taken_first(values, count):
    picked = pick(values, count)
    assert values[picked[0]][0] == max(a for a, _ in values)


@given(points, st.integers(1, 30))
def test_more_places_are_never_fewer_candidates_of_the_front(values, count):
    front = {i for i, number in fronts(values, range(len(values))).items() if number == 0}
    fewer, more = (front.intersection(pick(values, n)) for n in (count, count + 1))
    assert len(more) >= len(fewer)


def test_a_gap_goes_before_what_costs_about_what_another_does():
    # After a quarter of their training the large ones are hardly ahead.
    values = [(0.84, 3.6), (0.885, 5.2), (0.89, 5.9), (0.908, 15.0), (0.91, 39.0), (0.92, 144.0)]
    assert set(pick(values, 5)) == {0, 2, 3, 4, 5}
    assert set(pick(values, 6)) == set(range(6))


def test_the_middle_of_a_line_follows_its_best_point():
    # Costs are spread by their ratios: the middle of 1 and 1024 is 32.
    values = [(i / 20, 2.0 ** (i / 2)) for i in range(21)]
    picked = pick(values, 6)
    assert set(picked[:3]) == {20, 10, 0}  # the best, the middle, and what fits the least budget
    assert all(1 <= b - a <= 5 for a, b in itertools.pairwise(sorted(picked)))


def test_scales_of_the_objectives_do_not_matter():
    values = [(i / 20, (1.0 + i) ** 2) for i in range(21)]
    assert pick(values, 7) == pick([(a / 1000, 1e6 * k) for a, k in values], 7)


def test_what_noise_may_have_put_behind_fills_a_gap():
    # By luck the one of 1.3 KiB looks better than those of 4; that of 40 is dearer than the best.
    values = [(0.95, 1.0), (0.983, 1.3), (0.976, 4.0), (0.974, 4.1), (0.993, 8.0), (0.99, 40.0)]
    assert set(pick(values, 4)) == {0, 1, 4, 5}
    assert set(pick(values, 4, noise=0.01)) == {0, 1, 4, 2}
    # What is behind by more than noise fills nothing.
    assert 2 not in pick(values, 4, noise=0.005)


@given(points, st.integers(1, 30), st.floats(0, 0.3))
def test_noise_takes_no_place_from_those_that_serve_most(values, count, noise):
    plain, noisy = pick(values, count), pick(values, count, noise=noise)
    front = [i for i, number in fronts(values, range(len(values))).items() if number == 0]
    quality, costs = np.array([values[i] for i in front]).T
    serving = len(most_useful(quality, costs[:, None], count))
    assert noisy[:serving] == plain[:serving]
    assert len(set(noisy)) == len(plain)


def test_an_error_rate_is_spread_over_like_an_accuracy():
    # Only the sign differs, so the same places are chosen, and the best comes first.
    values = [(i / 20, 2.0 ** (i / 2)) for i in range(21)]
    archs = [SPACE.arch({"n": i}) for i in range(21)]
    metrics = [{"worst_class_loss": 2 - a, "weights_kib": k} for a, k in values]
    goals = [Goal(Metric("worst_class_loss")), GOALS[1]]
    picked = pick_spread(archs, metrics, goals, [], 5, metric="worst_class_loss")
    assert [arch["n"] for arch in picked] == pick(values, 5)


def test_none_of_none():
    assert pick_spread([], [], GOALS, BUDGET, 5, metric="accuracy") == []


def test_metrics_that_a_constraint_needs_must_be_there():
    with pytest.raises(ValueError, match="cannot be judged"):
        pick_spread([SPACE.arch({"n": 0})], [{"accuracy": 0.5, "weights_kib": 1.0}], GOALS,
                    [Constraint(Metric("macs"), 1.0)], 1, metric="accuracy")  # fmt: skip
