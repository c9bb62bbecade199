"""Budgets of several products: what serves each of them best."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nas.fronts.budgets import NEAR, CostBudget, served, unserved
from nas.fronts.metrics import Constraint, Goal, Metric
from nas.fronts.spec import job_fronts
from nas.job.schema import Job

KIB = Metric("weights_kib")
GOAL = Goal(Metric("accuracy"))
rows = st.lists(
    st.fixed_dictionaries({"accuracy": st.floats(0, 1), "weights_kib": st.floats(1, 100)}),
    min_size=1,
    max_size=20,
)
limits = st.lists(st.floats(0.5, 120), min_size=1, max_size=6)


@given(rows, limits)
def test_nothing_within_a_budget_is_better_than_what_serves_it(metrics, limits):
    budgets = [CostBudget(KIB, limit, GOAL) for limit in limits]
    chosen = served(budgets, metrics, range(len(metrics)))
    assert len(chosen) == len(set(chosen)) <= len(budgets)
    for budget in budgets:
        within = [m["accuracy"] for m in metrics if budget.keeps(m)]
        offered = [metrics[i]["accuracy"] for i in chosen if budget.keeps(metrics[i])]
        assert max(offered, default=None) == max(within, default=None)


def test_further_ones_for_a_budget_use_most_of_it():
    kib = [2.0, 9.0, 8.5, 9.5, 19.0]
    accuracy = [0.9, 0.8, 0.85, 0.7, 0.95]
    metrics = [{"accuracy": a, "weights_kib": k} for a, k in zip(accuracy, kib, strict=True)]
    budgets = [CostBudget(KIB, 10.0, GOAL), CostBudget(KIB, 20.0, GOAL)]
    # The best within 10 KiB is much smaller; what goes on beside it is not.
    assert served(budgets, metrics, range(5), each=3) == [0, 4, 2, 1]


def test_of_an_error_the_smallest_serves_best():
    budget = CostBudget(KIB, 10.0, Goal(Metric("latency_ms", "a")))
    metrics = [
        {"weights_kib": 9.0, "latency_ms[a]": 3.0},
        {"weights_kib": 8.0, "latency_ms[a]": 2.0},
    ]
    assert served([budget], metrics, range(2)) == [1]


def test_candidates_are_looked_for_between_most_of_a_budget_and_the_whole():
    other = Constraint(Metric("macs"), 1e6)
    bounds = CostBudget(KIB, 10.0, GOAL).within([Constraint(KIB, 50.0), other])
    assert set(bounds) == {other, Constraint(KIB, 10.0), Constraint(KIB, 10.0 * NEAR, upper=False)}


def test_a_budget_of_latency_is_to_be_kept_as_surely_as_a_bound():
    raw = {"name": "a", "data": {"name": "digits"}, "devices": [{"name": "a"}]}
    raw["search"] = {"confidence": 0.9, "budgets": {"latency_ms": [2.0], "weights_kib": [8]}}
    sure, exact = Job.model_validate(raw).cost_budgets()
    upper = next(bound for bound in sure.within([]) if bound.upper)
    assert upper.violation(np.array([1.9]), np.array([0.2])) > 0  # the mean would keep it
    assert exact.confidence is None


@pytest.mark.parametrize(("device", "fronts"), [(None, 3), ("a", 2)])
def test_a_budget_of_a_device_is_served_by_its_front_and_the_joint_one(device, fronts):
    goals = [GOAL, Goal(Metric("latency_ms", "a")), Goal(Metric("latency_ms", "b"))]
    metric = KIB if device is None else Metric("latency_ms", device)
    found = job_fronts(goals, [], ["a", "b"], budgets=[CostBudget(metric, 5.0, GOAL)])
    assert sum(bool(front.budgets) for front in found) == fronts


def test_without_a_joint_front_each_device_serves_its_own_budgets():
    """Both trade off the same, which makes one front of them only where it serves both."""
    found = job_fronts(
        [GOAL, Goal(KIB)], [], ["a", "b"], joint=False,
        budgets=[CostBudget(Metric("latency_ms", d), 5.0, GOAL) for d in ("a", "b")],
    )  # fmt: skip
    assert [[b.metric.device for b in front.budgets] for front in found] == [["a"], ["b"]]


def test_budgets_that_nothing_keeps_are_named_with_what_comes_closest():
    metrics = [{"weights_kib": 2.5, "latency_ms[npu]": 3.0}, {"weights_kib": 2.25}]
    npu = CostBudget(Metric("latency_ms", "npu"), 1.0, GOAL)
    budgets = [CostBudget(KIB, 2.25, GOAL), CostBudget(KIB, 2.0, GOAL), npu]
    assert unserved(budgets, metrics, among="here") == [
        "search.budgets: nothing here keeps weights_kib 2; the closest needs 2.25 KiB of weights "
        "(budget 2 KiB of weights)",
        "search.budgets: nothing here keeps latency_ms[npu] 1; the closest needs 3 ms on npu "
        "(budget 1 ms)",
    ]
    # What nobody knows yet is not called out of reach.
    assert unserved([npu], [{"weights_kib": 2.5}], among="here") == []
