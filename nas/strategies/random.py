"""Random search: the baseline that everything else has to beat."""

from __future__ import annotations

import numpy as np

from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.feasible import ENUMERABLE, find_feasible
from nas.strategies.genes import unique_rows
from search_spaces.errors import InputError


@STRATEGIES.register("random")
class RandomStrategy(Strategy):
    """Uniform choices, restricted to what satisfies the constraints known in advance.

    Where fewer than one sample in about a hundred does, evolution on the violation fills up
    (and the draw is no longer uniform over the feasible region).
    """

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        space = self.problem.space
        which = self.problem.screened()
        if space.cardinality() > ENUMERABLE:
            for size in (2 * n, 20 * n, 100 * n):
                rows = space.sample_genes(rng, size)
                rows = rows[unique_rows(rows)]
                rows = rows[~self._seen.contains(rows)]
                if which:
                    rows = rows[(self.problem.screen(rows, which) <= 0).all(axis=1)]
                if len(rows) >= n:
                    return rows[:n]
        return find_feasible(self.problem, n, rng, which=which, exclude=self._seen)


@STRATEGIES.register("exhaustive")
class ExhaustiveStrategy(Strategy):
    """Every architecture of a small space in random order; ends with an empty list."""

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        count = self.problem.space.cardinality()
        if count > ENUMERABLE:
            raise InputError(
                f"the space has {count} architectures, too many to try all (at most "
                f"{ENUMERABLE}); use the strategy 'predictor'"
            )
        return find_feasible(self.problem, n, rng, exclude=self._seen)
