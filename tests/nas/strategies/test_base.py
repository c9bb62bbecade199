"""What every registered strategy promises."""

import numpy as np
import pytest

from nas.strategies import STRATEGIES
from nas.testing import StrategyContract
from search_spaces.errors import InputError

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
SLOW = {"optuna_tpe", "optuna_gp"}


def start(name, problem, seed=0, **options):
    return STRATEGIES.get(name)(problem, seed=seed, **{**OPTIONS.get(name, {}), **options})


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[pytest.mark.slow] if name in SLOW else []) for name in NAMES],
)
class TestEveryStrategy(StrategyContract):
    @pytest.fixture
    def strategy_class(self, name):
        return STRATEGIES.get(name)

    @pytest.fixture
    def options(self, name):
        return OPTIONS.get(name, {})

    @pytest.fixture
    def exhausting(self, name, options):
        return {**options, **EXHAUSTING.get(name, {})}

    @pytest.fixture
    def size(self, name):
        return {"stages": 1, "depth": 2} if name in SMALL else self.SPACE


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
