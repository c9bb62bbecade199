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
