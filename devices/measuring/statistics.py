"""Figures of samples that come in processes, and an interval honest about both levels.

Runs within one process share its memory layout, core and clock, so they are alike;
another process of the same model may sit a few per cent away for its whole life (Kalibera
and Jones, "Rigorous benchmarking in reasonable time", ISMM 2013). An interval from the
pooled runs forgets this: with 3 processes of 30 runs and equal variance on both levels it
covers the true latency in about a fifth of the cases.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from search_spaces.errors import InputError


@dataclass(frozen=True)
class Figures:
    """What is reported of one measurement, in the unit of its samples."""

    median: float
    low: float
    high: float
    iqr: float
    p90: float
    p99: float
    mad: float


@dataclass(frozen=True)
class Spread:
    """How far apart processes of one model lie.

    Attributes:
        variance: of the logarithms of their medians.
        freedom: its degrees of freedom; 0 when nothing is known.
    """

    variance: float
    freedom: int


def spread_of(processes: Sequence[Sequence[float]]) -> Spread:
    """Return the spread of the medians of at least two processes."""
    logs = np.log([median_of(samples) for samples in processes])
    return Spread(float(np.var(logs, ddof=1)), len(logs) - 1)


def median_of(samples: Sequence[float] | np.ndarray) -> float:
    """Return the median of at least one sample (n,); NaN if any is.

    As ``np.median``, whose time for tens of samples is nearly all preparation; a measurement
    takes hundreds of such medians, on boards too.
    """
    ordered = np.sort(np.asarray(samples, dtype=float))
    # NaN is sorted to the end.
    if math.isnan(ordered[-1]):
        return math.nan
    high = ordered.item(len(ordered) // 2)
    return high if len(ordered) % 2 else (ordered.item(len(ordered) // 2 - 1) + high) / 2


def pooled(spreads: Sequence[Spread]) -> Spread:
    """Return the common spread of several models."""
    freedom = sum(one.freedom for one in spreads)
    if not freedom:
        return Spread(0.0, 0)
    return Spread(sum(one.variance * one.freedom for one in spreads) / freedom, freedom)


def summarise(
    processes: Sequence[Sequence[float]],
    *,
    level: float = 0.95,
    peers: Spread | None = None,
    systematic: float = 0.0,
) -> Figures:
    """Return median, interval and spread of the samples of all processes.

    The interval is :func:`interval` of the process medians, widened to hold the pooled
    median should that lie outside (possible only with many unequal processes).

    Args:
        processes: one sequence of positive samples for each of at least two processes.
        level: coverage of the interval.
        peers: of the models measured beside it in the same processes.
        systematic: half width, as a share, of what the samples may be off together; the
            interval's own half width and this are added as squares.
    """
    medians = np.array([median_of(samples) for samples in processes])
    ends = interval(medians, level=level, peers=peers)
    low, high = float(ends[0]), float(ends[1])
    half = math.hypot(math.log(high / low) / 2, systematic)
    centre = math.sqrt(low * high)
    low, high = centre * math.exp(-half), centre * math.exp(half)
    every = np.concatenate([np.asarray(samples, dtype=float) for samples in processes])
    median = median_of(every)
    quarter, three, p90, p99 = np.quantile(every, [0.25, 0.75, 0.9, 0.99])
    return Figures(
        median=median,
        low=min(low, median),
        high=max(high, median),
        iqr=float(three - quarter),
        p90=float(p90),
        p99=float(p99),
        mad=median_of(np.abs(every - median)),
    )


PEERS = 4
"""Degrees of freedom at most that the models measured beside it lend to a model's variance. Models
differ in how much their memory layout matters; were they alike, all could be lent. Simulated with
the standard deviations of models a factor of 1.8 apart (one sigma), 95 % intervals of 2 to 5
processes and 2 to 8 models cover .93 to .97."""
_TYPICAL = 1e-4
"""Variance lent to a model alone with only two processes: 1 % from one process to the next."""
_LEAST_FREEDOM = 2


def interval(
    medians: np.ndarray, *, level: float = 0.95, peers: Spread | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends of the interval for the latency of a typical process.

    Student's t over the logarithms of the process medians. The processes are the
    independent repetitions, so their medians carry the variance between processes and
    what is left of the variance within them; no variance component is estimated apart,
    which 3 or 5 processes would not allow. Logarithms, because disturbances of a latency
    multiply. Exact when the log medians are normal, which the medians of tens of runs
    approach whatever the distribution of a run. A bootstrap over processes (27 distinct
    resamples of 3) covers only about 75 to 85 %.

    With two processes t has one degree of freedom, and an interval 9 times as wide as their
    distance. What is known of the models measured beside it in the same processes narrows it:
    variances are moderated as by Smyth, "Linear models and empirical Bayes methods",
    Stat. Appl. Genet. Mol. Biol. 3(1), 2004, equations 3 and 4: s~^2 = (d0 s0^2 + d s^2) /
    (d0 + d), with d0 + d degrees of freedom. Here d0 is at most :data:`PEERS`. A model that
    is alone is lent a typical spread, and only as much of it as makes 2 degrees of freedom.

    Args:
        medians: (..., processes) positive process medians; leading axes are separate
            measurements.
        level: coverage.
        peers: of the other models; None or without freedom when there are none.

    Returns:
        low, high: (...) the ends.

    Raises:
        InputError: fewer than two processes, which show no variance between them.
    """
    logs = np.log(np.asarray(medians, dtype=float))
    count = logs.shape[-1]
    if count < 2:
        raise InputError("an interval needs at least 2 processes; raise processes in the protocol")
    centre = logs.mean(axis=-1)
    own = count - 1
    lent = min(peers.freedom, PEERS) if peers is not None else 0
    weight = lent * peers.variance if peers is not None else 0.0
    typical = max(0, _LEAST_FREEDOM - own - lent)
    freedom = own + lent + typical
    variance = own * logs.var(axis=-1, ddof=1) + weight + typical * _TYPICAL
    deviation = np.sqrt(variance / freedom)
    half = student_t(0.5 + level / 2, freedom) * deviation / math.sqrt(count)
    return np.exp(centre - half), np.exp(centre + half)


@lru_cache
def student_t(probability: float, freedom: int) -> float:
    """Return the quantile of Student's t for a whole number of degrees of freedom.

    By bisection of the closed form of the distribution function (Abramowitz and Stegun,
    26.7.3 and 26.7.4), so that a board needs no SciPy. All intervals of a protocol need the same
    few, so they are kept.
    """
    if not 0.5 <= probability < 1 or freedom < 1:
        raise ValueError(f"no quantile for probability {probability}, freedom {freedom}")
    low, high = 0.0, 1.0
    while _student_cdf(high, freedom) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        if _student_cdf(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _student_cdf(t: float, freedom: int) -> float:
    angle = math.atan(t / math.sqrt(freedom))
    cosine = math.cos(angle)
    if freedom % 2:
        term, total = cosine, 0.0
        for k in range(3, freedom + 1, 2):
            total += term
            term *= cosine * cosine * (k - 1) / k
        inside = 2 / math.pi * (angle + math.sin(angle) * total)
    else:
        term, total = 1.0, 0.0
        for k in range(2, freedom + 1, 2):
            total += term
            term *= cosine * cosine * (k - 1) / k
        inside = math.sin(angle) * total
    return 0.5 + inside / 2
