import itertools

import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import Exact, Problem
from nas.strategies.exchange import exchange
from nas.strategies.genes import enumerate_genes
from nas.strategies.inner import evolve
from search_spaces.space import Choice, SearchSpace

ACCURACY, SIZE = Metric("accuracy"), Metric("weights_kib")


def knapsack(layers, share, *, seed=0, joint=0.0, goals=(ACCURACY,)):
    """A multiple-choice knapsack whose gains add up, apart from ``joint``."""
    rng = np.random.default_rng(seed)
    space = SearchSpace("knapsack", [Choice(f"{k}.bits", (2, 3, 4, 8)) for k in range(layers)])
    gain = np.sort(rng.lognormal(0, 1.5, (layers, 4)), axis=1)
    cost = np.sort(rng.lognormal(0, 1.5, (layers, 4)), axis=1)
    layer = np.arange(layers)

    def accuracy(genes):
        total = gain[layer, genes].sum(axis=1)
        return total + joint * np.sqrt(total)

    problem = Problem(
        space,
        [Goal(m) for m in goals],
        [Constraint(SIZE, share * cost[:, -1].sum())],
        {"accuracy": Exact(accuracy), "weights_kib": Exact(lambda g: cost[layer, g].sum(axis=1))},
    )
    return problem


def best_of(problem):
    judged = problem.judge(enumerate_genes(problem.space))
    return judged.objectives[(judged.constraints <= 0).all(axis=1), 0].min()


def start(problem, row):
    return problem.judge(np.asarray(row)[None])


@pytest.mark.parametrize("joint", [0.0, 1.0])
def test_no_exchange_of_three_choices_is_left(joint):
    problem = knapsack(6, 0.5, joint=joint)
    rng = np.random.default_rng(0)
    found = exchange(problem.space, problem.judge, start(problem, [0] * 6), rng, verify=64).best
    row = found.genes[0]
    assert (found.constraints <= 0).all()
    for some in itertools.combinations(range(6), 3):
        rows = np.repeat(row[None], 64, axis=0)
        rows[:, some] = list(itertools.product(range(4), repeat=3))
        judged = problem.judge(rows)
        within = (judged.constraints <= 0).all(axis=1)
        assert judged.objectives[within, 0].min() >= found.objectives[0, 0] - 1e-9


def test_pairs_go_on_where_single_changes_end():
    single, several = [], []
    for seed in range(8):
        problem = knapsack(8, 0.5, seed=seed)
        for depth, values in ((1, single), (3, several)):
            rng = np.random.default_rng(0)
            at = start(problem, [0] * 8)
            found = exchange(problem.space, problem.judge, at, rng, depth=depth).best
            assert (found.constraints <= 0).all()
            values.append(found.objectives[0, 0] / best_of(problem))
    assert min(several) >= 0.9
    assert np.mean(several) > np.mean(single)


def test_an_infeasible_start_is_brought_within_the_bounds():
    problem = knapsack(10, 0.4)
    rng = np.random.default_rng(0)
    at = start(problem, [3] * 10)
    assert (at.constraints > 0).any()
    assert (exchange(problem.space, problem.judge, at, rng).best.constraints <= 0).all()
    # Where nothing is feasible it comes as near as it can and ends.
    hopeless = knapsack(10, 0.0)
    at = start(hopeless, [3] * 10)
    found = exchange(hopeless.space, hopeless.judge, at, rng).best
    assert (found.genes == 0).all()


def test_other_objectives_do_not_get_worse():
    problem = knapsack(8, 1.0, goals=(ACCURACY, SIZE))
    for row in problem.space.sample_genes(np.random.default_rng(1), 10):
        at = start(problem, row)
        found = exchange(problem.space, problem.judge, at, np.random.default_rng(0)).best
        assert found.objectives[0, 0] <= at.objectives[0, 0]
        assert found.objectives[0, 1] <= at.objectives[0, 1] * (1 + 1e-8)


def test_evolution_with_exchanges_finds_the_proven_optimum():
    """Few candidates, tight budgets: mutation alone ends above the optimum on most of them."""
    pytest.importorskip("moocore")
    plain, memetic = [], []
    for seed in range(4):
        problem = knapsack(8, 0.3, seed=seed)
        optimum = best_of(problem)
        for exchanges, values in ((0, plain), (4, memetic)):
            rng = np.random.default_rng(0)
            rows = problem.space.sample_genes(rng, 40)
            first = problem.judge(np.unique(rows, axis=0))
            last, _ = evolve(
                problem.space,
                problem.judge,
                first,
                rng,
                population=40,
                generations=20,
                exchanges=exchanges,
            )
            within = (last.constraints <= 0).all(axis=1)
            best = last.objectives[within, 0].min() if within.any() else 0.0
            values.append(best / optimum)
    assert min(memetic) >= 0.995
    assert np.mean(memetic) >= np.mean(plain)
