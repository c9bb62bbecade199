"""What the samples and the machine's state of processes show against them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from devices.measuring.measurement import Reason
from devices.measuring.protocol import Protocol
from devices.measuring.quiet import EVERY, UNDISTURBED, Kept
from devices.measuring.sampling import Block
from devices.measuring.statistics import median_of


def judge_block(block: Block, kept: Kept, protocol: Protocol) -> set[Reason]:
    """Return what speaks against a process.

    Args:
        kept: its samples that count.
    """
    found = set()
    if not block.settled:
        found.add(Reason.UNSETTLED)
    if not block.finite:
        found.add(Reason.NON_FINITE)
    # The fastest samples are a few from anywhere: how they lie says nothing.
    if kept.which in (UNDISTURBED, EVERY):
        found |= _judge_samples(np.asarray(kept.samples_ms), protocol)
    # Probes tell more finely what the reference model, a few models away, tells otherwise.
    if block.reference_ms is not None and not block.probes_ns:
        first, second = block.reference_ms
        if outside_limit(abs(second / first - 1), protocol.max_spread):
            found.add(Reason.REFERENCE_DRIFT)
    # A cooling device that is at work throttles already, also when it began before.
    if _increase(block, "throttle_count") > 0 or (block.after.get("cooling_state") or 0) > 0:
        found.add(Reason.THROTTLING)
    hottest = block.after.get("temperature_c")
    if hottest is not None and outside_limit(hottest, protocol.max_temperature_c):
        found.add(Reason.THROTTLING)
    return found


def _judge_samples(samples: np.ndarray, protocol: Protocol) -> set[Reason]:
    """Return what the order and the spread of samples (n,), in ms, show."""
    found = set()
    half = len(samples) // 2
    if half:
        first, second = median_of(samples[:half]), median_of(samples[half:])
        if outside_limit(abs(second / first - 1), protocol.max_drift):
            found.add(Reason.DRIFT)
    # Outliers on either side: a neighbour may be there for most of the runs.
    ratio = samples / median_of(samples)
    outside = (ratio > protocol.outlier_factor) | (ratio < 1 / protocol.outlier_factor)
    if outside_limit(float(np.mean(outside)), protocol.max_outlier_share):
        found.add(Reason.LOAD)
    quarter, three = np.quantile(ratio, [0.25, 0.75])
    if outside_limit(float(three - quarter), protocol.max_iqr) or outside_limit(
        _shift(ratio), protocol.max_iqr
    ):
        found.add(Reason.SCATTERED)
    return found


_LEAST_WINDOW = 5


def _shift(ratio: np.ndarray) -> float:
    """Return how far the median of an eighth of the runs, in a row, lies from that of all.

    A second speed that lasts for less than a quarter of the time moves no quartile, but it
    comes in one piece where noise does not.

    Args:
        ratio: runs over their median, in order (n,).
    """
    size = max(_LEAST_WINDOW, len(ratio) // 8)
    if len(ratio) < 2 * size:
        return 0.0
    windows = np.median(np.lib.stride_tricks.sliding_window_view(ratio, size), axis=1)
    return float(max(windows.max(), 1 / windows.min()) - 1)


def frequency_drop(blocks: Sequence[Block]) -> float:
    """Return by what share the lowest frequency around samples lies under the highest."""
    states = [state for block in blocks for state in (block.before, block.after)]
    seen = [state["frequency_mhz"] for state in states if state.get("frequency_mhz")]
    return 1 - min(seen) / max(seen) if seen else 0.0


def throttled_between(blocks: Sequence[Block]) -> bool:
    """Whether the counters of throttling rose from one process to a later one.

    Each process may be kept on other cores, with counters of their own.
    """
    seen: dict[tuple[int, ...], float] = {}
    for block in blocks:
        count = block.before.get("throttle_count")
        if count is not None and count > seen.setdefault(tuple(block.cores), count):
            return True
    return False


def _increase(block: Block, name: str) -> float:
    before, after = block.before.get(name), block.after.get(name)
    return 0.0 if before is None or after is None else after - before


def outside_limit(value: float, limit: float | None) -> bool:
    """Whether ``value`` is above a limit that is applied."""
    return limit is not None and value > limit
