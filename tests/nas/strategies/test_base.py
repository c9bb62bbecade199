"""What every registered strategy promises."""

import numpy as np
import pytest

from nas.strategies import STRATEGIES
from search_spaces.errors import InfeasibleError, InputError

OPTIONS = {
    "predictor": {"initial": 8, "population": 40, "generations": 8},
    "evolution": {"population": 12},
    "regularised_evolution": {"population": 12, "sample": 4},
    "optuna_nsga2": {"population_size": 12},
    "optuna_nsga3": {"population_size": 12},
    "optuna_gp": {"n_startup_trials": 34},
}
# To exhaust a space takes hundreds of trials, and a Gaussian process on them minutes: its random
# start asks and tells in the same way.
EXHAUSTING = {"optuna_gp": {"n_startup_trials": 10_000}}
SMALL = {"exhaustive"}
NAMES = STRATEGIES.names()


def start(name, problem, seed=0, **options):
    return STRATEGIES.get(name)(problem, seed=seed, **{**OPTIONS.get(name, {}), **options})


def sizes(name):
    return {"stages": 1, "depth": 2} if name in SMALL else {"stages": 2, "depth": 3}


def run(strategy, evaluate, rounds=6, n=6):
    asked = []
    for _ in range(rounds):
        archs = strategy.ask(n)
        asked.append(archs)
        strategy.tell(archs, *evaluate(archs))
    return asked


@pytest.mark.parametrize("name", NAMES)
def test_asks_are_valid_canonical_new_and_within_the_exact_bounds(name, build):
    budget = 9.0 if name in SMALL else 14.0
    problem, evaluate = build(**sizes(name), budget=budget)
    archs = [a for batch in run(start(name, problem), evaluate) for a in batch]
    # Six times six: no child is dropped where the region is large enough.
    assert len(archs) == 36
    assert len(set(archs)) == 36
    for arch in archs:
        assert problem.space.parse(str(arch)) == arch
    assert (evaluate(archs)[1] <= 0).all()


@pytest.mark.parametrize("name", NAMES)
def test_same_seed_and_same_tells_give_the_same_asks(name, build):
    runs = []
    for seed in (3, 3, 4):
        problem, evaluate = build(**sizes(name), budget=12.0)
        runs.append(run(start(name, problem, seed), evaluate, rounds=4))
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


@pytest.mark.parametrize("name", NAMES)
def test_told_architectures_are_never_asked(name, build):
    problem, evaluate = build(stages=1, depth=2)
    everything = problem.space.cardinality()
    strategy = start(name, problem, **EXHAUSTING.get(name, {}))
    rng = np.random.default_rng(0)
    warm = problem.space.decode(problem.space.sample_genes(rng, 200))
    warm = list(dict.fromkeys(warm))
    strategy.tell(warm, *evaluate(warm))
    asked = []
    for _ in range(everything):
        archs = strategy.ask(16)
        if not archs:
            break
        asked += archs
        strategy.tell(archs, *evaluate(archs))
    # It ends, with every architecture evaluated exactly once.
    assert len(asked) == len(set(asked)) == everything - len(warm)
    assert not set(asked) & set(warm)


@pytest.mark.parametrize("name", NAMES)
def test_infeasible_bounds_end_with_the_closest_architecture(name, build):
    problem, _ = build(**sizes(name), budget=1.0)
    with pytest.raises(InfeasibleError, match="infeasible: the closest architecture found needs"):
        start(name, problem).ask(4)
    try:
        start(name, problem).ask(4)
    except InfeasibleError as error:
        smallest = problem.space.smallest()
        assert error.closest == str(smallest)
        value, bound = error.violations["weights_kib max"]
        assert bound == 1.0
        assert value > bound


@pytest.mark.parametrize("name", NAMES)
def test_failed_evaluations_are_not_asked_again(name, build):
    problem, evaluate = build(**sizes(name))
    strategy = start(name, problem)
    archs = strategy.ask(10)
    objectives, constraints = evaluate(archs)
    objectives[0] = np.nan
    strategy.tell(archs, objectives, constraints)
    assert len(strategy.told[0]) == 9
    later = [a for batch in run(strategy, evaluate, rounds=3) for a in batch]
    assert archs[0] not in later


@pytest.mark.parametrize("name", NAMES)
def test_one_and_three_objectives(name, build):
    from nas.fronts.metrics import Goal, Metric
    from nas.strategies import Exact, Problem

    problem, evaluate = build(**sizes(name), goals=(Metric("accuracy"),), budget=14.0)
    assert len(run(start(name, problem), evaluate, rounds=3)[-1]) == 6
    base, _ = build(**sizes(name))
    three = Problem(
        base.space,
        [*base.goals, Goal(Metric("macs"))],
        surrogates={**base.surrogates, "macs": Exact(lambda g: g.sum(axis=1).astype(float))},
    )
    strategy = start(name, three)
    for _ in range(3):
        archs = strategy.ask(6)
        genes = base.space.genes(archs)
        objectives = np.column_stack([np.sin(genes.sum(1)), -genes[:, 0], genes.sum(1)])
        strategy.tell(archs, objectives, np.empty((len(archs), 0)))
        assert len(archs) == 6


def test_tell_refuses_shapes_of_another_problem(build):
    problem, evaluate = build(budget=20.0)
    strategy = start("random", problem)
    archs = strategy.ask(3)
    objectives, constraints = evaluate(archs)
    with pytest.raises(InputError, match=r"need \(3, 2\)"):
        strategy.tell(archs, objectives[:, :1], constraints)
    with pytest.raises(InputError, match=r"need \(3, 1\)"):
        strategy.tell(archs, objectives)
    with pytest.raises(InputError, match="at least one"):
        strategy.ask(0)


def test_telling_again_replaces(build):
    problem, evaluate = build()
    strategy = start("random", problem)
    archs = strategy.ask(3)
    strategy.tell(archs, *evaluate(archs))
    strategy.tell(archs[:1], np.array([[-0.5, 1.0]]))
    genes, objectives, _ = strategy.told
    assert len(genes) == 3
    assert objectives[0].tolist() == [-0.5, 1.0]


def test_exhaustive_refuses_a_large_space(build):
    problem, _ = build(stages=3, depth=4)
    with pytest.raises(InputError, match="too many to try all"):
        start("exhaustive", problem).ask(1)
