"""Truth values of many examples as a short text in JSON."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np


def pack_bits(values: Sequence[bool]) -> str:
    """Return truth values as text: base64 of the bits, the first value the highest bit."""
    return base64.b64encode(np.packbits(np.asarray(values, dtype=bool)).tobytes()).decode()


def unpack_bits(text: str, count: int) -> np.ndarray:
    """Return ``count`` truth values that :func:`pack_bits` wrote: (count,) bool."""
    raw = np.frombuffer(base64.b64decode(text), dtype=np.uint8)
    return np.unpackbits(raw, count=count).astype(bool)
