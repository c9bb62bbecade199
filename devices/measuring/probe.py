"""A short piece of fixed work that shows how fast the machine is at this moment.

It runs between any two samples, twice. What slows a model and is not the model's slows the probe
too, so a sample can be judged by the probes beside it instead of by itself: leaving out slow
samples because they are slow would bias every figure downwards.

The first run finds the caches as the model, and whoever had the core meanwhile, left them: after
another process it takes up to twice as long. How long it takes otherwise depends on the model. The
second run finds its own data and shows the speed of the core alone: the clock, and a neighbour on
the same physical core. It is the same beside every model, within 1 %.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

_SIDE = 64
_PRODUCTS = 8


def make_probe() -> Callable[[], object]:
    """Return the probe: eight products of 64 x 64 matrices of 32-bit floats.

    About 50 us on a server core of 2024; the same work everywhere and always, so that its
    durations in different processes can be compared. Products of this size stay below the one
    from which BLAS libraries start threads.
    """
    factor = np.full((_SIDE, _SIDE), 0.5, dtype=np.float32)
    product = np.empty_like(factor)

    def probe() -> None:
        for _ in range(_PRODUCTS):
            np.matmul(factor, factor, out=product)

    return probe
