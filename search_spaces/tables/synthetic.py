"""Made-up latency tables with the traits of measured ones, for demonstrations and tests.

Each position of a chain of operations costs what a roofline says (the larger of compute and
memory time) plus an overhead an operation; devices differ in speeds and overhead. Some round
to whole milliseconds, some glitch, some have cells missing.
"""

from __future__ import annotations

import numpy as np

from search_spaces.seeds import derive_rng
from search_spaces.spaces.tokens import TokensSpace
from search_spaces.tables.table import LatencyTable

TOKENS = ("skip", "k3_e1", "k3_e6", "k5_e1", "k5_e6")


def synthetic_table(
    *,
    architectures: int = 300,
    devices: int = 6,
    positions: int = 8,
    seed: int = 0,
    noise: float = 0.01,
    missing: float = 0.0,
    whole_ms: int = 0,
    glitches: float = 0.0,
) -> LatencyTable:
    """Return a table in a ``tokens`` space with devices ``device0``, ``device1``, ...

    Args:
        noise: relative standard deviation of every measurement.
        missing: fraction of cells left empty.
        whole_ms: this many devices, from the last, are rounded to whole milliseconds.
        glitches: fraction of cells three times too slow.
    """
    rng = derive_rng(seed, "synthetic table")
    space = TokensSpace([TOKENS] * positions)
    genes = space.sample_genes(rng, architectures)
    kernel = np.array([0, 3, 3, 5, 5])
    expansion = np.array([0, 1, 6, 1, 6])
    channels = 16.0 * 2 ** (np.arange(positions) // 3)
    side = 32.0 / 2 ** (np.arange(positions) // 3)
    k, e = kernel[genes], expansion[genes]
    compute = e * channels * side**2 * (2 * channels + k**2)  # (n, positions)
    memory = e * channels * (2 * side**2 + 2 * channels + k**2)
    columns = {}
    for device in range(devices):
        speed = np.exp(rng.normal(np.log(3e6), 0.8))  # operations a ms
        bandwidth = np.exp(rng.normal(np.log(1e5), 0.8))  # values a ms
        overhead = np.exp(rng.normal(np.log(0.1), 0.7))  # ms an operation
        large_kernel = 1 + rng.uniform(0, 1.5) * (k == 5)
        time = np.maximum(compute / speed, memory / bandwidth) * large_kernel + overhead * (e > 0)
        ms = (1.0 + time.sum(axis=1)) * np.exp(rng.normal(0, noise, architectures))
        ms = np.where(rng.random(architectures) < glitches, 3 * ms, ms)
        if device >= devices - whole_ms:
            ms = np.maximum(np.round(ms), 1.0)
        columns[f"device{device}"] = np.where(rng.random(architectures) < missing, np.nan, ms)
    values = np.column_stack(list(columns.values()))
    return LatencyTable(space, genes, tuple(columns), values)
