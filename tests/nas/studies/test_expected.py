"""What candidates are expected to come to: three orders together, the values unchanged."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.studies.expected import BY, expected


@given(st.lists(st.integers(0, 9), min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_the_values_are_the_same_in_another_order(values, chance):
    costs = [np.array([chance.random() for _ in values]) for _ in BY]
    found = expected(values, costs, higher_is_better=True)
    assert sorted(found) == sorted(map(float, values))
    # An error rate is the same question, its sign turned.
    turned = expected([-v for v in values], costs, higher_is_better=False)
    assert [-v for v in turned] == found


def test_who_leads_in_all_orders_leads_and_who_trails_trails():
    costs = [np.array([1.0, 3.0, 2.0]), np.array([10.0, 30.0, 20.0])]
    assert expected([0.5, 0.9, 0.7], costs, higher_is_better=True) == [0.5, 0.9, 0.7]
    assert expected([0.5, 0.1, 0.3], costs, higher_is_better=False) == [0.5, 0.1, 0.3]


def test_where_nothing_was_learnt_more_operations_and_size_decide():
    costs = [np.array([4.0, 1.0, 3.0, 2.0]), np.array([4.0, 1.0, 3.0, 2.0])]
    found = expected([0.101, 0.099, 0.1, 0.102], costs, higher_is_better=True)
    # The third and the fourth have equal sums.
    assert np.argsort(found).tolist() == [1, 2, 3, 0]


def test_among_equals_what_was_inherited_decides():
    same = [np.array([5.0, 5.0])] * 2
    assert expected([0.4, 0.6], same, higher_is_better=True) == [0.4, 0.6]
    against = [np.array([2.0, 1.0]), np.array([1.0, 1.0])]
    assert expected([0.4, 0.6], against, higher_is_better=True) == [0.4, 0.6]


def test_nothing_is_expected_of_nobody():
    assert expected([], [np.array([]), np.array([])], higher_is_better=True) == []
