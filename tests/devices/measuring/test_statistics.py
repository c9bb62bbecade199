import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from devices.measuring.statistics import (
    Spread,
    interval,
    median_of,
    pooled,
    spread_of,
    student_t,
    summarise,
)
from search_spaces.errors import InputError


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 9, 10, 30])
@pytest.mark.parametrize("probability", [0.6, 0.9, 0.975, 0.995])
def test_student_t_equals_scipy(freedom, probability):
    stats = pytest.importorskip("scipy.stats")
    expected = stats.t.ppf(probability, freedom)
    assert student_t(probability, freedom) == pytest.approx(expected, rel=1e-9)


def hierarchical(rng, replicates, processes, runs, *, between, within, kind):
    """Samples (replicates, processes, runs) of a device whose typical latency is 1."""
    effect = np.exp(rng.normal(0, between, (replicates, processes, 1)))
    if kind == "normal":
        noise = np.exp(rng.normal(0, within, (replicates, processes, runs)))
    elif kind == "skewed":  # a floor and an exponential tail, median 1
        raw = rng.exponential(within, (replicates, processes, runs))
        noise = 1 + raw - within * np.log(2)
    else:  # a tenth of the runs disturbed by up to three times the latency
        noise = np.exp(rng.normal(0, within, (replicates, processes, runs)))
        noise *= np.where(rng.random(noise.shape) < 0.1, 1 + 2 * rng.random(noise.shape), 1)
    return effect * noise


@pytest.mark.parametrize("kind", ["normal", "skewed"])
@pytest.mark.parametrize("between, within", [(0.02, 0.02), (0.02, 0.1), (0.0, 0.05), (0.1, 0.01)])
@pytest.mark.parametrize("processes, runs", [(3, 30), (5, 30), (5, 100)])
def test_interval_covers_the_typical_latency(kind, between, within, processes, runs):
    rng = np.random.default_rng(7)
    samples = hierarchical(rng, 4000, processes, runs, between=between, within=within, kind=kind)
    low, high = interval(np.median(samples, axis=-1))
    covered = np.mean((low <= 1) & (high >= 1))
    assert 0.93 <= covered <= 0.97


def test_pooling_the_runs_would_not_cover():
    # Why the interval is built on processes: the order statistics of the pooled runs.
    rng = np.random.default_rng(7)
    samples = hierarchical(rng, 2000, 3, 30, between=0.02, within=0.02, kind="normal")
    pooled = np.sort(samples.reshape(2000, -1), axis=-1)
    covered = np.mean((pooled[:, 35] <= 1) & (pooled[:, 54] >= 1))
    assert covered < 0.6


def test_disturbed_runs_shift_the_interval_by_less_than_the_tolerance():
    rng = np.random.default_rng(7)
    samples = hierarchical(rng, 500, 5, 100, between=0.01, within=0.02, kind="disturbed")
    low, high = interval(np.median(samples, axis=-1))
    assert np.median((low + high) / 2) == pytest.approx(1, abs=0.01)


positive = st.floats(1e-3, 1e4)


@given(st.lists(st.lists(positive, min_size=2, max_size=20), min_size=2, max_size=12))
def test_figures_are_ordered_and_scale_with_the_unit(processes):
    figures = summarise(processes)
    assert figures.low <= figures.median <= figures.high
    assert figures.median <= figures.p90 <= figures.p99
    assert figures.iqr >= 0 and figures.mad >= 0
    scaled = summarise([[8 * sample for sample in samples] for samples in processes])
    for name in ("median", "low", "high", "p90", "p99", "iqr", "mad"):
        assert getattr(scaled, name) == pytest.approx(8 * getattr(figures, name), rel=1e-9)


def test_figures_of_known_samples():
    figures = summarise([[1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [2.0]])
    assert (figures.median, figures.low, figures.high) == (2.0, 2.0, 2.0)
    assert figures.mad == 1.0


@given(st.lists(st.floats(1e-3, 1e6) | st.just(math.nan), min_size=1, max_size=40))
def test_the_median_is_numpys(samples):
    for given_as in (samples, tuple(samples), np.array(samples)):
        assert np.array_equal(median_of(given_as), np.median(samples), equal_nan=True)


def test_one_process_has_no_interval():
    with pytest.raises(InputError, match="at least 2 processes"):
        interval(np.array([1.0]))


@pytest.mark.parametrize("processes", [2, 3, 5])
@pytest.mark.parametrize("models", [2, 4, 8])
@pytest.mark.parametrize("apart", [0.0, 0.6])
def test_variances_lent_by_neighbours_leave_the_coverage(processes, models, apart):
    rng = np.random.default_rng(5)
    covered = []
    for _ in range(400):
        deviations = 0.006 * np.exp(rng.normal(0, apart, models))
        medians = np.exp(rng.normal(0, 1, (models, processes)) * deviations[:, None])
        spreads = [spread_of([[m] for m in row]) for row in medians]
        for j, row in enumerate(medians):
            peers = pooled([one for i, one in enumerate(spreads) if i != j])
            low, high = interval(row, peers=peers)
            covered.append(low <= 1 <= high)
    assert 0.915 <= np.mean(covered) <= 0.985


def test_two_processes_get_no_interval_of_three_decades():
    # Student's t with one degree of freedom makes 0.0015 to 9600 of these.
    wild = np.array([1.0, 14.0])
    alone = interval(wild)
    assert alone[0] > 1e-5
    among = interval(np.array([1.0, 1.02]), peers=Spread(0.01**2, 7))
    assert among[0] > 0.97 and among[1] < 1.05
    # Four processes and more speak for themselves.
    many = np.array([1.0, 1.01, 0.99, 1.02, 1.0])
    assert interval(many) == interval(many, peers=Spread(0.0, 0))


def test_nothing_is_pooled_of_nobody():
    assert pooled([]) == Spread(0.0, 0)


def test_what_all_samples_may_be_off_together_widens_the_interval():
    samples = [[1.0, 1.01], [1.0, 0.99], [1.01, 1.0]]
    plain, wide = summarise(samples), summarise(samples, systematic=0.01)
    assert wide.low < plain.low and wide.high > plain.high and wide.median == plain.median
    half = np.log([plain.high / plain.low, wide.high / wide.low]) / 2
    assert half[1] == pytest.approx(np.hypot(half[0], 0.01))
