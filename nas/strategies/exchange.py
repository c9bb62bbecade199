"""Exchange search: a few choices changed together, towards the bounds and then within them.

Near the best that a budget allows, no single choice can be bettered: what one layer gains has
to be paid for by another. Mutation finds such exchanges by luck. Here every single change of
one candidate is judged; the effects of two and three changes together are estimated as the
sums of their own, and the most promising sets are judged as they are. That is the variable-depth
neighbourhood of Lin and Kernighan (1973) as local search in an evolution, a memetic algorithm
(Moscato 1989). Sums are exact for costs that add up over layers; elsewhere they only decide
what is judged.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.strategies.genes import unique_rows
from nas.strategies.problem import Judged, join
from search_spaces.space import SearchSpace

Judge = Callable[[np.ndarray], Judged]
"""Gene rows (n, choices) -> what is known of them."""

MOVES = 400
"""Single changes that are combined at most; of more, a random part each round."""
BEAM = 128
"""Sets of changes that are extended by one more."""
PRESSURES = (0.0, 0.3, 1.0, 3.0, 10.0)
"""Weights of what a set misses against what it gains, when sets to extend are chosen: one that
saves room and one that uses it both have to be among them."""
_GAIN = 1e-9
"""Relative gain below which a step is rounding."""


@dataclass(frozen=True)
class Exchanged:
    """What an exchange search found.

    Attributes:
        best: the improved candidate, one row; the start itself where nothing was better.
        judged: every row that was judged on the way.
    """

    best: Judged
    judged: Judged


def exchange(
    space: SearchSpace,
    judge: Judge,
    start: Judged,
    rng: np.random.Generator,
    *,
    goal: int = 0,
    depth: int = 3,
    rounds: int = 30,
    verify: int = 32,
) -> Exchanged:
    """Improve one candidate by exchanges until none helps.

    A candidate that misses constraints is brought towards them first (total violation), then
    ``goal`` is bettered within them; the other objectives may not get worse than they are at
    the start.

    Args:
        space: of the rows.
        judge: gives objectives and constraints of rows.
        start: one judged row.
        rng: draws the changes to combine where there are more than ``MOVES``.
        goal: objective that is bettered.
        depth: choices changed together at most.
        rounds: steps at most.
        verify: sets of changes judged in a step, besides all single ones.
    """
    held = _Held(start, goal)
    now = start
    seen = [start]
    for _ in range(rounds):
        moves = _single_moves(space, now.genes[0], rng)
        if not len(moves):
            break
        singles = judge(_applied(space, now.genes[0], moves[:, None, :]))
        seen.append(singles)
        miss, value, limits = held.of(singles)
        own_miss, own_value, own_limits = held.of(now)
        tried, tried_miss, tried_value = singles, miss, value
        if depth > 1:
            sets = _promising(
                moves,
                value - own_value[0],
                limits - own_limits[0],
                own_limits[0],
                depth=depth,
                count=verify,
            )
            if len(sets):
                padded = np.vstack([moves, [[-1, -1]]])
                rows = _applied(space, now.genes[0], padded[sets])
                together = judge(rows[unique_rows(rows)])
                seen.append(together)
                tried = join([singles, together])
                tried_miss, tried_value, _ = held.of(tried)
        best = int(np.lexsort((tried_value, tried_miss))[0])
        if not _better(tried_miss[best], tried_value[best], own_miss[0], own_value[0]):
            break
        now = tried.take(np.array([best]))
    return Exchanged(now, join(seen))


class _Held:
    """One objective to better, everything else as limits that are kept where they are <= 0."""

    def __init__(self, start: Judged, goal: int) -> None:
        self.goal = goal
        self._others = [i for i in range(start.objectives.shape[1]) if i != goal]
        self._from = start.objectives[0, self._others]
        self._scale = np.maximum(np.abs(self._from), 1e-12)

    def of(self, judged: Judged) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return total miss (n,), value (n,) and limits (n, others + constraints)."""
        worse = (judged.objectives[:, self._others] - self._from) / self._scale
        limits = np.hstack([worse - _GAIN, judged.constraints])
        miss = np.maximum(limits, 0.0).sum(axis=1)
        return miss, judged.objectives[:, self.goal], limits


def _better(miss: float, value: float, than_miss: float, than_value: float) -> bool:
    if than_miss > 0.0:
        return bool(miss < than_miss * (1 - _GAIN))
    return bool(miss <= 0.0 and value < than_value - _GAIN * max(abs(than_value), 1e-12))


def _single_moves(space: SearchSpace, row: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return (choice, option) of every change of one active choice: (k, 2)."""
    counts = space.option_counts
    free = np.flatnonzero(space.active(row[None])[0] & (counts > 1))
    moves = np.array(
        [(j, option) for j in free for option in range(int(counts[j])) if option != row[j]],
        dtype=np.int64,
    ).reshape(-1, 2)
    if len(moves) > MOVES:
        moves = moves[np.sort(rng.choice(len(moves), MOVES, replace=False))]
    return moves


def _applied(space: SearchSpace, row: np.ndarray, sets: np.ndarray) -> np.ndarray:
    """Return ``row`` after each set of moves (n, size, 2); (-1, -1) is no move."""
    rows = np.repeat(row[None], len(sets), axis=0)
    for k in range(sets.shape[1]):
        real = np.flatnonzero(sets[:, k, 0] >= 0)
        rows[real, sets[real, k, 0]] = sets[real, k, 1]
    return space.canonical(rows)


def _promising(
    moves: np.ndarray,
    gain: np.ndarray,
    change: np.ndarray,
    limits: np.ndarray,
    *,
    depth: int,
    count: int,
) -> np.ndarray:
    """Return the sets of moves that should help most if effects add up: (k, depth) indices.

    Args:
        moves: (m, 2) choice and option.
        gain: change of the value by each, (m,).
        change: of the limits, (m, limits).
        limits: where they are now, (limits,).
        depth, count: as in :func:`exchange`.

    A set of fewer than ``depth`` moves is filled up with -1.
    """
    unit = max(float(np.abs(gain).max()), 1e-300)
    gain = gain / unit
    scale = np.abs(change).max(axis=0) if change.shape[1] else np.ones(0)
    scale = np.where(scale > 0, scale, 1.0)
    change, limits = change / scale, limits / scale
    now = float(np.maximum(limits, 0.0).sum())
    sets = np.arange(len(moves))[:, None]
    total, moved = gain, change
    found: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for size in range(2, depth + 1):
        kept = _beam(total, moved, limits) if size > 2 else np.arange(len(sets))
        left, right = np.divmod(np.arange(len(kept) * len(moves)), len(moves))
        left = kept[left]
        # Each choice once, and each set once: moves come in the order of their index.
        ok = (moves[sets[left], 0] != moves[right, None, 0]).all(axis=1)
        if size == 2:
            ok &= sets[left, 0] < right
        left, right = left[ok], right[ok]
        sets = np.hstack([sets[left], right[:, None]])
        total, moved = total[left] + gain[right], moved[left] + change[right]
        miss = np.maximum(limits + moved, 0.0).sum(axis=1)
        helps = miss < now - _GAIN if now > 0 else (miss <= 0.0) & (total < -_GAIN)
        order = np.flatnonzero(helps)
        order = order[np.lexsort((total[order], miss[order]))][: size * count]
        # The same set comes up once for each pair it was extended from.
        order = np.sort(
            order[np.unique(np.sort(sets[order], axis=1), axis=0, return_index=True)[1]]
        )
        filled = np.full((len(order), depth), -1, dtype=np.int64)
        filled[:, :size] = sets[order]
        found.append((filled, miss[order], total[order]))
    filled, miss, total = (np.concatenate(part) for part in zip(*found, strict=True))
    return filled[np.lexsort((total, miss))[:count]]


def _beam(total: np.ndarray, moved: np.ndarray, limits: np.ndarray) -> np.ndarray:
    """Return the indices of the sets that are worth one more move."""
    miss = np.maximum(limits + moved, 0.0).sum(axis=1)
    room = moved.sum(axis=1)
    share = max(1, BEAM // (2 * len(PRESSURES)))
    kept = []
    for cost in (miss, room):
        for pressure in PRESSURES:
            score = total + pressure * cost
            k = min(share, len(score))
            kept.append(np.argpartition(score, k - 1)[:k])
    return np.unique(np.concatenate(kept))
