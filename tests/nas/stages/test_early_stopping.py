"""The bound of early stopping is exact, and what is given up on belongs on no front."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.fronts.spec import FrontSpec
from nas.stages.early_stopping import accuracy_needed, accuracy_upper_limit

ACCURACY, LATENCY = Metric("accuracy"), Metric("latency_ms", "cpu")


@pytest.mark.parametrize(("seen", "total", "risk"), [(20, 60, 0.05), (50, 51, 0.01), (7, 7, 0.2)])
def test_the_true_accuracy_lies_above_the_limit_with_at_most_the_stated_risk(seen, total, risk):
    limits = [accuracy_upper_limit(r, seen, total, risk=risk) for r in range(seen + 1)]
    for right in range(total + 1):
        chances = hypergeom.pmf(np.arange(seen + 1), total, right, seen)
        missed = sum(p for p, limit in zip(chances, limits, strict=True) if limit < right / total)
        assert missed <= risk + 1e-12


@given(st.integers(1, 40), st.integers(0, 40), st.integers(0, 40))
def test_the_limit_lies_between_what_was_seen_and_what_is_possible(seen, rest, right):
    right = min(right, seen)
    limit = accuracy_upper_limit(right, seen, seen + rest, risk=0.05)
    assert right / (seen + rest) <= limit <= (right + rest) / (seen + rest)


def test_all_images_leave_nothing_open():
    assert accuracy_upper_limit(13, 20, 20, risk=0.01) == 13 / 20


@pytest.mark.parametrize("numbers", [(5, 4, 10), (1, 0, 10), (3, 5, 4), (-1, 4, 10)])
def test_counts_that_cannot_be_are_refused(numbers):
    with pytest.raises(ValueError, match="do not fit"):
        accuracy_upper_limit(*numbers, risk=0.05)


def front(*bounds: Constraint) -> FrontSpec:
    return FrontSpec("joint", (Goal(ACCURACY), Goal(LATENCY)), bounds)


def point(accuracy: float, latency: float) -> dict[str, float]:
    return {"accuracy": accuracy, "latency_ms[cpu]": latency}


@given(
    st.lists(
        st.tuples(st.integers(0, 20), st.integers(1, 20)), min_size=1, max_size=12, unique=True
    ),
    st.tuples(st.integers(0, 20), st.integers(1, 20)),
)
def test_below_the_accuracy_needed_an_architecture_is_dominated(points, new):
    evaluated = [point(a / 20, float(t)) for a, t in points]
    known = {"latency_ms[cpu]": float(new[1])}
    needed = accuracy_needed(known, evaluated, [front()])
    mine = point(new[0] / 20, float(new[1]))
    on_front = front().members([*evaluated, mine])[-1]
    if mine["accuracy"] < needed:
        assert not on_front
    elif mine["accuracy"] > needed:
        assert on_front


def test_infeasible_points_ask_for_nothing():
    budget = Constraint(Metric("macs"), 10.0)
    evaluated = [{**point(0.9, 1.0), "macs": 20.0}]
    known = {"latency_ms[cpu]": 2.0, "macs": 5.0}
    assert accuracy_needed(known, evaluated, [front(budget)]) == -math.inf


def test_the_least_demanding_front_decides():
    other = FrontSpec("board", (Goal(ACCURACY), Goal(Metric("latency_ms", "board"))), ())
    evaluated = [{**point(0.9, 1.0), "latency_ms[board]": 9.0}]
    known = {"latency_ms[cpu]": 2.0, "latency_ms[board]": 5.0}
    assert accuracy_needed(known, evaluated, [front()]) == 0.9
    assert accuracy_needed(known, evaluated, [front(), other]) == -math.inf


def test_a_bound_on_accuracy_is_needed_even_without_a_rival():
    asked = Constraint(ACCURACY, 0.7, upper=False)
    assert accuracy_needed({"latency_ms[cpu]": 2.0}, [], [front(asked)]) == 0.7


def test_an_objective_that_is_not_known_yet_stops_nothing():
    worst = FrontSpec("joint", (Goal(ACCURACY), Goal(Metric("worst_class_accuracy"))), ())
    evaluated = [{"accuracy": 0.9, "worst_class_accuracy": 0.9}]
    assert accuracy_needed({}, evaluated, [worst]) == -math.inf
