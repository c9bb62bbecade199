"""The scale latency is modelled on: milliseconds, or their logarithm."""

from __future__ import annotations

import numpy as np


def transform(latencies: np.ndarray, log: bool) -> tuple[np.ndarray, float]:
    """The modelled quantity, and the log-Jacobian that makes evidences comparable.

    With the flat priors of the constants both are densities of the latencies in ms.

    Args:
        latencies: (n,) ms.
        log: whether the logarithm is modelled; latencies near zero are raised to a floor.
    """
    if not log:
        return latencies, -np.log(max(float(latencies.mean()), 1e-9))
    positive = latencies[latencies > 0]
    floor = 0.05 * float(np.median(positive)) if positive.size else 1e-3
    logs = np.log(np.maximum(latencies, floor))
    return logs, -float(logs.sum())


def step_of(values: np.ndarray) -> float:
    """The largest power of ten that every value (n,) is a multiple of, 0 if there is none.

    Phones often report whole milliseconds, counts are whole numbers. Below four values, or for
    steps of a thousandth of the values and finer, 0 is returned.
    """
    largest = float(np.abs(values).max(initial=0.0))
    if len(values) < 4 or largest == 0:
        return 0.0
    for power in range(int(np.floor(np.log10(largest))), int(np.floor(np.log10(largest))) - 3, -1):
        step = 10.0**power
        if np.allclose(values / step, np.round(values / step), rtol=0, atol=1e-6):
            return step
    return 0.0


def positive(mean_ms: np.ndarray, least_ms: float) -> np.ndarray:
    """Bend predictions far below every measurement so that none is negative, in their order.

    Above a tenth of ``least_ms``, the smallest measurement, nothing changes: (n,) -> (n,).
    """
    floor = 0.1 * least_ms
    if floor <= 0:
        return np.maximum(mean_ms, 0.0)
    return np.where(mean_ms < floor, floor * np.exp(np.minimum(mean_ms / floor - 1, 0)), mean_ms)
