"""One measurement: its figures, every raw sample, and the judgement on it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from enum import Enum
from typing import Any

import numpy as np

from devices.measuring.conditions import frequency_pinned
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import Block, Failure
from devices.measuring.statistics import summarise


class Reason(str, Enum):
    """Why a sample was rejected."""

    THROTTLING = "throttling"
    FREQUENCY_DROP = "frequency-drop"
    DRIFT = "drift-between-halves"
    REFERENCE_DRIFT = "reference-model-drift"
    SPREAD = "process-medians-apart"
    INTERVAL = "interval-too-wide"
    LOAD = "background-load"
    SCATTERED = "runs-scattered"
    UNSETTLED = "warm-up-did-not-settle"
    NON_FINITE = "output-not-finite"
    FAILED = "model-failed"
    CRASHED = "process-crashed"
    DEADLINE = "deadline-passed"
    MEMORY = "memory-limit"
    IMPOSSIBLE = "impossible-latency"


#: Another attempt cannot change these.
FINAL = frozenset({Reason.FAILED, Reason.NON_FINITE, Reason.MEMORY})


@dataclass(frozen=True)
class Rejected:
    """A sample that was rejected whole: its reasons and its raw samples, in ms a process."""

    reasons: tuple[str, ...]
    samples_ms: tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Measurement:
    """The latency of one model file on one device.

    ``latency_ms`` is the median of one inference (of a whole batch); ``low_ms`` and
    ``high_ms`` bound the 95 % interval. A sample is one value of ``samples_ms``: the mean
    of ``calls`` inferences timed together, so ``p90_ms`` and ``p99_ms`` are those of such
    means. When nothing could be measured the figures are NaN and ``detail`` says why.

    ``pinned`` is true when both the cores and their frequency were fixed. An invalid
    measurement keeps the figures of its best attempt (fewest reasons, then the narrowest
    interval) and its ``reasons``; the other attempts are in ``rejected``.

    ``energy_mj`` is the energy of one inference, None where the machine does not expose it.
    ``conditions`` hold ``arithmetic`` (how many products run in which) and ``doubts``
    (what makes the model's outputs doubtful), where the runtime can tell.
    """

    latency_ms: float
    low_ms: float
    high_ms: float
    iqr_ms: float
    p90_ms: float
    p99_ms: float
    mad_ms: float
    samples_ms: tuple[tuple[float, ...], ...]
    calls: tuple[int, ...]
    valid: bool
    reasons: tuple[str, ...]
    attempts: int
    rejected: tuple[Rejected, ...]
    runtime: str
    runtime_version: str
    parameters: Mapping[str, Any]
    protocol: Mapping[str, Any]
    conditions: Mapping[str, Any]
    pinned: bool
    detail: str = ""
    device: str = ""
    key: str = ""
    energy_mj: float | None = None

    def to_json(self) -> dict[str, Any]:
        """Return a JSON-able dictionary; NaN becomes None."""
        return {name: _plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Measurement:
        """Read what :meth:`to_json` wrote; keys of later versions are left out."""
        known = {f.name for f in fields(cls)}
        data = {name: item for name, item in value.items() if name in known}
        for name in _FIGURES:
            data[name] = math.nan if data[name] is None else float(data[name])
        data["samples_ms"] = _tuples(data["samples_ms"])
        data["calls"] = tuple(data["calls"])
        data["reasons"] = tuple(data["reasons"])
        data["rejected"] = tuple(
            Rejected(tuple(item["reasons"]), _tuples(item["samples_ms"]))
            for item in data["rejected"]
        )
        return cls(**data)


_FIGURES = ("latency_ms", "low_ms", "high_ms", "iqr_ms", "p90_ms", "p99_ms", "mad_ms")


LONGEST_MS = 8.64e7
"""A day: no inference takes longer."""


def plausible(measurement: Measurement) -> Measurement:
    """Return ``measurement``, or an invalid one without figures where these cannot be.

    A broken counter, clock or board reports 0 ms, -1 ms or 1e308 ms; none of them may win a
    front, whichever way it came here.
    """
    figures = (measurement.latency_ms, measurement.low_ms, measurement.high_ms)
    impossible = [f"{x:g} ms" for x in figures if not (math.isnan(x) or 0 < x <= LONGEST_MS)]
    energy = measurement.energy_mj
    if energy is not None and not 0 <= energy < math.inf:
        measurement = replace(measurement, energy_mj=None)
    if not impossible:
        return measurement
    nothing: dict[str, Any] = dict.fromkeys(_FIGURES, math.nan)
    return replace(
        measurement,
        **nothing,
        valid=False,
        reasons=tuple(dict.fromkeys([*measurement.reasons, Reason.IMPOSSIBLE.value])),
        detail=f"the device reports {impossible[0]}, which no inference takes; is its clock or "
        "counter broken?",
    )


@dataclass(frozen=True)
class Attempt:
    """One try at one model: a block or a failure from each process."""

    outcomes: tuple[Block | Failure, ...]
    runs_on_cpu: bool
    threads: int
    reasons: tuple[Reason, ...] = field(init=False)
    protocol: Protocol

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", tuple(map(_possible, self.outcomes)))
        object.__setattr__(self, "reasons", _judge(self, self.protocol))

    @property
    def blocks(self) -> list[Block]:
        """What the processes measured; one that failed has none."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Block)]

    @property
    def samples_ms(self) -> tuple[tuple[float, ...], ...]:
        """Samples in ms, by process."""
        return tuple(block.samples_ms for block in self.blocks)

    @property
    def width(self) -> float:
        """Width of the interval over the median; infinite when there is none."""
        if len(self.blocks) < 2:
            return math.inf
        figures = summarise(self.samples_ms)
        return (figures.high - figures.low) / figures.median


def conclude(
    attempts: Sequence[Attempt],
    *,
    runtime: str,
    runtime_version: str,
    parameters: Mapping[str, Any],
    machine: Mapping[str, Any],
) -> Measurement:
    """Turn the attempts at one model into its measurement.

    The last attempt counts when it is clean; else the measurement is invalid.
    """
    valid = not attempts[-1].reasons
    best = (
        attempts[-1]
        if valid
        else min(attempts, key=lambda a: (-len(a.blocks), len(a.reasons), a.width))
    )
    blocks = best.blocks
    if len(blocks) >= 2:
        figures = summarise(best.samples_ms)
        numbers: dict[str, Any] = {
            "latency_ms": figures.median,
            "low_ms": figures.low,
            "high_ms": figures.high,
            "iqr_ms": figures.iqr,
            "p90_ms": figures.p90,
            "p99_ms": figures.p99,
            "mad_ms": figures.mad,
        }
    else:
        numbers = dict.fromkeys(_FIGURES, math.nan)
    details = [o.detail for o in best.outcomes if isinstance(o, Failure)]
    affinity = [list(block.cores) for block in blocks]
    before = [block.before for block in blocks]
    return Measurement(
        **numbers,
        samples_ms=best.samples_ms,
        calls=tuple(block.calls for block in blocks),
        valid=valid,
        reasons=tuple(reason.value for reason in best.reasons),
        attempts=len(attempts),
        rejected=tuple(
            Rejected(tuple(reason.value for reason in attempt.reasons), attempt.samples_ms)
            for attempt in attempts
            if attempt is not best
        ),
        runtime=runtime,
        runtime_version=runtime_version,
        parameters=_plain(parameters),
        protocol=best.protocol.to_json(),
        conditions=_plain(
            {
                **machine,
                "cores": affinity,
                "memory_limited": all(block.memory_limited for block in blocks) and bool(blocks),
                "before": before,
                "after": [block.after for block in blocks],
                "nice": [block.nice for block in blocks],
                "processor_share": [block.processor_share for block in blocks],
                "reference_ms": [block.reference_ms for block in blocks],
                "arithmetic": blocks[0].arithmetic if blocks else None,
                "doubts": list(dict.fromkeys(doubt for b in blocks for doubt in b.doubts)),
            }
        ),
        pinned=bool(blocks) and all(affinity) and all(map(frequency_pinned, before)),
        detail=details[0] if details else "",
        energy_mj=_median_energy(blocks),
    )


def _possible(outcome: Block | Failure) -> Block | Failure:
    """Return a block of a process, or a failure where its samples cannot be times."""
    if isinstance(outcome, Block):
        for sample in outcome.samples_ms:
            if not 0 < sample <= LONGEST_MS:
                return Failure(
                    Reason.IMPOSSIBLE.value,
                    f"a sample of {sample:g} ms, which no inference takes; is a clock broken?",
                )
    return outcome


def _median_energy(blocks: Sequence[Block]) -> float | None:
    known = [block.energy_mj for block in blocks if block.energy_mj is not None]
    return float(np.median(known)) if known and len(known) == len(blocks) else None


def _judge(attempt: Attempt, protocol: Protocol) -> tuple[Reason, ...]:
    """Return every reason to reject the attempt, in the order of :class:`Reason`."""
    found = {Reason(o.kind) for o in attempt.outcomes if isinstance(o, Failure)}
    blocks = attempt.blocks
    for block in blocks:
        found |= _judge_block(block, protocol)
        if (
            attempt.runs_on_cpu
            and attempt.threads == 1
            and _above(1 - block.processor_share, protocol.max_starvation)
        ):
            found.add(Reason.LOAD)
    if _above(_frequency_drop(blocks), protocol.max_slowdown):
        found.add(Reason.FREQUENCY_DROP)
    if _throttled_between(blocks):
        found.add(Reason.THROTTLING)
    if len(blocks) >= 2:
        medians = [float(np.median(block.samples_ms)) for block in blocks]
        if _above(max(medians) / min(medians) - 1, protocol.max_spread):
            found.add(Reason.SPREAD)
        if _above(attempt.width, protocol.max_interval):
            found.add(Reason.INTERVAL)
    return tuple(reason for reason in Reason if reason in found)


def _judge_block(block: Block, protocol: Protocol) -> set[Reason]:
    found = set()
    samples = np.asarray(block.samples_ms)
    if not block.settled:
        found.add(Reason.UNSETTLED)
    if not block.finite:
        found.add(Reason.NON_FINITE)
    half = len(samples) // 2
    if half:
        first, second = np.median(samples[:half]), np.median(samples[half:])
        if _above(abs(second / first - 1), protocol.max_drift):
            found.add(Reason.DRIFT)
    # Outliers on either side: a neighbour may be there for most of the runs.
    ratio = samples / np.median(samples)
    outside = (ratio > protocol.outlier_factor) | (ratio < 1 / protocol.outlier_factor)
    if _above(float(np.mean(outside)), protocol.max_outlier_share):
        found.add(Reason.LOAD)
    quarter, three = np.quantile(ratio, [0.25, 0.75])
    if _above(float(three - quarter), protocol.max_iqr) or _above(_shift(ratio), protocol.max_iqr):
        found.add(Reason.SCATTERED)
    if block.reference_ms is not None:
        first, second = block.reference_ms
        if _above(abs(second / first - 1), protocol.max_spread):
            found.add(Reason.REFERENCE_DRIFT)
    # A cooling device that is at work throttles already, also when it began before.
    if _increase(block, "throttle_count") > 0 or (block.after.get("cooling_state") or 0) > 0:
        found.add(Reason.THROTTLING)
    hottest = block.after.get("temperature_c")
    if hottest is not None and _above(hottest, protocol.max_temperature_c):
        found.add(Reason.THROTTLING)
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


def _frequency_drop(blocks: Sequence[Block]) -> float:
    """Return by what share the lowest frequency around samples lies under the highest."""
    states = [state for block in blocks for state in (block.before, block.after)]
    seen = [state["frequency_mhz"] for state in states if state.get("frequency_mhz")]
    return 1 - min(seen) / max(seen) if seen else 0.0


def _throttled_between(blocks: Sequence[Block]) -> bool:
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


def _above(value: float, limit: float | None) -> bool:
    return limit is not None and value > limit


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value


def _tuples(rows: Sequence[Sequence[float]]) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(row) for row in rows)
