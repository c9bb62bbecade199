"""NSGA-II on surrogates: the inner loop, where a candidate costs microseconds.

Everything is done on whole gene matrices; nothing here evaluates an architecture.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.strategies import nsga2
from nas.strategies.genes import GeneSet, crossover, mutate, unique_rows
from nas.strategies.problem import Judged
from search_spaces.space import SearchSpace

Judge = Callable[[np.ndarray], Judged]
"""Gene rows (n, choices) -> what the surrogates say of them."""

CROSSOVER_SHARE = 0.9
MUTATION_RATES = (0.0, 0.02, 0.1)
"""One is drawn for each child, by active choice; at least one choice always changes. A tenth of
the genes for some, a single one for most: both small steps along the front and jumps out of it."""


def evolve(
    space: SearchSpace,
    judge: Judge,
    start: Judged,
    rng: np.random.Generator,
    *,
    population: int,
    generations: int,
) -> tuple[Judged, np.ndarray]:
    """Return the last population, best first, and the front number of each member.

    Args:
        space: of the rows.
        judge: the surrogates.
        start: distinct canonical rows to start from, judged; any number of them.
        rng: of every draw.
        population: size after each generation.
        generations: number of them; each judges at most ``population`` new candidates.
    """
    kept, ranks, distances = nsga2.survive(start.objectives, start.constraints, population)
    current = start.take(kept)
    for _ in range(generations):
        a = current.genes[nsga2.tournament(ranks, distances, population, rng)]
        b = current.genes[nsga2.tournament(ranks, distances, population, rng)]
        crossed = rng.random((population, 1)) < CROSSOVER_SHARE
        children = np.where(crossed, crossover(space, a, b, rng), a)
        rate = rng.choice(MUTATION_RATES, size=population)
        children = mutate(space, children, rng, rate=rate)
        children = children[~GeneSet(current.genes).contains(children)]
        children = children[unique_rows(children)]
        if len(children):
            current = join([current, judge(children)])
        kept, ranks, distances = nsga2.survive(current.objectives, current.constraints, population)
        current = current.take(kept)
    return current, ranks


def join(parts: list[Judged]) -> Judged:
    """Return the rows of all parts, in order."""
    return Judged(
        np.vstack([p.genes for p in parts]),
        np.vstack([p.objectives for p in parts]),
        np.vstack([p.std for p in parts]),
        np.vstack([p.constraints for p in parts]),
    )
