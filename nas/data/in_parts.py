"""A pool's ``map`` that hands out several items at a time, where one costs less than a task."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import chain
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

_TASKS, _MOST = 16, 64
"""Tasks that a sequence is divided into at least, and items of one at most: to hand over a task
takes as long as to decode a picture of 28 pixels, and who waits for the first should not wait for
all."""


def map_in_parts(pool: Executor, function: Callable[[T], R], items: Sequence[T]) -> Iterator[R]:
    """Yield ``function`` of each of ``items`` in their order, worked out by ``pool``.

    Args:
        pool: of threads.
        function: may raise; it then raises here, when its item's turn comes.
        items: one after another.
    """
    size = max(1, min(_MOST, -(-len(items) // _TASKS)))
    parts = [items[i : i + size] for i in range(0, len(items), size)]

    def of_part(part: Sequence[T]) -> list[R]:
        return [function(item) for item in part]

    return chain.from_iterable(pool.map(of_part, parts))
