"""Search with predictors in the loop: few real evaluations, many predicted ones.

Rounds as in LINAS (Cummings et al. 2022, "A Hardware-Aware Framework for Accelerating
Neural Architecture Search Across Modalities", DyNAS-T): evaluate a batch, refit the
surrogates, search on them, take the next batch from the predicted front. What is added
here: candidates are judged optimistically in proportion to their uncertainty, the batch is
chosen for the hypervolume it adds together, and a share of it goes to where the surrogates
know least.
"""

from __future__ import annotations

import numpy as np

from nas.fronts.pareto import hypervolume, nondominated, reference_point
from nas.strategies import nsga2
from nas.strategies.base import STRATEGIES, Strategy
from nas.strategies.feasible import ENUMERABLE, find_feasible, neighbours
from nas.strategies.genes import enumerate_genes, sample_spread, unique_rows
from nas.strategies.inner import evolve
from nas.strategies.polish import polish
from nas.strategies.problem import Judged, Problem, join
from nas.strategies.surrogates import Refitted
from search_spaces.errors import InfeasibleError, InputError

_RANGES = 5
"""Into which the logarithms of costs are divided for the first evaluations."""

_LEAST = 1e-9
"""Of a cost; what is predicted to cost less counts as much."""


@STRATEGIES.register("predictor")
class PredictorStrategy(Strategy):
    """Predictor in the loop; needs a surrogate for every metric of the problem.

    Surrogates with a ``fit`` method are refitted from what was told; supplied ones may
    change between asks (their owner refits them). A proposed architecture satisfies every
    constraint by surrogate, as far as any candidate does; where only *learned* constraints
    cannot be met, the candidates that miss them by least are proposed, since the model may
    be wrong.

    Args:
        problem, seed: as in :class:`Strategy`.
        initial: evaluations before the first model is fitted, spread over the space.
        population, generations: of the NSGA-II on the surrogates; their product is the
            number of predicted candidates a round. A space with fewer architectures than
            that is enumerated instead.
        optimism: standard deviations by which a predicted objective is bettered.
        explore: share of a batch chosen for uncertainty alone.
        polish: candidates of the predicted front that get new bits by an integer programme
            (:mod:`nas.strategies.polish`) in each round; a space that is enumerated needs none.
        exchanges: candidates bettered by exchanges of a few choices at once
            (:mod:`nas.strategies.exchange`) in every tenth generation.
        log_costs: compare costs by their logarithms, in what is evaluated first and in the volume
            that a candidate adds: a front serves budgets of every size, and from 5 to 10 KiB is as
            far as from 50 to 100. Costs are the minimised objectives above 0 that no refitted
            surrogate predicts.
    """

    def __init__(
        self,
        problem: Problem,
        *,
        seed: int = 0,
        initial: int = 24,
        population: int = 500,
        generations: int = 40,
        optimism: float = 0.5,
        explore: float = 0.1,
        polish: int = 0,
        exchanges: int = 0,
        log_costs: bool = False,
    ) -> None:
        super().__init__(problem, seed=seed)
        missing = [name for name in problem.metrics if name not in problem.surrogates]
        if missing:
            raise InputError(f"strategy 'predictor' needs a surrogate for {', '.join(missing)}")
        if initial < 4 or population < 4 or generations < 1:
            raise InputError(
                f"initial {initial} (at least 4), population {population} (at least 4) and "
                f"generations {generations} (at least 1) are too small to search with"
            )
        if not 0.0 <= explore <= 1.0:
            raise InputError(f"explore {explore} is not a share between 0 and 1")
        for name, count in (("polish", polish), ("exchanges", exchanges)):
            if count < 0:
                raise InputError(f"{name} {count} is not a number of candidates, 0 or more")
        self.initial = initial
        self.population = population
        self.generations = generations
        self.optimism = optimism
        self.explore = explore
        self.polish = polish
        self.exchanges = exchanges
        surrogates = [problem.surrogates[str(goal.metric)] for goal in problem.goals]
        self._costs = [
            column
            for column, (goal, surrogate) in enumerate(zip(problem.goals, surrogates, strict=True))
            if log_costs and goal.sign > 0 and not isinstance(surrogate, Refitted)
        ]
        self._population: np.ndarray | None = None

    def _propose(self, n: int, rng: np.random.Generator) -> np.ndarray:
        genes, objectives, constraints = self.told
        if len(genes) < self.initial:
            return self._design(n, rng)
        self._refit(genes, objectives, constraints)
        objectives = self._scaled(objectives)
        pool = self._search(genes, objectives, constraints, rng)
        new = ~self._seen.contains(pool.genes)
        return self._pick(pool.take(np.flatnonzero(new)), objectives, constraints, n, rng)

    # ------------------------------------------------------------- first batch

    def _design(self, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return feasible rows far from each other and from what was asked before.

        The largest and the smallest architecture come first where they are feasible: both
        ends of a front lie near them, and no uniform sample of a large space does.
        """
        pool = find_feasible(self.problem, 20 * n, rng, exclude=self._seen)
        corners = self._corners()
        pool = np.concatenate([corners, pool])
        pool = pool[unique_rows(pool)]
        if len(pool) <= n:
            return pool
        features = self.problem.space.encode_genes(pool)
        bins = self._bins(pool)
        asked = self._genes
        # Greedy maximin on the Hamming distance (active choices that differ).
        if len(asked):
            nearest = _hamming(features, self.problem.space.encode_genes(asked)).min(axis=1)
        else:
            nearest = np.full(len(pool), np.inf)
        chosen: list[int] = []
        for i in range(n):
            # Each range of costs in its turn, as long as it has any left.
            open_ones = np.where(nearest >= 0, bins, -1)
            turns = np.unique(open_ones[open_ones >= 0])
            here = np.where(open_ones == turns[i % len(turns)], nearest, -1.0)
            best = i if i < len(corners) else int(np.argmax(here))
            chosen.append(best)
            nearest = np.minimum(nearest, _hamming(features, features[best : best + 1])[:, 0])
            nearest[chosen] = -1.0
        return pool[chosen]

    def _bins(self, genes: np.ndarray) -> np.ndarray:
        """Return the number of the range of costs that each row lies in, (n,) int64."""
        bins = np.zeros(len(genes), dtype=np.int64)
        if not self._costs:
            return bins
        logs = self._scaled(self.problem.known_objectives(genes, self._costs))[:, self._costs]
        low, span = logs.min(axis=0), np.ptp(logs, axis=0)
        # Of several costs the mean: networks that are small are mostly fast, too.
        place = ((logs - low) / np.where(span > 0, span, 1.0)).mean(axis=1)
        return np.minimum((place * _RANGES).astype(np.int64), _RANGES - 1)

    def _scaled(self, objectives: np.ndarray) -> np.ndarray:
        """Return objectives (n, m) with the logarithms of costs."""
        if not self._costs:
            return objectives
        scaled = objectives.copy()
        scaled[:, self._costs] = np.log(np.maximum(objectives[:, self._costs], _LEAST))
        return scaled

    def _corners(self) -> np.ndarray:
        space = self.problem.space
        rows = space.genes([space.largest(), space.smallest()])
        rows = rows[unique_rows(rows)]
        rows = rows[~self._seen.contains(rows)]
        which = self.problem.screened()
        if not len(rows) or not which:
            return rows
        return rows[(self.problem.screen(rows, which) <= 0).all(axis=1)]

    # ------------------------------------------------------ search on surrogates

    def _refit(self, genes: np.ndarray, objectives: np.ndarray, constraints: np.ndarray) -> None:
        for name, surrogate in self.problem.surrogates.items():
            if isinstance(surrogate, Refitted):
                surrogate.fit(genes, self.problem.values(name, objectives, constraints))

    def _judge(self, genes: np.ndarray) -> Judged:
        judged = self.problem.judge(genes)
        objectives = judged.objectives - self.optimism * judged.std
        std = judged.std
        if self._costs:
            # Of a logarithm: the share of the mean.
            std = std.copy()
            std[:, self._costs] /= np.maximum(judged.objectives[:, self._costs], _LEAST)
        return Judged(genes, self._scaled(objectives), std, judged.constraints)

    def _search(
        self,
        told: np.ndarray,
        objectives: np.ndarray,
        constraints: np.ndarray,
        rng: np.random.Generator,
    ) -> Judged:
        """Return candidates (some of them evaluated already) with optimistic objectives."""
        space = self.problem.space
        if space.cardinality() <= min(ENUMERABLE, self.population * self.generations):
            return self._judge(enumerate_genes(space))
        size = self.population
        elite, _, _ = nsga2.survive(objectives, constraints, size // 2)
        everything = tuple(range(len(self.problem.constraints)))
        try:
            sampled = find_feasible(
                self.problem, size // 2, rng, which=everything, seeds=told[elite], generations=50
            )
        except InfeasibleError:
            # Constraints known in advance are satisfiable (the first batch was found); only
            # a learned one is not, and the model may be wrong about that.
            sampled = sample_spread(space, rng, size // 2)
        start = [told[elite], sampled]
        if self._population is not None:
            start.append(self._population)
        rows = np.vstack(start)
        judged = self._judge(rows[unique_rows(rows)])
        archive = [judged]
        current, ranks = evolve(
            space,
            self._judge,
            judged,
            rng,
            population=size,
            generations=self.generations,
            exchanges=self.exchanges,
        )
        self._population = current.genes
        archive.append(current)
        # One step around the predicted front: what evolution missed by a single gene.
        front = current.genes[ranks == 0]
        around = np.vstack(
            [neighbours(space, row) for row in front[rng.permutation(len(front))[:10]]]
        )
        around = around[unique_rows(around)]
        if len(around):
            archive.append(self._judge(around))
        if self.polish:
            better = polish(self.problem, front[rng.permutation(len(front))[: self.polish]])
            if len(better):
                archive.append(self._judge(better))
        pool = join(archive)
        return pool.take(unique_rows(pool.genes))

    # ------------------------------------------------------------------- picking

    def _pick(
        self,
        pool: Judged,
        objectives: np.ndarray,
        constraints: np.ndarray,
        n: int,
        rng: np.random.Generator,
    ) -> np.ndarray:
        known = self.problem.screened()
        if known:
            pool = pool.take(np.flatnonzero((pool.constraints[:, known] <= 0).all(axis=1)))
        if len(pool.genes) <= n:
            spare = find_feasible(self.problem, n, rng, exclude=self._seen)
            rows = np.vstack([pool.genes, spare])
            return rows[unique_rows(rows)][:n]
        keep, _, _ = nsga2.survive(pool.objectives, pool.constraints, max(300, 10 * n))
        pool = pool.take(keep)
        exploring = int(rng.binomial(n, self.explore)) if self.explore else 0
        chosen = self._by_hypervolume(pool, objectives, constraints, n - exploring)
        span = np.ptp(np.vstack([pool.objectives, objectives]), axis=0)
        doubt = (pool.std / np.where(span > 0, span, 1.0)).sum(axis=1)
        doubt[nsga2.total_violation(pool.constraints) > 0] = -1.0
        doubt[chosen] = -np.inf
        for _ in range(n - len(chosen)):
            best = int(np.argmax(doubt))
            doubt[best] = -np.inf
            chosen.append(best)
        return pool.genes[chosen]

    def _by_hypervolume(
        self, pool: Judged, objectives: np.ndarray, constraints: np.ndarray, n: int
    ) -> list[int]:
        """Choose rows that add most volume to the evaluated front, one after the other.

        Where nothing adds any, the best ranks by crowding (the order of the pool) are taken.
        """
        on_front = nondominated(objectives, constraints)
        front = objectives[on_front]
        ok = nsga2.total_violation(pool.constraints) <= 0
        usable = np.flatnonzero(ok)
        chosen: list[int] = []
        if usable.size:
            points = pool.objectives[usable]
            every = np.vstack([front, points])
            low = every.min(axis=0)
            span = np.where(np.ptp(every, axis=0) > 0, np.ptp(every, axis=0), 1.0)
            front, points = (front - low) / span, (points - low) / span
            reference = reference_point(front, points) if len(front) else reference_point(points)
            volume = hypervolume(front, reference)
            gains = np.full(len(points), np.inf)
            while len(chosen) < min(n, usable.size):
                # Gains only shrink as points are added, so a stale gain is an upper bound:
                # recompute from the top until the best is fresh (lazy greedy, Minoux 1978).
                fresh: set[int] = set()
                while True:
                    best = int(np.argmax(gains))
                    if best in fresh or gains[best] <= 0:
                        break
                    gains[best] = hypervolume(np.vstack([front, points[best]]), reference) - volume
                    fresh.add(best)
                if gains[best] <= 1e-12:
                    break
                chosen.append(int(usable[best]))
                front = np.vstack([front, points[best]])
                volume += gains[best]
                gains[best] = -np.inf
        taken = set(chosen)
        for row in range(len(pool.genes)):
            if len(chosen) >= n:
                break
            if row not in taken:
                chosen.append(row)
        return chosen


def _hamming(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Return squared distances of one-hot rows: (n, d), (k, d) -> (n, k)."""
    return (a**2).sum(axis=1)[:, None] + (b**2).sum(axis=1)[None] - 2.0 * (a @ b.T)
