"""NSGA-II on real evaluations, for conditional categorical choices."""

from __future__ import annotations

import numpy as np

from nas.strategies import nsga2
from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.feasible import breed_feasible, find_feasible
from nas.strategies.genes import crossover, mutate
from nas.strategies.problem import Problem
from search_spaces.errors import InputError


@STRATEGIES.register("evolution")
class EvolutionStrategy(Strategy):
    """NSGA-II (Deb et al. 2002), steady in the size of what it is asked for.

    The parents are the best ``population`` of everything told, by constrained domination
    and crowding. Children that repeat an architecture or miss a bound known in advance are
    drawn again, a bounded number of times; then sampled feasible ones fill up.

    With one objective this is the regularity-free evolution of Once-for-All (Cai et al.
    2020): the best of the population breed by crossover and mutation.

    Args:
        problem, seed: as in :class:`Strategy`.
        population: parents; also the number of sampled architectures at the start.
        crossover_share: children with two parents; the others are mutants of one.
        mutation_rate: per active choice; one choice on average by default.
        retries: rounds of children per ask.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        population: int = 40,
        crossover_share: float = 0.9,
        mutation_rate: float | None = None,
        retries: int = 20,
    ) -> None:
        super().__init__(problem, seed=seed)
        if population < 2:
            raise InputError(f"population {population}: evolution needs at least 2 parents")
        self.population = population
        self.crossover_share = crossover_share
        self.mutation_rate = mutation_rate
        self.retries = retries

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        genes, objectives, constraints = self.told
        which = self.problem.screened()
        if len(genes) < min(self.population, self.problem.space.cardinality() // 2):
            return find_feasible(self.problem, n, rng, which=which, exclude=self._seen)
        kept, ranks, distances = nsga2.survive(objectives, constraints, self.population)
        parents = genes[kept]
        return breed_feasible(
            self.problem,
            n,
            rng,
            lambda count: self._breed(parents, ranks, distances, count, rng),
            parents=parents,
            which=which,
            exclude=self._seen,
            retries=self.retries,
        )

    def _breed(
        self,
        parents: np.ndarray,
        ranks: np.ndarray,
        distances: np.ndarray,
        n: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        space = self.problem.space
        a = parents[nsga2.tournament(ranks, distances, n, rng)]
        b = parents[nsga2.tournament(ranks, distances, n, rng)]
        crossed = rng.random(n) < self.crossover_share
        children = np.where(crossed[:, None], crossover(space, a, b, rng), a)
        return mutate(space, children, rng, rate=self.mutation_rate)
