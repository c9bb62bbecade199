"""One try at a model: what its processes found, the judgement, and the measurement it becomes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from devices.measuring.conditions import frequency_pinned
from devices.measuring.judging import frequency_drop, judge_block, outside_limit, throttled_between
from devices.measuring.measurement import (
    FIGURES,
    LONGEST_MS,
    Measurement,
    Reason,
    Rejected,
    plain_json,
)
from devices.measuring.protocol import Protocol
from devices.measuring.quiet import (
    LOWEST,
    LOWEST_OFF,
    LOWEST_PROCESSOR,
    Kept,
    Level,
    shares,
    undisturbed,
)
from devices.measuring.sampling import Block, Failure
from devices.measuring.statistics import Figures, Spread, median_of, spread_of, summarise

MOST_NEEDED = 3
"""Undisturbed processes that are enough for a measurement; a protocol may ask for fewer."""
_FLOOR = 0.1


@dataclass(frozen=True)
class Attempt:
    """One try at one model: a block or a failure from each process.

    Attributes:
        level: of probes while the machine is quiet; see
            :func:`devices.measuring.quiet.quiet_level`.
        peers: how far apart the processes of the other models lie; see
            :func:`devices.measuring.statistics.interval`.
        reasons: why the attempt is rejected; empty when it is not.
    """

    outcomes: tuple[Block | Failure, ...]
    runs_on_cpu: bool
    threads: int
    protocol: Protocol
    level: Level | None = None
    peers: Spread | None = None
    reasons: tuple[Reason, ...] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "outcomes", tuple(map(_possible, self.outcomes)))
        object.__setattr__(self, "reasons", _judge(self))

    @property
    def blocks(self) -> list[Block]:
        """What the processes measured; one that failed has none."""
        return [outcome for outcome in self.outcomes if isinstance(outcome, Block)]

    @property
    def own_core(self) -> bool:
        """Whether an inference is the work of one thread on the processor."""
        return self.runs_on_cpu and self.threads == 1

    @cached_property
    def _kept(self) -> list[tuple[Block, Kept]]:
        return [(b, undisturbed(b, self.level, own_core=self.own_core)) for b in self.blocks]

    @cached_property
    def counting(self) -> list[tuple[Block, Kept]]:
        """The processes that count, each with its samples that do.

        All of them when fewer than two met a quiet machine: then there is nothing better.
        """
        quiet = [(block, kept) for block, kept in self._kept if kept.samples_ms]
        if len(quiet) >= 2:
            return quiet
        return [(block, undisturbed(block, None, own_core=self.own_core)) for block in self.blocks]

    @property
    def missing(self) -> int:
        """How many more undisturbed processes are needed."""
        quiet = sum(bool(kept.samples_ms) for _, kept in self._kept)
        if self.protocol.max_starvation is None or quiet == len(self._kept):
            return 0
        return max(0, min(MOST_NEEDED, self.protocol.processes) - quiet)

    @property
    def values_ms(self) -> list[tuple[float, ...]]:
        """The samples that count, in ms, by process."""
        return [kept.samples_ms for _, kept in self.counting]

    @property
    def samples_ms(self) -> tuple[tuple[float, ...], ...]:
        """All samples of the processes that count, in ms."""
        return tuple(block.samples_ms for block, _ in self.counting)

    @cached_property
    def spread(self) -> Spread | None:
        """How far apart the processes lie; None for fewer than two."""
        return spread_of(self.values_ms) if len(self.counting) >= 2 else None

    @cached_property
    def figures(self) -> Figures | None:
        """Median, interval and so on; None for fewer than two processes."""
        if len(self.counting) < 2:
            return None
        lowest = any(kept.which in (LOWEST, LOWEST_PROCESSOR) for _, kept in self.counting)
        return summarise(self.values_ms, peers=self.peers, systematic=LOWEST_OFF if lowest else 0.0)

    @property
    def width(self) -> float:
        """Width of the interval over the median; infinite when there is none."""
        if self.figures is None:
            return math.inf
        return (self.figures.high - self.figures.low) / self.figures.median

    @property
    def carried(self) -> tuple[Block, ...]:
        """Blocks that stay in the next attempt: the machine was quiet and the block is sound.

        None of blocks without probes: nothing but their own samples could speak for them.
        """
        return tuple(
            block
            for block, kept in self._kept
            if block.probes_ns
            and self.level is not None
            and kept.samples_ms
            and not judge_block(block, kept, self.protocol)
        )


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
        else min(attempts, key=lambda a: (-len(a.counting), len(a.reasons), a.width))
    )
    blocks = [block for block, _ in best.counting]
    numbers: dict[str, Any]
    if best.figures is not None:
        figures = best.figures
        pooled = np.concatenate([np.asarray(samples) for samples in best.values_ms])
        numbers = {
            "latency_ms": figures.median,
            "low_ms": figures.low,
            "high_ms": figures.high,
            "iqr_ms": figures.iqr,
            "p90_ms": figures.p90,
            "p99_ms": figures.p99,
            "mad_ms": figures.mad,
            "floor_ms": float(np.quantile(pooled, _FLOOR)),
            "processor_ms": _processor_ms(blocks),
        }
    else:
        numbers = dict.fromkeys(FIGURES, math.nan)
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
        rejected=_rejected(attempts, best),
        runtime=runtime,
        runtime_version=runtime_version,
        parameters=plain_json(parameters),
        protocol=best.protocol.to_json(),
        conditions=plain_json(
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
                **_quietness(best),
            }
        ),
        pinned=bool(blocks) and all(affinity) and all(map(frequency_pinned, before)),
        detail=details[0] if details else "",
        energy_mj=_median_energy(blocks),
    )


def _rejected(attempts: Sequence[Attempt], best: Attempt) -> tuple[Rejected, ...]:
    """Return the processes that do not count, by attempt; one that was carried over, once."""
    seen = {id(block) for block, _ in best.counting}
    found = []
    for attempt in [best, *(one for one in attempts if one is not best)]:
        carried = seen if attempt is best else {id(b) for b in attempt.blocks if b.probes_ns} & seen
        others = [block for block in attempt.blocks if id(block) not in carried]
        seen.update(map(id, others))
        reasons = (Reason.DISTURBED,) if attempt is best else attempt.reasons
        if others or (attempt is not best and not attempt.blocks):
            found.append(
                Rejected(
                    tuple(reason.value for reason in reasons),
                    tuple(block.samples_ms for block in others),
                )
            )
    return tuple(found)


def _quietness(best: Attempt) -> dict[str, Any]:
    """Return what is recorded of how quiet the machine was; nothing without probes."""
    blocks = [block for block, _ in best.counting]
    if best.level is None:
        return {}
    counted = [b for b in blocks if b.cycles is not None and b.instructions is not None]
    return {
        "probe_ms": best.level.core * 1e-6,
        "undisturbed": shares([kept for _, kept in best.counting]),
        "samples": [kept.which for _, kept in best.counting],
        "cycles": float(np.median([b.cycles for b in counted])) if counted else None,
        "instructions": float(np.median([b.instructions for b in counted])) if counted else None,
    }


def _processor_ms(blocks: Sequence[Block]) -> float | None:
    timed = [
        np.asarray(block.processor_ns) * 1e-6 / block.calls
        for block in blocks
        if block.processor_ns
    ]
    return float(np.median(np.concatenate(timed))) if timed else None


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


def _judge(attempt: Attempt) -> tuple[Reason, ...]:
    """Return every reason to reject the attempt, in the order of :class:`Reason`."""
    protocol = attempt.protocol
    found = {Reason(o.kind) for o in attempt.outcomes if isinstance(o, Failure)}
    counting = attempt.counting
    blocks = [block for block, _ in counting]
    for block, kept in counting:
        found |= judge_block(block, kept, protocol)
        if (
            attempt.own_core
            and not block.probes_ns
            and outside_limit(1 - block.processor_share, protocol.max_starvation)
        ):
            found.add(Reason.LOAD)
    if outside_limit(frequency_drop(blocks), protocol.max_slowdown):
        found.add(Reason.FREQUENCY_DROP)
    if throttled_between(blocks):
        found.add(Reason.THROTTLING)
    if attempt.missing:
        found.add(Reason.DISTURBED)
    if len(blocks) >= 2:
        medians = [median_of(samples) for samples in attempt.values_ms]
        # With more processes than asked for the extremes lie further apart; the interval judges.
        first = len(medians) <= protocol.processes
        if first and outside_limit(max(medians) / min(medians) - 1, protocol.max_spread):
            found.add(Reason.SPREAD)
        if outside_limit(attempt.width, protocol.max_interval):
            found.add(Reason.INTERVAL)
    return tuple(reason for reason in Reason if reason in found)
