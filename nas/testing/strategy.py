"""What every strategy must do, whatever it searches with."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import pytest

from nas.fronts.metrics import Goal, Metric
from nas.strategies import Exact, Problem, Strategy
from nas.testing.problem import Evaluator, make_problem
from search_spaces.errors import InfeasibleError
from search_spaces.space import Arch


def rounds_of(strategy: Strategy, evaluate: Evaluator, rounds: int, n: int) -> list[list[Arch]]:
    """Ask ``n`` architectures and tell them, ``rounds`` times; return what was asked."""
    asked = []
    for _ in range(rounds):
        archs = list(strategy.ask(n))
        asked.append(archs)
        strategy.tell(archs, *evaluate(archs))
    return asked


class StrategyContract:
    """The promises of :class:`~nas.strategies.Strategy`.

    A subclass gives the fixture ``strategy_class`` and, where the defaults of its strategy are too
    large for a space of some thousand architectures, ``options``.
    """

    SPACE: ClassVar[dict[str, Any]] = {"stages": 2, "depth": 3}
    """Size of the space; a strategy for small spaces names a smaller one."""

    @pytest.fixture
    def strategy_class(self) -> type[Strategy]:
        """The class under test."""
        raise NotImplementedError("give the suite a fixture 'strategy_class'")

    @pytest.fixture
    def options(self) -> dict[str, Any]:
        """Options for a small search."""
        return {}

    @pytest.fixture
    def exhausting(self, options: dict[str, Any]) -> dict[str, Any]:
        """Options for asking until nothing is left."""
        return options

    @pytest.fixture
    def size(self) -> dict[str, Any]:
        """Stages and depth of the space."""
        return self.SPACE

    def test_asks_are_valid_canonical_new_and_within_the_exact_bounds(
        self, strategy_class: type[Strategy], options: dict[str, Any], size: dict[str, Any]
    ) -> None:
        """As many are asked as are wanted, none of them twice."""
        budget = 9.0 if size["stages"] == 1 else 14.0
        problem, evaluate = make_problem(**size, budget=budget)
        archs = [
            a
            for batch in rounds_of(strategy_class(problem, seed=0, **options), evaluate, 6, 6)
            for a in batch
        ]
        # Six times six: no child is dropped where the region is large enough.
        assert len(archs) == 36
        assert len(set(archs)) == 36
        for arch in archs:
            assert problem.space.parse(str(arch)) == arch
        assert (evaluate(archs)[1] <= 0).all()

    def test_same_seed_and_same_tells_give_the_same_asks(
        self, strategy_class: type[Strategy], options: dict[str, Any], size: dict[str, Any]
    ) -> None:
        """Another seed asks others."""
        runs = []
        for seed in (3, 3, 4):
            problem, evaluate = make_problem(**size, budget=12.0)
            runs.append(rounds_of(strategy_class(problem, seed=seed, **options), evaluate, 4, 6))
        assert runs[0] == runs[1]
        assert runs[0] != runs[2]

    def test_told_architectures_are_never_asked(
        self, strategy_class: type[Strategy], exhausting: dict[str, Any]
    ) -> None:
        """What an interrupted run evaluated is told first; then the rest is asked, once."""
        problem, evaluate = make_problem(stages=1, depth=2)
        everything = problem.space.cardinality()
        strategy = strategy_class(problem, seed=0, **exhausting)
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

    def test_infeasible_bounds_end_with_the_closest_architecture(
        self, strategy_class: type[Strategy], options: dict[str, Any], size: dict[str, Any]
    ) -> None:
        """The error names the architecture that misses by least, and by how much."""
        problem, _ = make_problem(**size, budget=1.0)
        with pytest.raises(
            InfeasibleError, match="infeasible: the closest architecture found needs"
        ):
            strategy_class(problem, seed=0, **options).ask(4)
        try:
            strategy_class(problem, seed=0, **options).ask(4)
        except InfeasibleError as error:
            smallest = problem.space.smallest()
            assert error.closest == str(smallest)
            value, bound = error.violations["weights_kib max"]
            assert bound == 1.0
            assert value > bound

    def test_failed_evaluations_are_not_asked_again(
        self, strategy_class: type[Strategy], options: dict[str, Any], size: dict[str, Any]
    ) -> None:
        """NaN among the objectives is a failure, which is no training example."""
        problem, evaluate = make_problem(**size)
        strategy = strategy_class(problem, seed=0, **options)
        archs = strategy.ask(10)
        objectives, constraints = evaluate(archs)
        objectives[0] = np.nan
        strategy.tell(archs, objectives, constraints)
        assert len(strategy.told[0]) == 9
        later = [a for batch in rounds_of(strategy, evaluate, 3, 6) for a in batch]
        assert archs[0] not in later

    def test_one_and_three_objectives(
        self, strategy_class: type[Strategy], options: dict[str, Any], size: dict[str, Any]
    ) -> None:
        """A strategy takes any number of goals."""
        problem, evaluate = make_problem(**size, goals=(Metric("accuracy"),), budget=14.0)
        assert len(rounds_of(strategy_class(problem, seed=0, **options), evaluate, 3, 6)[-1]) == 6
        base, _ = make_problem(**size)
        three = Problem(
            base.space,
            [*base.goals, Goal(Metric("macs"))],
            surrogates={**base.surrogates, "macs": Exact(lambda g: g.sum(axis=1).astype(float))},
        )
        strategy = strategy_class(three, seed=0, **options)
        for _ in range(3):
            archs = strategy.ask(6)
            genes = base.space.genes(archs)
            objectives = np.column_stack([np.sin(genes.sum(1)), -genes[:, 0], genes.sum(1)])
            strategy.tell(archs, objectives, np.empty((len(archs), 0)))
            assert len(archs) == 6
