"""Independent random streams from one seed.

A stream is named by labels, never by the order in which it was asked for, so a
resumed run draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import hashlib

import numpy as np


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed that depends on ``seed`` and every label."""
    text = "\x1f".join([str(int(seed)), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive_rng(seed: int, *labels: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *labels))
