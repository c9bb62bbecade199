"""Which samples say what a model takes on a quiet machine.

Two questions, both answered without looking at the duration of the sample in question:

- *How fast was the core?* The probes beside a sample must be as fast as they ever are in this
  measurement. A lower clock or a neighbour on the same physical core slows them. A process that
  never met a quick core does not count.
- *Was the core the sample's own?* Nobody else had it during the sample, nor right before it,
  which the first run of a probe shows by the caches that it finds.

Where enough samples pass both, they count, and their median is the latency. On a loaded core few
do; then the low quantile stands for them: interference adds to a duration and never takes away,
so what the fastest tenth of the samples took is what the model takes, within a per cent or two.
Of a model that lasts longer than a time slice this is the quantile of processor time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from devices.measuring.sampling import Block

TOLERANCE = 0.03
"""How much slower than its quiet level a probe may be. On a quiet core 92 % of single probes lie
within 3 % of their 5 % quantile; a lower step of the clock or a neighbour costs more."""
QUIET_QUANTILE = 0.05
"""Quantile of the probes that is taken for the quiet level. Interference cannot raise it unless it
is there nearly all the time."""
LEAST = 5
"""Samples that a process must have to say anything."""
LEAST_SHARE = 0.2
"""Share of a process's samples that must be undisturbed for their median to be taken."""
LOWEST_SHARE = 0.2
"""Share of the fastest samples that stand for the quiet ones on a loaded core. Their median is
the 10 % quantile."""
_AWAY_SHARE, _AWAY_NS = 0.02, 20_000
"""A sample whose wall time exceeds its processor time by more than both lost the core."""

UNDISTURBED, LOWEST, LOWEST_PROCESSOR, EVERY = "undisturbed", "lowest", "lowest-processor", "every"
"""Which samples stand: see the top; ``EVERY`` where no probe ran."""


@dataclass(frozen=True)
class Level:
    """How long probes take while the machine is quiet, ns.

    Attributes:
        core: with their own data in the caches; the same beside every model.
        first: the run before that, beside one model.
    """

    core: float
    first: float


@dataclass(frozen=True)
class Kept:
    """What of a block counts.

    Attributes:
        samples_ms: latency of one inference in each sample that counts; empty where the core
            was never quick.
        which: ``UNDISTURBED``, ``LOWEST``, ``LOWEST_PROCESSOR`` or ``EVERY``.
        share: of the block's samples that were undisturbed.
    """

    samples_ms: tuple[float, ...]
    which: str
    share: float


def quiet_level(every: Iterable[Block], own: Iterable[Block]) -> Level | None:
    """Return how long probes take while the machine is quiet.

    Args:
        every: blocks of one measurement, whatever their models; the more, the likelier it is that
            some of them met a quiet moment.
        own: those of one model.

    Returns:
        5 % quantiles; None without probes.
    """
    core = [duration for block in every for duration in block.probes_ns]
    first = [duration for block in own for duration in block.first_probes_ns]
    if not core or not first:
        return None
    return Level(
        float(np.quantile(core, QUIET_QUANTILE)), float(np.quantile(first, QUIET_QUANTILE))
    )


def undisturbed(block: Block, level: Level | None, *, own_core: bool) -> Kept:
    """Return the samples of a block that count.

    Args:
        block: of one process.
        level: of :func:`quiet_level`; with None, or without probes, all samples count.
        own_core: whether an inference is the work of one thread on the processor, so that its
            processor time is its wall time but for what others took.
    """
    if level is None or not block.probes_ns:
        return Kept(block.samples_ms, EVERY, 1.0)
    samples = np.asarray(block.samples_ms)
    quick = _beside(block.probes_ns, level.core)
    stayed = ~_away(block, own_core)
    good = quick & stayed & _beside(block.first_probes_ns, level.first)
    share = float(np.mean(good))
    if good.sum() >= max(LEAST, LEAST_SHARE * len(samples)):
        return Kept(tuple(samples[good].tolist()), UNDISTURBED, share)
    if quick.sum() < LEAST:
        return Kept((), UNDISTURBED, share)
    alone = quick & stayed
    if alone.sum() >= LEAST:
        return Kept(_lowest(samples[alone]), LOWEST, share)
    if own_core and block.processor_ns:
        processor = np.asarray(block.processor_ns) * 1e-6 / block.calls
        return Kept(_lowest(np.minimum(samples, processor)[quick]), LOWEST_PROCESSOR, share)
    return Kept((), UNDISTURBED, share)


def _beside(probes_ns: Sequence[int], level: float) -> np.ndarray:
    """Return of which samples (n,) the probes before and after are at their quiet level."""
    quiet = np.asarray(probes_ns) <= level * (1 + TOLERANCE)
    return quiet[:-1] & quiet[1:]


def _lowest(samples: np.ndarray) -> tuple[float, ...]:
    """Return the fastest samples in the order in which they were taken."""
    count = max(3, round(LOWEST_SHARE * len(samples)))
    places = np.sort(np.argsort(samples, kind="stable")[:count])
    return tuple(samples[places].tolist())


def _away(block: Block, own_core: bool) -> np.ndarray:
    """Return which samples (n,) lost a core to somebody else for a while."""
    samples = np.asarray(block.samples_ns, dtype=float)
    limit = np.maximum(_AWAY_SHARE * samples, _AWAY_NS)
    if own_core and block.processor_ns:
        return samples - np.asarray(block.processor_ns, dtype=float) > limit
    if block.waited_ns:
        return np.asarray(block.waited_ns, dtype=float) > limit
    return np.zeros(len(samples), dtype=bool)


def steady_median(block: Block, *, own_core: bool) -> float:
    """Return the median latency of a block in ms, without the samples that lost the core."""
    samples = np.asarray(block.samples_ms)
    stayed = ~_away(block, own_core)
    if stayed.sum() >= LEAST:
        return float(np.median(samples[stayed]))
    if own_core and block.processor_ns:
        return float(np.median(np.asarray(block.processor_ns) * 1e-6 / block.calls))
    return float(np.median(samples))


def shares(kept: Sequence[Kept]) -> list[float]:
    """Return the share of undisturbed samples of each process, for the record."""
    return [round(one.share, 4) for one in kept]
