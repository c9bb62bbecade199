"""Which of the kernels that fit runs a layer: by timings that load cannot turn over.

A kernel other than the first of the fixed order must be faster than it in pairs of runs made right
after each other, by a margin and in most of the pairs. Load slows both runs of a pair, or falls on
either as often, so it can hide an advantage and cannot make one up.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from devices.lowbit.library import Native

MARGIN = 0.05
"""Share of its time that the default must lose before it is left."""

_MOST_PAIRS = 0.75
"""Share of the pairs in which the other must win."""

_FAR_BEHIND = 2.0
_LONGEST_MS = 40.0
"""Of all rounds of a layer, about."""


def choose_kernel(native: Native, layer: int, rounds: int) -> str | None:
    """Choose the kernel of a layer by timing and forget the weights as the others read them.

    Args:
        native: the network.
        layer: one of its layers; its buffers may hold anything.
        rounds: of the comparison, at least 3 where there is a choice; long layers take fewer.

    Returns:
        The kernel; ``None`` for a layer that has no choice.
    """
    kernels = native.kernels(layer)
    # Portable kernels only where there are no others.
    fast = [k for k in kernels if not k.endswith("_portable")] or list(kernels)
    if not fast:
        return None
    chosen = fast[0]
    if len(fast) > 1 and rounds > 0:
        first = native.compare(layer, fast, 2).min(0)
        near = [k for k, t in zip(fast, first, strict=True) if t <= _FAR_BEHIND * first.min()]
        if chosen not in near:  # it stays the one to beat, by the one that leads
            near.insert(0, chosen)
        if len(near) > 1:
            round_ms = 2 * float(first.sum())
            count = int(min(max(3, rounds), max(3.0, _LONGEST_MS / max(round_ms, 1e-6))))
            chosen = near[best(native.compare(layer, near, count))]
    native.choose(layer, chosen)
    native.settle(layer)
    return chosen


def best(times: np.ndarray, *, margin: float = MARGIN) -> int:
    """Return the column of the kernel to use.

    Args:
        times: (rounds, kernels), the kernels of a round timed right after each other; the first
            is the default.
        margin: share of the default's time that another must save.

    Returns:
        The column with the lowest median of the ratios to the default within a round, if that
        is below ``1 - margin`` and it was faster in three quarters of the rounds; else 0.
    """
    ratios = times / times[:, :1]
    medians = np.median(ratios, 0)
    leader = int(np.argmin(medians))
    wins = float((ratios[:, leader] < 1).mean())
    return leader if medians[leader] <= 1 - margin and wins >= _MOST_PAIRS else 0


def choose_kernels(native: Native, layers: Sequence[int], rounds: int) -> None:
    """Choose the kernels of some layers, see :func:`choose_kernel`."""
    for layer in layers:
        choose_kernel(native, layer, rounds)
