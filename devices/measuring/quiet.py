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
MOST_TOLERANCE = 0.08
"""On a machine whose probes scatter when it is quiet, the tolerance grows with the distance of
their lowest quantiles up to this; more would take a step of the clock for noise."""
_NOISE_FACTOR = 6.0
"""For normal noise this many distances between the 5 and 10 % quantiles are 2.2 standard
deviations, which reach from the 5 % quantile beyond the median."""
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
LOWEST_OFF = 0.008
"""How far, as a share, the 10 % quantile of samples on a busy core may be from the median on a
quiet one: half a per cent below where the core was quiet now and then, a per cent above where the
caches never were. Intervals are widened by it."""
_CALM_AWAY = 0.02
"""Share of samples that may have lost the core on a machine that only scatters."""
_MOST_SKEW = 3.0
"""Ratio of the two sides of the median, to the 10 and 90 % quantiles, up to which probes scatter by
themselves. Of a hundred normal ones it is beyond 2 in one case of a hundred."""
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
        tolerance: how much slower than either a probe may be, as a share.
    """

    core: float
    first: float
    tolerance: float = TOLERANCE


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
    lowest, low = np.quantile(core, [QUIET_QUANTILE, 2 * QUIET_QUANTILE])
    noise = float(np.clip(_NOISE_FACTOR * (low / lowest - 1), TOLERANCE, MOST_TOLERANCE))
    return Level(float(lowest), float(np.quantile(first, QUIET_QUANTILE)), noise)


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
    quick = _beside(block.probes_ns, level.core, level.tolerance)
    stayed = ~_away(block, own_core)
    good = quick & stayed & _beside(block.first_probes_ns, level.first, level.tolerance)
    share = float(np.mean(good))
    if good.sum() >= max(LEAST, LEAST_SHARE * len(samples)):
        return Kept(tuple(samples[good].tolist()), UNDISTURBED, share)
    if stayed.mean() >= 1 - _CALM_AWAY and _calm(block, level):
        return Kept(tuple(samples[stayed].tolist()), UNDISTURBED, share)
    if quick.sum() < LEAST:
        return Kept((), UNDISTURBED, share)
    alone = quick & stayed
    if alone.sum() >= LEAST:
        return Kept(_lowest(samples[alone]), LOWEST, share)
    if own_core and block.processor_ns:
        processor = np.asarray(block.processor_ns) * 1e-6 / block.calls
        return Kept(_lowest(np.minimum(samples, processor)[quick]), LOWEST_PROCESSOR, share)
    return Kept((), UNDISTURBED, share)


def _calm(block: Block, level: Level) -> bool:
    """Whether the probes of a process scatter about the quiet level by themselves.

    Noise of the clock lies on both sides of the median. What others take lies on one: above it, or
    below it where they are there most of the time.
    """
    lowest = float(np.quantile(block.probes_ns, QUIET_QUANTILE))
    if lowest > level.core * (1 + TOLERANCE):
        return False
    for probes in (block.probes_ns, block.first_probes_ns):
        low, middle, high = np.quantile(probes, [0.1, 0.5, 0.9])
        if not (high - middle) / _MOST_SKEW <= middle - low <= (high - middle) * _MOST_SKEW:
            return False
    return True


def _beside(probes_ns: Sequence[int], level: float, tolerance: float) -> np.ndarray:
    """Return of which samples (n,) the probes before and after are at their quiet level."""
    quiet = np.asarray(probes_ns) <= level * (1 + tolerance)
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
