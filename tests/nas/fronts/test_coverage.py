"""Points chosen for budgets that nobody knows yet."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.fronts.coverage import most_useful, worth


def points(draw, kinds: int) -> tuple[np.ndarray, np.ndarray]:
    count = draw(st.integers(2, 7))
    quality = draw(st.lists(st.floats(0, 1), min_size=count, max_size=count))
    costs = draw(
        st.lists(
            st.lists(st.floats(0.1, 100), min_size=kinds, max_size=kinds),
            min_size=count,
            max_size=count,
        )
    )
    return np.array(quality), np.array(costs)


clouds = st.composite(points)


def test_worth_is_the_mean_over_log_budgets_of_the_best_within_them():
    quality, costs = np.array([0.5, 0.9]), np.array([[1.0], [math.e]])
    assert worth(quality, costs, np.array([0, 1]), 0.5) == pytest.approx(0.5)
    assert worth(quality, costs, np.array([1]), 0.2) == pytest.approx(0.2)
    # A third of the range of three e-folds has the small one only.
    costs = np.array([[1.0], [math.e], [math.e**3]])
    quality = np.array([0.6, 0.9, 0.3])
    assert worth(quality, costs, np.array([0, 1]), 0.0) == pytest.approx(0.6 + 2 * 0.9)


@settings(deadline=None, max_examples=60)
@given(clouds(2), st.integers(1, 4))
def test_greedy_choice_keeps_its_promise_and_begins_with_the_best(cloud, count):
    quality, costs = cloud
    chosen = most_useful(quality, costs, count)
    assert len(chosen) == len(set(chosen)) <= count
    assert quality[chosen[0]] == quality.max()
    nothing = float(2 * quality.min() - quality.max())
    base = nothing * float(np.ptp(np.log(costs), axis=0).sum())
    gain = worth(quality, costs, np.array(chosen), nothing) - base
    best = max(
        worth(quality, costs, np.array(some), nothing) - base
        for some in itertools.combinations(range(len(quality)), min(count, len(quality)))
    )
    assert count == 1 or gain >= (1 - 1 / math.e) * best - 1e-9
    # More places never serve worse.
    more = worth(quality, costs, np.array(most_useful(quality, costs, count + 1)), nothing)
    assert more >= gain + base - 1e-9


def test_the_smallest_has_a_place_though_it_is_the_worst():
    quality = np.array([0.925, 0.911, 0.920, 0.904, 0.916, 0.915, 0.924])
    kib = np.array([57.3, 8.7, 33.4, 5.4, 15.2, 20.0, 25.6])[:, None]
    assert 3 in most_useful(quality, kib, 5)


def test_a_cost_that_hardly_varies_hardly_counts():
    quality = np.array([0.80, 0.90, 0.91, 0.70])
    costs = np.array([[1.0, 1.00], [10.0, 1.02], [100.0, 1.03], [99.0, 0.99]])
    assert set(most_useful(quality, costs, 3)) == {0, 1, 2}
