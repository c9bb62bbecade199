import itertools

import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import Exact, PredictorStrategy, Problem, Supplied
from nas.strategies.genes import GeneSet
from nas.strategies.polish import polish
from search_spaces.space import Choice, Condition, SearchSpace

ACCURACY, SIZE = Metric("accuracy"), Metric("weights_kib")
BITS = (2, 3, 4, 8)


def bit_problem(layers=5, *, limit=None, seed=0):
    """Depth decides how many layers there are; accuracy and size add up over layers' bits."""
    rng = np.random.default_rng(seed)
    choices = [Choice("depth", (layers - 1, layers))]
    for k in range(layers):
        when = (Condition("depth", frozenset({layers})),) if k == layers - 1 else ()
        choices.append(Choice(f"b{k}.w.conv", BITS, when))
        choices.append(Choice(f"b{k}.kernel", (3, 5), when))
    space = SearchSpace("bits", choices)
    gain, size = rng.uniform(0.5, 2, layers), rng.uniform(1, 9, layers)

    def totals(genes):
        active = space.active(genes)
        bits = np.array(BITS)[genes[:, 1::2]]
        on = active[:, 1::2]
        return (
            (on * gain * (1 - 2.0**-bits)).sum(axis=1) + 0.01 * genes[:, 2::2].sum(axis=1),
            (on * size * bits).sum(axis=1),
        )

    constraints = [] if limit is None else [Constraint(SIZE, limit)]
    problem = Problem(
        space,
        [Goal(ACCURACY), Goal(SIZE)],
        constraints,
        {
            "accuracy": Supplied(lambda g: (totals(g)[0], np.full(len(g), 0.01))),
            "weights_kib": Exact(lambda g: totals(g)[1]),
        },
    )
    return problem, totals


def test_a_polished_candidate_is_the_best_of_its_size_by_brute_force():
    problem, totals = bit_problem(4)
    rows = problem.space.sample_genes(np.random.default_rng(1), 8)
    rows[:, 0] = 1
    rows = problem.space.canonical(rows)
    for row in rows:
        every = np.repeat(row[None], len(BITS) ** 4, axis=0)
        every[:, 1::2] = list(itertools.product(range(len(BITS)), repeat=4))
        accuracy, size = totals(every)
        (own_accuracy,), (own_size,) = totals(row[None])
        best = accuracy[size <= own_size + 1e-9].max()
        (found,) = polish(problem, row[None]) if best > own_accuracy + 1e-12 else (row,)
        (reached,), (needed,) = totals(found[None])
        assert reached == pytest.approx(best, abs=1e-12)
        assert needed <= own_size * (1 + 1e-9)
        # Structure stays as it is.
        assert (found[2::2] == row[2::2]).all() and found[0] == row[0]


def test_constraints_are_kept_and_nothing_to_change_changes_nothing():
    problem, totals = bit_problem(5, limit=60.0)
    rows = problem.space.sample_genes(np.random.default_rng(2), 50)
    better = polish(problem, rows)
    assert len(better)
    assert not GeneSet(rows).contains(better).all()
    inside = totals(rows)[1].max()
    assert totals(better)[1].max() <= max(inside, 60.0) + 1e-6
    assert len(polish(problem, rows, choices="no such choice")) == 0
    assert len(polish(problem, rows[:0])) == 0


def test_the_default_strategy_proposes_polished_candidates():
    """With hardly any evolution, only the integer programme can come near the front."""
    problem, totals = bit_problem(9)

    def volume(candidates):
        options = {"initial": 4, "population": 8, "generations": 1, "explore": 0.0}
        strategy = PredictorStrategy(problem, polish=candidates, **options)
        for _ in range(4):
            archs = strategy.ask(8)
            accuracy, size = totals(problem.space.genes(archs))
            strategy.tell(archs, np.column_stack([-accuracy, size]))
        _, objectives, _ = strategy.told
        from nas.fronts.pareto import hypervolume

        return hypervolume(objectives, (0.0, 400.0))

    assert volume(8) > volume(0)
