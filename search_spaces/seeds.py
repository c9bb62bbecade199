"""Independent random streams from one seed.

A stream is named by labels, never by the order in which it was asked for, so a
resumed run draws the same numbers as an uninterrupted one.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import random
from collections.abc import Iterator

import numpy as np


def derive_seed(seed: int, *labels: str | int) -> int:
    """Return a 63-bit seed that depends on ``seed`` and every label."""
    text = "\x1f".join([str(int(seed)), *map(str, labels)])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def derive_rng(seed: int, *labels: str | int) -> np.random.Generator:
    """Return a NumPy generator seeded by :func:`derive_seed`."""
    return np.random.default_rng(derive_seed(seed, *labels))


@contextlib.contextmanager
def seeded(seed: int, *labels: str | int) -> Iterator[None]:
    """Let code of the user's draw from the generators of Python, NumPy and torch by a seed.

    For code that takes no seed of its own, such as the constructor of a torch module: two equal
    jobs, and all processes of one, must build equal weights. What the generators held before is
    put back. Torch is imported where it is installed, for the code may import it, and draw from
    it, in the same breath.

    Args:
        seed, labels: as :func:`derive_seed` takes them.
    """
    number = derive_seed(seed, *labels)
    torch = importlib.import_module("torch") if importlib.util.find_spec("torch") else None
    python, numbers = random.getstate(), np.random.get_state()
    before = None if torch is None else torch.random.get_rng_state()
    random.seed(number)
    np.random.seed(number % 2**32)
    if torch is not None:
        # Not torch.manual_seed: that would reseed the generators of every GPU, too.
        torch.default_generator.manual_seed(number)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numbers)
        if torch is not None:
            torch.random.set_rng_state(before)
