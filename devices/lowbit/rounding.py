"""How kernels round real values to codes."""

from __future__ import annotations

import numpy as np


def to_codes(v: np.ndarray, zero_point: int, low: int, high: int) -> np.ndarray:
    """Round float32 values half to even, add the zero point and cut to the range."""
    v = np.clip(v, np.float32(low - zero_point), np.float32(high - zero_point))
    return (np.rint(v).astype(np.int32) + zero_point).astype(np.uint8)
