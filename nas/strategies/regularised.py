"""Regularised (ageing) evolution: the oldest die, the best of a small sample breeds."""

from __future__ import annotations

import numpy as np

from nas.strategies import nsga2
from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.feasible import find_feasible
from nas.strategies.genes import mutate, unique_rows
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
        rows = np.empty((0, genes.shape[1]), dtype=np.int64)
        for _ in range(self.retries):
            if len(rows) >= n:
                break
            drawn = rng.integers(0, len(genes), size=(2 * n, self.sample))
            winners = drawn[np.arange(2 * n), place[drawn].argmin(axis=1)]
            children = mutate(self.problem.space, genes[winners], rng, rate=self.mutation_rate)
            if which:
                children = children[(self.problem.screen(children, which) <= 0).all(axis=1)]
            rows = np.vstack([rows, children[~self._seen.contains(children)]])
            rows = rows[unique_rows(rows)]
        if len(rows) < n:
            spare = find_feasible(
                self.problem, n, rng, which=which, exclude=self._seen, seeds=genes
            )
            rows = np.vstack([rows, spare])
            rows = rows[unique_rows(rows)]
        return rows[:n]
