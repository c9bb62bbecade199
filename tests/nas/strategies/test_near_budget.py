"""Candidates that use a budget well."""

from __future__ import annotations

import numpy as np

from nas.fronts.budgets import NEAR, CostBudget
from nas.fronts.metrics import Goal, Metric
from nas.strategies import Exact, Problem
from nas.strategies.near_budget import near_budget
from search_spaces.space import Choice, SearchSpace

SPACE = SearchSpace("sums", [Choice(f"n{i}", tuple(range(10))) for i in range(5)])
KIB = Metric("weights_kib")


def value(genes):
    return genes[:, 0] - 0.1 * genes[:, 1].astype(float)


def problem(limit):
    budget = CostBudget(KIB, limit, Goal(Metric("accuracy")))
    surrogates = {
        "accuracy": Exact(value),
        "weights_kib": Exact(lambda genes: 1.0 + genes.sum(axis=1)),
    }
    return Problem(SPACE, [budget.goal], budget.within([]), surrogates)


def test_they_use_most_of_the_budget_and_are_the_best_that_were_seen():
    found = near_budget(problem(20.0), 8, np.random.default_rng(0))
    kib = 1.0 + SPACE.genes(found).sum(axis=1)
    assert len(found) == len(set(found)) == 8
    assert (kib <= 20.0).all() and (kib >= NEAR * 20.0).all()
    assert value(SPACE.genes(found)).min() >= 7.0


def test_known_ones_are_not_offered_again():
    first = near_budget(problem(20.0), 5, np.random.default_rng(0))
    again = near_budget(problem(20.0), 5, np.random.default_rng(0), exclude=first)
    assert not set(first) & set(again)


def test_where_nothing_lies_within_there_are_none():
    assert near_budget(problem(0.5), 3, np.random.default_rng(0)) == []
