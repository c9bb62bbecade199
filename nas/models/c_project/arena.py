"""Places of tensors in one arena, such that those alive at the same time do not overlap.

Dynamic storage allocation off line: NP-hard in general, small here. First fit in many orders
(Sekiyama et al., "Profile-guided memory optimization for deep neural networks", 2018, section 3),
until one needs no more than what lives at once.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

_TRIES = 3000


def place(
    sizes: Sequence[int], lives: Sequence[tuple[int, int]], bound: int, *, tries: int = _TRIES
) -> tuple[list[int], int]:
    """Return the offset of each tensor and the bytes of the arena.

    Args:
        sizes: bytes of each tensor.
        lives: first and last time of each, both included.
        bound: the most bytes that live at once; the search ends when it is reached.
        tries: orders after which the best so far is taken.
    """
    numbers = list(range(len(sizes)))
    rng = random.Random(0)
    by_size = sorted(numbers, key=lambda i: (-sizes[i], lives[i]))
    by_time = sorted(numbers, key=lambda i: (lives[i], -sizes[i]))
    long_first = sorted(numbers, key=lambda i: (lives[i][0] - lives[i][1], -sizes[i]))
    best: list[int] = []
    least = -1
    for attempt in range(tries):
        if attempt < 3:
            order = (by_size, by_time, long_first)[attempt]
        else:
            # Neighbours of a good order: what is large stays early.
            order = sorted(numbers, key=lambda i: -sizes[i] * rng.uniform(0.3, 1.0))
        offsets = _first_fit(order, sizes, lives, bound, downwards=attempt % 2 == 1)
        used = max((offsets[i] + sizes[i] for i in numbers), default=0)
        if least < 0 or used < least:
            best, least = offsets, used
        if least <= bound:
            break
    return best, least


def _first_fit(
    order: Sequence[int],
    sizes: Sequence[int],
    lives: Sequence[tuple[int, int]],
    bound: int,
    *,
    downwards: bool,
) -> list[int]:
    offsets = [0] * len(sizes)
    placed: list[int] = []
    for turn, i in enumerate(order):
        first, last = lives[i]
        taken = sorted(
            (offsets[j], offsets[j] + sizes[j])
            for j in placed
            if lives[j][0] <= last and lives[j][1] >= first
        )
        gaps, at = [], 0
        for start, stop in taken:
            if start - at >= sizes[i]:
                gaps.append((at, start))
            at = max(at, stop)
        if bound - at >= sizes[i]:
            gaps.append((at, bound))
        if not gaps:
            offsets[i] = at
        elif downwards and turn % 2:
            offsets[i] = gaps[-1][1] - sizes[i]
        else:
            offsets[i] = gaps[0][0]
        placed.append(i)
    return offsets
