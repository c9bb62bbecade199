"""NSGA-II on surrogates: the inner loop, where a candidate costs microseconds.

Everything is done on whole gene matrices; nothing here evaluates an architecture. Mutation and
crossover spread over the space; what a tight budget allows is settled by exchanges of a few
choices at once (:mod:`nas.strategies.exchange`), so that the whole is a memetic algorithm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from nas.strategies import nsga2
from nas.strategies.exchange import exchange
from nas.strategies.genes import GeneSet, crossover, mutate, sample_spread, unique_rows
from nas.strategies.problem import Judged, join
from search_spaces.space import SearchSpace

Judge = Callable[[np.ndarray], Judged]
"""Gene rows (n, choices) -> what the surrogates say of them."""

CROSSOVER_SHARE = 0.9
MUTATION_RATES = (0.0, 0.02, 0.1)
"""One is drawn for each child, by active choice; at least one choice always changes. A tenth of
the genes for some, a single one for most: both small steps along the front and jumps out of it."""

EXCHANGE_EVERY = 10
"""Generations between two rounds of exchanges."""
STRANGER_RATE = 0.3
"""Mutation rate of the copies from which exchanges look for other optima."""


def evolve(
    space: SearchSpace,
    judge: Judge,
    start: Judged,
    rng: np.random.Generator,
    *,
    population: int,
    generations: int,
    exchanges: int = 0,
) -> tuple[Judged, np.ndarray]:
    """Return the last population, best first, and the front number of each member.

    Args:
        space: of the rows.
        judge: the surrogates.
        start: distinct canonical rows to start from, judged; any number of them.
        rng: of every draw.
        population: size after each generation.
        generations: number of them; each judges at most ``population`` new candidates.
        exchanges: candidates bettered by exchanges after every tenth generation and after the
            last one, in which some hundreds of candidates are judged for each.
    """
    kept, ranks, distances = nsga2.survive(start.objectives, start.constraints, population)
    current = start.take(kept)
    done = GeneSet()
    for generation in range(1, generations + 1):
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
        if exchanges and (generation % EXCHANGE_EVERY == 0 or generation == generations):
            better = _exchanged(space, judge, current, rng, done, exchanges)
            current = join([current, *better])
            current = current.take(unique_rows(current.genes))
        kept, ranks, distances = nsga2.survive(current.objectives, current.constraints, population)
        current = current.take(kept)
    return current, ranks


def _exchanged(
    space: SearchSpace,
    judge: Judge,
    current: Judged,
    rng: np.random.Generator,
    done: GeneSet,
    count: int,
) -> list[Judged]:
    """Return what exchanges found from ``count`` candidates, and remember them in ``done``.

    Half of them are the best that were not tried yet. With one objective the others are far
    from them, samples of the space and mutants in turn: a population of one objective gathers
    around one optimum, and exchanges from there end where they began. With several the front
    itself is spread, and all of them are from there.
    """
    goals = current.objectives.shape[1]
    ranks = nsga2.rank(current.objectives, current.constraints)
    fresh = np.flatnonzero(~done.contains(current.genes))
    fresh = fresh[np.lexsort((rng.random(len(fresh)), ranks[fresh]))]
    if goals == 1:
        own = fresh[: (count + 1) // 2]
        strangers = np.vstack(
            [
                sample_spread(space, rng, count),
                mutate(
                    space,
                    current.genes[rng.integers(0, len(current.genes), count)],
                    rng,
                    rate=STRANGER_RATE,
                ),
            ]
        )
        strangers = strangers[rng.permutation(len(strangers))[: count - len(own)]]
        starts = [current.take(own), judge(strangers)] if len(strangers) else [current.take(own)]
    else:
        starts = [current.take(fresh[ranks[fresh] == 0][:count])]
    found: list[Judged] = []
    for start in starts:
        for i in range(len(start.genes)):
            one = start.take(np.array([i]))
            done.add(one.genes)
            better = exchange(space, judge, one, rng, goal=int(rng.integers(goals))).best
            done.add(better.genes)
            found.append(better)
    return found
