import numpy as np
import pytest

from nas.strategies import STRATEGIES, EvolutionStrategy, Problem, RandomStrategy
from search_spaces.errors import InputError


def last_batches(strategy, evaluate, rounds=12, n=20):
    violations, scores = [], []
    for _ in range(rounds):
        archs = strategy.ask(n)
        objectives, constraints = evaluate(archs)
        strategy.tell(archs, objectives, constraints)
        violations.append(constraints)
        scores.append(objectives)
    return np.vstack(violations[-3:]), np.vstack(scores[-3:])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("evolution", {}),
        ("regularised_evolution", {}),
        ("optuna_nsga2", {"population_size": 20}),
    ],
)
def test_a_bound_known_only_from_evaluations_is_applied(build, name, options):
    """No surrogate tells in advance; the violations that were told have to steer."""
    made, evaluate = build(stages=3, depth=4, budget=14.0)
    blind = Problem(made.space, made.goals, made.constraints)
    evolved, _ = last_batches(STRATEGIES.get(name)(blind, **options), evaluate)
    drawn, _ = last_batches(RandomStrategy(blind), evaluate)
    assert (evolved <= 0).mean() > 0.2 > 0.05 > (drawn <= 0).mean()


def test_one_objective_climbs(build):
    from nas.fronts.metrics import Metric

    problem, evaluate = build(stages=3, depth=4, budget=20.0, goals=(Metric("accuracy"),))
    _, evolved = last_batches(EvolutionStrategy(problem), evaluate)
    _, drawn = last_batches(RandomStrategy(problem), evaluate)
    assert evolved.min() < drawn.min()
    assert np.median(evolved) < np.median(drawn)


def test_a_full_batch_though_most_children_are_known_or_too_large(build, use_up):
    problem, evaluate = build(stages=2, depth=2, budget=7.0)
    use_up(EvolutionStrategy(problem, population=10, mutation_rate=0.0, retries=2), evaluate)


def test_a_population_of_one_is_refused(build):
    problem, _ = build()
    with pytest.raises(InputError, match="population 1"):
        EvolutionStrategy(problem, population=1)
