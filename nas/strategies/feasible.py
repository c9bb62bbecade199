"""Finding architectures that satisfy constraints known in advance, however few there are.

Rejection alone never meets a region that holds one architecture in 10^9; evolution on the
total violation walks there. Every loop is bounded, and failure names the closest one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from nas.strategies.genes import (
    GeneSet,
    crossover,
    enumerate_genes,
    mutate,
    sample_spread,
    unique_rows,
)
from nas.strategies.nsga2 import total_violation
from nas.strategies.problem import Problem
from search_spaces.space import SearchSpace

ENUMERABLE = 20_000
"""Spaces up to this size are enumerated rather than sampled."""


def find_feasible(
    problem: Problem,
    n: int,
    rng: np.random.Generator,
    *,
    which: Sequence[int] | None = None,
    exclude: GeneSet | None = None,
    seeds: np.ndarray | None = None,
    population: int = 200,
    generations: int = 200,
    patience: int = 40,
) -> np.ndarray:
    """Return up to ``n`` distinct rows that satisfy the constraints: (k, choices).

    Args:
        problem: its surrogates judge the constraints.
        n: rows wanted.
        rng: of every draw.
        which: indices of the constraints to satisfy; by default those whose surrogate is
            exact or supplied.
        exclude: rows that must not come back.
        seeds: rows to start from besides sampled ones.
        population, generations: of the evolution that follows when sampling does not suffice.
        patience: generations without progress after which it gives up.

    Returns fewer rows, possibly none, when all feasible ones found are excluded.

    Raises:
        InfeasibleError: not one feasible row was met.
    """
    space = problem.space
    which = problem.screened() if which is None else tuple(which)
    exclude = GeneSet() if exclude is None else exclude
    if space.cardinality() <= ENUMERABLE:
        rows = rng.permutation(enumerate_genes(space))
    else:
        rows = np.vstack(
            [
                space.sample_genes(rng, max(2 * n, population // 2)),
                sample_spread(space, rng, max(2 * n, population)),
                space.genes([space.smallest(), space.largest()]),
                *([] if seeds is None or not len(seeds) else [seeds]),
            ]
        )
        rows = rows[unique_rows(rows)]
    search = _Search(problem, which, exclude, n)
    miss = search.judge(rows)
    if space.cardinality() > ENUMERABLE:
        search.evolve(rows, miss, rng, population, generations, patience)
    if search.feasible_met:
        return search.found()
    raise problem.infeasible(search.closest, which)


def breed_feasible(
    problem: Problem,
    n: int,
    rng: np.random.Generator,
    breed: Callable[[int], np.ndarray],
    *,
    parents: np.ndarray,
    which: Sequence[int],
    exclude: GeneSet,
    retries: int,
) -> np.ndarray:
    """Return up to ``n`` distinct new rows that satisfy the constraints: (k, choices).

    Children that repeat an architecture or miss a bound are bred again, a bounded number of
    times; then sampled ones fill up.

    Args:
        problem, rng, which, exclude: as in :func:`find_feasible`.
        n: rows wanted.
        breed: number of children -> canonical rows.
        parents: rows that the filling starts from.
        retries: rounds of children.

    Raises:
        InfeasibleError: as :func:`find_feasible`.
    """
    rows = np.empty((0, parents.shape[1]), dtype=np.int64)
    for _ in range(retries):
        if len(rows) >= n:
            break
        children = breed(2 * n)
        if which:
            children = children[(problem.screen(children, which) <= 0).all(axis=1)]
        rows = np.vstack([rows, children[~exclude.contains(children)]])
        rows = rows[unique_rows(rows)]
    if len(rows) < n:
        spare = find_feasible(problem, n, rng, which=which, exclude=exclude, seeds=parents)
        rows = np.vstack([rows, spare])
        rows = rows[unique_rows(rows)]
    return rows[:n]


def neighbours(space: SearchSpace, row: np.ndarray) -> np.ndarray:
    """Return every row that differs from ``row`` (choices,) in one active choice."""
    active = space.active(row[None])[0]
    out = []
    for j in np.flatnonzero(active & (space.option_counts > 1)):
        for option in range(int(space.option_counts[j])):
            if option != row[j]:
                changed = row.copy()
                changed[j] = option
                out.append(changed)
    if not out:
        return np.empty((0, len(row)), dtype=np.int64)
    return space.canonical(np.array(out))


class _Search:
    """Collects feasible rows and remembers the closest infeasible one."""

    def __init__(self, problem: Problem, which: tuple[int, ...], exclude: GeneSet, n: int) -> None:
        self.problem, self.which, self.n = problem, which, n
        self.exclude = exclude
        self.feasible_met = False
        self.closest: np.ndarray = np.empty(0)
        self.least = np.inf
        self._rows: list[np.ndarray] = []
        self._collected = GeneSet()

    def judge(self, rows: np.ndarray) -> np.ndarray:
        """Return total violations (n,) and collect what is feasible and new."""
        miss = total_violation(self.problem.screen(rows, self.which))
        best = int(miss.argmin())
        if miss[best] < self.least or not self.closest.size:
            self.least, self.closest = float(miss[best]), rows[best]
        good = rows[miss <= 0]
        self.feasible_met |= len(good) > 0
        new = good[~self.exclude.contains(good) & ~self._collected.contains(good)]
        new = new[unique_rows(new)]
        if len(new):
            self._collected.add(new)
            self._rows.append(new)
        return miss

    def evolve(
        self,
        rows: np.ndarray,
        miss: np.ndarray,
        rng: np.random.Generator,
        population: int,
        generations: int,
        patience: int,
    ) -> None:
        """Go on from rows until enough is collected, or nothing new is found for a while.

        Args:
            rows: genes to begin with, (rows, choices).
            miss: their total violations, (rows,).
            rng: draws parents and mutations.
            population: rows that are kept, and children, a generation.
            generations: at the most.
            patience: generations without a new feasible or closer row, at the most.
        """
        space = self.problem.space
        idle = 0
        for generation in range(generations):
            if len(self._collected) >= self.n or idle >= patience:
                return
            progress = (len(self._collected), self.least)
            # Ties (all feasible rows) are broken at random, so that the search drifts
            # through the feasible region instead of sitting on its first rows.
            kept = np.lexsort((rng.random(len(rows)), miss))[:population]
            rows, miss = rows[kept], miss[kept]
            parents = rng.integers(0, len(rows), size=(2, 2, population)).min(axis=1)
            children = crossover(space, rows[parents[0]], rows[parents[1]], rng)
            # A tenth keeps its parents' genes apart from one; the rest change more and more.
            rate = rng.choice([0.0, 0.02, 0.1, 0.3], size=population)
            children = mutate(space, children, rng, rate=rate)
            if generation % 10 == 0:
                children = np.vstack([children, neighbours(space, self.closest)])
            rows = np.vstack([rows, children])
            miss = np.concatenate([miss, self.judge(children)])
            first = unique_rows(rows)
            rows, miss = rows[first], miss[first]
            idle = 0 if progress != (len(self._collected), self.least) else idle + 1

    def found(self) -> np.ndarray:
        """Return the first n collected rows."""
        if not self._rows:
            return np.empty((0, len(self.problem.space.choices)), dtype=np.int64)
        return np.vstack(self._rows)[: self.n]
