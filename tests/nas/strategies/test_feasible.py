import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import Exact, Problem, Supplied, find_feasible
from nas.strategies.feasible import neighbours
from nas.strategies.genes import GeneSet
from search_spaces.errors import InfeasibleError
from search_spaces.space import Choice, SearchSpace


def needle(distance, n=40):
    """A space of 4^40 in which ``macs`` is the number of genes that differ from a target."""
    space = SearchSpace("needle", [Choice(f"c{i}", (0, 1, 2, 3)) for i in range(n)])
    target = np.random.default_rng(5).integers(0, 4, n)
    macs = Metric("macs")
    problem = Problem(
        space,
        [Goal(macs)],
        [Constraint(macs, distance + 0.5)],
        {"macs": Exact(lambda genes: (genes != target).sum(axis=1).astype(float))},
    )
    return problem, target


def test_a_region_of_one_in_ten_to_the_24_is_found():
    problem, target = needle(0)
    rows = find_feasible(problem, 1, np.random.default_rng(0))
    assert (rows[0] == target).all()


def test_many_distinct_rows_of_a_tiny_region():
    problem, target = needle(3)
    rows = find_feasible(problem, 50, np.random.default_rng(0))
    assert len({row.tobytes() for row in rows}) == 50
    assert ((rows != target).sum(axis=1) <= 3).all()


def test_excluded_rows_do_not_come_back_and_are_no_infeasibility():
    problem, target = needle(0)
    rows = find_feasible(problem, 1, np.random.default_rng(0), exclude=GeneSet(target[None]))
    assert len(rows) == 0


def test_infeasible_names_the_closest_on_its_device():
    space = SearchSpace("s", [Choice(f"c{i}", (1, 2, 3)) for i in range(30)])
    latency = Metric("latency_ms", "cpu")
    problem = Problem(
        space,
        [Goal(Metric("macs"))],
        [Constraint(latency, 2.0)],
        {"latency_ms[cpu]": Supplied(lambda g: (3.1 + g.sum(axis=1), np.zeros(len(g))))},
    )
    with pytest.raises(InfeasibleError) as caught:
        find_feasible(problem, 3, np.random.default_rng(0))
    assert "the closest architecture found needs 3.1 ms on cpu (budget 2 ms)" in str(caught.value)
    assert caught.value.closest == str(space.smallest())
    assert caught.value.violations == {"latency_ms[cpu] max": (3.1, 2.0)}


def test_confidence_keeps_a_margin():
    space = SearchSpace("s", [Choice(f"c{i}", (0, 1)) for i in range(30)])
    latency = Metric("latency_ms", "cpu")

    def rows(confidence):
        problem = Problem(
            space,
            [Goal(latency)],
            [Constraint(latency, 10.0, confidence=confidence)],
            {"latency_ms[cpu]": Supplied(lambda g: (g.sum(axis=1), np.ones(len(g))))},
        )
        return find_feasible(problem, 100, np.random.default_rng(0)).sum(axis=1)

    assert rows(None).max() == 10
    assert rows(0.95).max() == 8


def test_neighbours_differ_in_one_choice_each():
    problem, target = needle(0, n=5)
    around = neighbours(problem.space, target)
    assert len(around) == 15
    assert ((around != target).sum(axis=1) == 1).all()
