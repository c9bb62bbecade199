"""Vectorised operators on gene matrices with conditional categorical choices.

All of them take and return canonical rows (n, choices) int64 and draw only from the
generator that is passed in.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from search_spaces.space import SearchSpace


class GeneSet:
    """A set of canonical gene rows, for exact de-duplication."""

    def __init__(self, rows: np.ndarray | None = None) -> None:
        self._seen: set[bytes] = set()
        if rows is not None:
            self.add(rows)

    def add(self, rows: np.ndarray) -> None:
        """Remember every row of (n, choices)."""
        self._seen.update(_keys(rows))

    def contains(self, rows: np.ndarray) -> np.ndarray:
        """Return which rows are in the set: (n, choices) -> (n,) bool."""
        return np.fromiter((k in self._seen for k in _keys(rows)), dtype=bool, count=len(rows))

    def __len__(self) -> int:
        return len(self._seen)


def unique_rows(rows: np.ndarray) -> np.ndarray:
    """Return the indices of the first occurrence of each row, ascending."""
    seen: dict[bytes, int] = {}
    for i, key in enumerate(_keys(rows)):
        seen.setdefault(key, i)
    return np.fromiter(seen.values(), dtype=np.int64, count=len(seen))


def sample_spread(space: SearchSpace, rng: np.random.Generator, n: int) -> np.ndarray:
    """Sample rows whose costs cover the space's range.

    Independent uniform choices concentrate every additive cost at its mean. Here each row
    has a tilt of its own, so that some rows prefer early (small) options throughout, some
    late ones, and a third of them none.
    """
    counts = space.option_counts
    tilt = rng.uniform(-8.0, 8.0, size=(n, 1))
    tilt[rng.random(n) < 1 / 3] = 0.0
    # Inverse of the distribution function of a density exp(tilt * u) on 0..1.
    u = rng.random((n, len(counts)))
    flat = np.abs(tilt) < 1e-9
    safe = np.where(flat, 1.0, tilt)
    position = np.where(flat, u, np.log1p(u * np.expm1(safe)) / safe)
    genes = np.minimum((position * counts).astype(np.int64), counts - 1)
    return space.canonical(genes)


def crossover(
    space: SearchSpace, a: np.ndarray, b: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Uniform crossover of parents a and b (n, choices): each gene from either with equal chance.

    A gene that is active in the child but was inactive in the parent it comes from has no
    meaning there; it is taken from the other parent, or drawn where neither uses it.
    """
    first = rng.random(a.shape) < 0.5
    child = np.where(first, a, b)
    active_a, active_b = space.active(a), space.active(b)
    from_active = np.where(first, active_a, active_b)
    child = np.where(from_active, child, np.where(first, b, a))
    neither = ~active_a & ~active_b
    child = np.where(neither, rng.integers(0, space.option_counts, size=a.shape), child)
    return space.canonical(child)


def mutate(
    space: SearchSpace,
    genes: np.ndarray,
    rng: np.random.Generator,
    *,
    rate: float | np.ndarray | None = None,
) -> np.ndarray:
    """Redraw active choices with probability ``rate``, at least one in each row.

    Args:
        rate: scalar or (n,); one active choice in the row on average by default.

    Genes that a mutation switches on are drawn uniformly.
    """
    counts = space.option_counts
    active = space.active(genes)
    eligible = active & (counts > 1)
    number = eligible.sum(axis=1)
    if rate is None:
        rate = 1.0 / np.maximum(number, 1)
    flips = eligible & (
        rng.random(genes.shape) < np.broadcast_to(np.reshape(rate, (-1, 1)), (len(genes), 1))
    )
    # One eligible gene of each row, uniformly: the largest of random keys.
    keys = np.where(eligible, rng.random(genes.shape), -1.0)
    forced = keys.argmax(axis=1)
    rows = np.flatnonzero(number > 0)
    flips[rows, forced[rows]] = True
    steps = 1 + (rng.random(genes.shape) * np.maximum(counts - 1, 1)).astype(np.int64)
    drawn = rng.integers(0, counts, size=genes.shape)
    child = np.where(flips, (genes + steps) % counts, np.where(active, genes, drawn))
    return space.canonical(child)


def enumerate_genes(space: SearchSpace) -> np.ndarray:
    """Return every architecture of the space once: (cardinality, choices), in lexical order."""
    rows = np.zeros((1, len(space.choices)), dtype=np.int64)
    for j, count in enumerate(space.option_counts):
        repeats = np.where(space.active(rows)[:, j], count, 1)
        starts = np.repeat(np.cumsum(repeats) - repeats, repeats)
        rows = np.repeat(rows, repeats, axis=0)
        rows[:, j] = np.arange(len(rows)) - starts
    return rows


def _keys(rows: np.ndarray) -> Iterable[bytes]:
    rows = np.ascontiguousarray(rows, dtype=np.int32)
    if rows.shape[1] == 0:
        return [b""] * len(rows)
    # The view gives one opaque scalar a row.
    return rows.view(f"V{rows.shape[1] * 4}").ravel().tolist()
