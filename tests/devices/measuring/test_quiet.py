from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from devices.measuring.quiet import (
    EVERY,
    LOWEST,
    LOWEST_PROCESSOR,
    MOST_TOLERANCE,
    UNDISTURBED,
    Level,
    quiet_level,
    steady_median,
    undisturbed,
)
from devices.measuring.sampling import Block

RUNS = 100
MS = 1_000_000
PROBE = 50_000


def block(rng, *, ms=1.0, noise=0.005, slow=None, away=None, cold=None, probes=True):
    """A process of ``RUNS`` samples of ``ms`` on a machine that is disturbed as the arrays say.

    Args:
        slow: (runs,) factor of the core's speed around each sample, which probes see.
        away: (runs,) ms during which somebody else had the core within the sample.
        cold: (runs,) factor of a sample whose caches somebody else had filled before; the first
            probe before it sees that.
    """
    ones, none = np.ones(RUNS), np.zeros(RUNS)
    slow, cold = (ones if one is None else np.asarray(one) for one in (slow, cold))
    away = none if away is None else np.asarray(away)
    busy = ms * slow * cold * np.exp(rng.normal(0, noise, RUNS))

    def seen(factor):
        before = np.append(factor, factor[-1])
        return tuple((PROBE * before * np.exp(rng.normal(0, 0.004, RUNS + 1))).astype(int))

    return Block(
        calls=1,
        samples_ns=tuple(((busy + away) * MS).astype(int)),
        settled=True,
        finite=True,
        processor_share=1.0,
        processor_ns=tuple((busy * MS).astype(int)),
        probes_ns=seen(slow) if probes else (),
        first_probes_ns=seen(slow * cold) if probes else (),
    )


def judged(one, others=()):
    return undisturbed(one, quiet_level([one, *others], [one, *others]), own_core=True)


def test_on_a_quiet_machine_the_median_counts():
    kept = judged(block(np.random.default_rng(0)))
    assert kept.which == UNDISTURBED and kept.share > 0.9
    assert np.median(kept.samples_ms) == pytest.approx(1.0, abs=0.003)


def test_a_machine_that_scatters_when_it_is_quiet_is_not_called_busy():
    rng = np.random.default_rng(0)

    def scattered(one):
        noisy = np.exp(rng.normal(0, 0.05, (2, RUNS + 1))) * PROBE
        return replace(
            one, probes_ns=tuple(noisy[0].astype(int)), first_probes_ns=tuple(noisy[1].astype(int))
        )

    one, other = (scattered(block(rng, noise=0.05)) for _ in range(2))
    kept = judged(one, [other])
    assert kept.which == UNDISTURBED and np.median(kept.samples_ms) == pytest.approx(1, abs=0.02)
    # The same core slowed by a tenth all the time does not hide in the scatter.
    slow = tuple(round(1.1 * n) for n in one.probes_ns)
    slowed = replace(one, probes_ns=slow)
    level = quiet_level([one, other], [one])
    assert undisturbed(slowed, level, own_core=True).samples_ms == ()
    assert quiet_level([one], [one]).tolerance == MOST_TOLERANCE


def test_without_probes_every_sample_counts():
    one = block(np.random.default_rng(0), probes=False)
    assert quiet_level([one], [one]) is None
    assert judged(one) == undisturbed(one, Level(1.0, 1.0), own_core=True)
    assert judged(one).which == EVERY and judged(one).samples_ms == one.samples_ms


disturbances = st.fixed_dictionaries(
    {
        "seed": st.integers(0, 2**31),
        "ms": st.sampled_from([1.0, 2.0, 7.0, 40.0]),
        "slow_share": st.floats(0, 0.7),
        "slow_factor": st.floats(1.1, 2.5),
        "away_share": st.floats(0, 0.8),
        "away_ms": st.floats(0.5, 30),
        "cold_share": st.floats(0, 0.8),
        "cold_factor": st.floats(1.05, 2.0),
    }
)


@settings(deadline=None, max_examples=150)
@given(disturbances)
def test_whatever_disturbs_some_of_the_samples_the_quiet_latency_is_found(how):
    """Steal bursts, steps of the clock and competitors, alone and together."""
    rng = np.random.default_rng(how["seed"])

    def burst(share, value, otherwise):
        start = rng.integers(0, RUNS)
        inside = (np.arange(RUNS) - start) % RUNS < share * RUNS
        return np.where(inside, value, otherwise)

    def scattered(share, value, otherwise):
        return np.where(rng.random(RUNS) < share, value, otherwise)

    one = block(
        rng,
        ms=how["ms"],
        slow=burst(how["slow_share"], how["slow_factor"], 1.0),
        away=scattered(how["away_share"], how["away_ms"], 0.0),
        cold=scattered(how["cold_share"], how["cold_factor"], 1.0),
    )
    quiet = [block(rng, ms=how["ms"]) for _ in range(2)]
    kept = judged(one, quiet)
    if kept.samples_ms:
        assert np.median(kept.samples_ms) == pytest.approx(how["ms"], rel=0.05)
    else:
        # A core that was slowed nearly all the time is no measurement, and is said to be none.
        assert how["slow_share"] > 0.5


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(1.05, 3.0))
def test_a_core_that_is_slow_all_the_time_does_not_count(seed, factor):
    rng = np.random.default_rng(seed)
    slow = block(rng, slow=np.full(RUNS, factor))
    assert judged(slow, [block(rng) for _ in range(2)]).samples_ms == ()


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 2**31), st.floats(0.5, 2.0))
def test_a_sample_is_not_judged_by_its_own_duration(seed, factor):
    rng = np.random.default_rng(seed)
    one = block(rng)
    # No two samples alike, so that each is known by its duration.
    one = replace(one, samples_ns=tuple(n // 1000 * 1000 + i for i, n in enumerate(one.samples_ns)))
    kept = judged(one)
    places = [one.samples_ms.index(ms) for ms in kept.samples_ms]
    samples = list(one.samples_ns)
    used = list(one.processor_ns)
    for place in range(0, RUNS, 3):
        samples[place] = round(samples[place] * factor)
        used[place] = round(used[place] * factor)
    other = judged(replace(one, samples_ns=tuple(samples), processor_ns=tuple(used)))
    assert other.samples_ms == tuple(samples[place] * 1e-6 for place in places)


def test_a_loaded_core_is_timed_by_its_fastest_samples():
    rng = np.random.default_rng(0)
    away = np.where(np.arange(RUNS) % 2, 3.0, 0.0)
    cold = 1 + 0.2 * rng.random(RUNS)
    kept = judged(block(rng, away=away, cold=cold), [block(rng)])
    assert kept.which == LOWEST and np.median(kept.samples_ms) == pytest.approx(1.02, abs=0.02)
    assert len(kept.samples_ms) == 10


def test_a_sample_longer_than_a_time_slice_is_timed_by_the_processor():
    rng = np.random.default_rng(0)
    kept = judged(block(rng, ms=40.0, away=np.full(RUNS, 60.0)))
    assert kept.which == LOWEST_PROCESSOR
    assert np.median(kept.samples_ms) == pytest.approx(40.0, rel=0.02)


def test_threads_that_waited_for_a_core_do_not_count():
    rng = np.random.default_rng(0)
    one = replace(block(rng, away=np.full(RUNS, 3.0)), processor_ns=(), waited_ns=(3 * MS,) * RUNS)
    assert undisturbed(one, Level(PROBE, PROBE), own_core=False).samples_ms == ()


def test_the_reference_is_seen_through_what_others_took():
    rng = np.random.default_rng(0)
    away = np.where(np.arange(RUNS) < 70, 5.0, 0.0)
    assert steady_median(block(rng, away=away), own_core=True) == pytest.approx(1, abs=0.01)
    always = block(rng, away=np.full(RUNS, 5.0))
    assert steady_median(always, own_core=True) == pytest.approx(1, abs=0.01)
    assert steady_median(replace(always, processor_ns=()), own_core=True) > 5
