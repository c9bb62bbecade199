import numpy as np
import pytest

pytest.importorskip("optuna")

from nas.strategies import STRATEGIES


@pytest.mark.parametrize("name", ["optuna_tpe", "optuna_nsga2", "optuna_nsga3"])
def test_the_sampler_is_told_by_how_much_its_proposals_miss_the_bounds(build, name):
    problem, evaluate = build(stages=2, depth=3, budget=10.0)
    strategy = STRATEGIES.get(name)(problem)
    asked = []
    for _ in range(3):
        archs = strategy.ask(6)
        strategy.tell(archs, *evaluate(archs))
        asked += archs
    (bound,), space = problem.constraints, problem.space
    missed = []
    for trial in strategy._study.get_trials(deepcopy=False):
        if trial.values is None:
            continue
        row = [c.options.index(trial.params.get(c.name, c.options[0])) for c in space.choices]
        row = space.canonical(np.array([row]))
        told = trial.constraints[bound.name]
        assert told == pytest.approx(float(problem.screen(row, [0])[0, 0]))
        missed.append(told > 0)
    assert sum(not m for m in missed) >= len(asked)
    assert any(missed)
