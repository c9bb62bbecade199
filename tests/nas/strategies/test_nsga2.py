import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.strategies import nsga2


def points(seed, n=40, m=2):
    rng = np.random.default_rng(seed)
    return rng.integers(0, 12, size=(n, m)).astype(float)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 3))
def test_ranks_are_those_of_pymoo(seed, m):
    from pymoo.util.nds.non_dominated_sorting import NonDominatedSorting

    objectives = points(seed, m=m)
    expected = np.empty(len(objectives), dtype=int)
    for number, front in enumerate(NonDominatedSorting().do(objectives)):
        expected[front] = number
    assert (nsga2.rank(objectives, np.empty((len(objectives), 0))) == expected).all()


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_crowding_is_that_of_pymoo_up_to_its_division_by_objectives(seed):
    from pymoo.operators.survival.rank_and_crowding.metrics import calc_crowding_distance

    rng = np.random.default_rng(seed)
    x = np.sort(rng.random(20))
    front = np.column_stack([x, np.sort(rng.random(20))[::-1]])
    mine = nsga2.crowding(front, np.zeros(20, dtype=int))
    theirs = calc_crowding_distance(front)
    assert np.allclose(mine[np.isfinite(mine)], theirs[np.isfinite(theirs)] * 2)
    assert (np.isfinite(mine) == np.isfinite(theirs)).all()


def test_crowding_of_several_fronts_is_worked_out_apart():
    first = np.array([[0.0, 4.0], [1.0, 1.0], [4.0, 0.0]])
    both = np.vstack([first, first + 10])
    ranks = np.array([0, 0, 0, 1, 1, 1])
    distances = nsga2.crowding(both, ranks)
    assert (distances[:3] == distances[3:]).all()


def test_constrained_domination():
    objectives = np.array([[5.0, 5.0], [0.0, 0.0], [1.0, 1.0], [6.0, 6.0]])
    constraints = np.array([[-1.0], [0.5], [0.1], [0.0]])
    assert nsga2.rank(objectives, constraints).tolist() == [0, 3, 2, 1]
    assert nsga2.survive(objectives, constraints, 2)[0].tolist() == [0, 3]


def test_an_undefined_violation_is_the_worst():
    ranks = nsga2.rank(np.zeros((3, 2)), np.array([[np.nan], [9.0], [-1.0]]))
    assert ranks.tolist() == [2, 1, 0]


def test_tournament_prefers_rank_then_distance():
    rng = np.random.default_rng(0)
    winners = nsga2.tournament(np.array([0, 0, 1]), np.array([1.0, 2.0, 9.0]), 3000, rng)
    share = np.bincount(winners, minlength=3) / 3000
    assert share[1] > share[0] > share[2]
