"""Regularised (ageing) evolution: the oldest die, the best of a small sample breeds."""

from __future__ import annotations

import numpy as np

from nas.strategies import nsga2
from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.feasible import breed_feasible, find_feasible
from nas.strategies.genes import mutate
from nas.strategies.problem import Problem
from search_spaces.errors import InputError


@STRATEGIES.register("regularised_evolution")
class RegularisedEvolutionStrategy(Strategy):
    """Ageing evolution (Real et al. 2019, "Regularized Evolution for Image Classifier
    Architecture Search"), with constraints; meant for jobs with one objective.

    The population is the last ``population`` evaluations, whatever they are worth, so that
    nothing survives on one lucky evaluation. A parent wins a tournament of ``sample`` of
    them by constrained domination (with one objective: feasible before infeasible, then the
    better value; with more, by rank and crowding) and has one mutated child.

    Args:
        problem, seed: as in :class:`Strategy`.
        population: evaluations that may be parents; also the number sampled at the start.
        sample: size of a tournament.
        mutation_rate: per active choice; one choice on average by default.
        retries: rounds of children per ask, before sampled ones fill up.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        population: int = 50,
        sample: int = 10,
        mutation_rate: float | None = None,
        retries: int = 20,
    ) -> None:
        super().__init__(problem, seed=seed)
        if population < 2 or not 1 <= sample <= population:
            raise InputError(
                f"population {population} (at least 2) and sample {sample} (1 to population) "
                "do not make an evolution"
            )
        self.population = population
        self.sample = sample
        self.mutation_rate = mutation_rate
        self.retries = retries

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        genes, objectives, constraints = self.told
        which = self.problem.screened()
        if len(genes) < min(self.population, self.problem.space.cardinality() // 2):
            return find_feasible(self.problem, n, rng, which=which, exclude=self._seen)
        genes = genes[-self.population :]
        objectives, constraints = objectives[-self.population :], constraints[-self.population :]
        best_first, _, _ = nsga2.survive(objectives, constraints, len(genes))
        place = np.empty(len(genes), dtype=np.int64)
        place[best_first] = np.arange(len(genes))

        def breed(count: int) -> np.ndarray:
            drawn = rng.integers(0, len(genes), size=(count, self.sample))
            winners = drawn[np.arange(count), place[drawn].argmin(axis=1)]
            return mutate(self.problem.space, genes[winners], rng, rate=self.mutation_rate)

        return breed_feasible(
            self.problem,
            n,
            rng,
            breed,
            parents=genes,
            which=which,
            exclude=self._seen,
            retries=self.retries,
        )
