from dataclasses import replace
from functools import lru_cache, partial

import numpy as np
import pytest

from devices.measuring.measure import measure, order
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import REFERENCE
from search_spaces.errors import InputError

FEW = Protocol(processes=3, runs=30, retries=0, pin=False)
#: As published: 5 processes of 100 runs.
FULL = Protocol(retries=0, pin=False)


def run(played, protocol=FEW, models=None, **options):
    models = models or [played.model("net")]
    return measure(models, played.runtime, protocol, sampler=played.sampler, **options)


def test_a_quiet_machine_gives_a_valid_measurement_near_the_truth(play):
    (result,) = run(play())
    assert result.valid and result.reasons == () and result.attempts == 1
    assert result.low_ms <= result.latency_ms <= result.high_ms
    assert result.latency_ms == pytest.approx(1.2, rel=0.02)
    assert [len(samples) for samples in result.samples_ms] == [30, 30, 30]
    assert result.protocol == FEW.to_json()
    assert (result.runtime, result.runtime_version) == ("played", "1")
    assert not result.pinned


def test_all_models_are_measured_in_each_process_in_orders_of_their_own(play):
    played = play()
    models = [played.model(f"m{i}", f"{1 + i}") for i in range(6)]
    results = run(played, models=models)
    assert len(played.sampler.sequences) == 3
    # Probes run, so no reference model does.
    assert all(sorted(sequence) == list(range(6)) for sequence in played.sampler.sequences)
    assert len({tuple(sequence) for sequence in played.sampler.sequences}) == 3
    for i, result in enumerate(results):
        assert result.latency_ms == pytest.approx(1.2 * (1 + i), rel=0.03)


def test_a_reference_runs_between_the_models_where_no_probe_does(play, tmp_path):
    played = play()
    models = [played.model("one"), played.model("other", "2")]
    counter = tmp_path / "energy1_input"
    counter.write_text("1")
    run(played, replace(FEW, energy_source=str(counter)), models)
    played.sampler.probes = False
    run(played, models=models)
    assert all(s[0] == s[-1] == REFERENCE for s in played.sampler.sequences)
    assert len(played.sampler.sequences) == 6


def test_order_is_seeded_and_has_the_reference_first_last_and_every_few():
    protocol = Protocol(reference_every=4)
    sequence = order(range(10), protocol, 0, 0, with_reference=True)
    assert [i for i, index in enumerate(sequence) if index == REFERENCE] == [0, 5, 10, 13]
    assert sequence == order(range(10), protocol, 0, 0, with_reference=True)
    assert sequence != order(range(10), protocol, 0, 1, with_reference=True)
    assert sequence != order(range(10), Protocol(seed=1), 0, 0, with_reference=True)
    assert REFERENCE not in order(range(3), protocol, 0, 0, with_reference=False)


def test_a_rejected_sample_is_retried_and_kept_beside_the_good_one(play):
    # Slow until 2 s after the start, which is within the second process.
    played = play(slowdown=lambda now: 1.5 if now < 0.8 else 1.0)
    (result,) = run(played, Protocol(processes=3, runs=30, retries=3, pin=False))
    assert result.valid and result.attempts == 2
    assert result.latency_ms == pytest.approx(1.2, rel=0.02)
    (rejected,) = result.rejected
    assert rejected.reasons == ("machine-never-quiet",)
    assert [len(samples) for samples in rejected.samples_ms] == [30]
    # What the machine was quiet for is kept: two processes, and two more.
    assert [len(samples) for samples in result.samples_ms] == [30] * 4


def test_after_three_retries_it_is_invalid_with_reasons_and_figures(play):
    played = play(slowdown=lambda now: 1 + 0.2 * np.sin(now))
    (result,) = run(played, Protocol(processes=3, runs=30, retries=3, pin=False))
    assert not result.valid and result.attempts == 4
    assert "machine-never-quiet" in result.reasons
    assert 0.9 < result.latency_ms < 1.6


def test_only_the_rejected_models_are_measured_again(play):
    played = play()
    models = [played.model("good"), played.model("other", "2"), played.model("glitchy")]
    infer = played.machine.infer

    def glitch(factor):
        infer(factor * (1 + 0.3 * (len(played.sampler.sequences) % 3)) if factor == 3 else factor)

    played.machine.infer = glitch
    models[2].write_text("3")
    results = run(played, Protocol(processes=3, runs=30, retries=1, pin=False), models)
    assert [result.attempts for result in results] == [1, 1, 2]
    retried = played.sampler.sequences[3:]
    assert all([i for i in sequence if i != REFERENCE] == [2] for sequence in retried)


def test_a_model_that_cannot_run_is_recorded_at_once_and_leaves_the_others(play):
    played = play()
    models = [played.model("good"), played.model("broken", "bad")]
    good, broken = run(played, Protocol(processes=3, runs=30, retries=3, pin=False), models)
    assert good.valid
    assert not broken.valid and broken.reasons == ("model-failed",) and broken.attempts == 1
    assert np.isnan(broken.latency_ms) and "cannot be loaded" in broken.detail


def test_outputs_that_are_not_finite_are_reported(play):
    played = play()
    (result,) = run(played, models=[played.model("net", "1.0 -inf")])
    assert result.reasons == ("output-not-finite",)


def test_a_missing_file_is_named_before_anything_is_measured(play, tmp_path):
    played = play()
    with pytest.raises(InputError, match="absent"):
        run(played, models=[played.model("net"), tmp_path / "absent"])
    assert played.sampler.sequences == []


def test_drift_of_the_reference_model_is_seen_between_models(play):
    # The machine slows by a tenth between models, never within one.
    played = play()
    models = [played.model(f"m{i}", f"{1 + i}") for i in range(4)]
    load = played.runtime.load

    def load_and_slow(path):
        count = len(played.runtime.loaded)
        played.machine.slowdown = lambda now: 1 + 0.1 * (count % 6)
        return load(path)

    played.runtime.load = load_and_slow
    results = run(played, models=models)
    assert all("machine-never-quiet" in result.reasons for result in results)


def throttled(rng, seconds, *, visible):
    """A machine that loses 10 to 40 % of its clock from some moment of the measurement on."""
    # After the start, pause and warm-up of the first process, before the last one's end.
    start, factor = rng.uniform(0.8, 2.3), rng.uniform(0.6, 0.9)

    def files(path, now):
        if visible and path.endswith("cpu0/cpufreq/scaling_cur_freq"):
            return str(int(1_500_000 * (factor if now >= start else 1)))
        return None

    return {"slowdown": lambda now: 1 / factor if now >= start else 1.0, "files": files}


def preempted(rng, seconds):
    """Somebody else takes 20 to 60 % of the core, in slices of the scheduler."""
    share = rng.uniform(0.2, 0.6)
    slice_ms = rng.uniform(2, 8)
    chance = share / (1 - share) * 1.2 / slice_ms
    return {"preempt": lambda now: slice_ms if rng.random() < chance else 0.0}


def crowded(rng, seconds):
    """A neighbour fills the shared cache in bursts: 1.3 to 2 times slower, 20-70 % of the time."""
    share, factor = rng.uniform(0.2, 0.7), rng.uniform(1.3, 2.0)
    period = rng.uniform(0.005, 0.06)
    return {"slowdown": lambda now: factor if (now / period) % 1 < share else 1.0}


def cycling(rng, seconds):
    """A thermal governor in turns of 0.1 to 1 s, as long as a process of the protocol too."""
    period, share, factor = rng.uniform(0.1, 1.0), rng.uniform(0.3, 0.7), rng.uniform(1.15, 1.6)
    return {"slowdown": lambda now: factor if (now / period) % 1 < share else 1.0}


def outcomes(play, count, disturb, protocol=FULL):
    """Return measurements of a model of 1.2 ms on machines that are disturbed in many ways."""
    rng = np.random.default_rng(11)
    quiet = play()
    run(quiet, protocol)
    seconds = quiet.machine.wall * 1e-9
    return [run(play(seed=seed, **disturb(rng, seconds)), protocol)[0] for seed in range(count)]


DISTURBANCES = {
    "throttled": lambda rng, seconds: throttled(rng, seconds, visible=True),
    "throttled-unseen": lambda rng, seconds: throttled(rng, seconds, visible=False),
    "preempted": preempted,
    "crowded": crowded,
    "cycling": cycling,
}


@pytest.fixture(scope="module")
def disturbed(play_in, tmp_path_factory):
    """Sixty outcomes of a disturbance by its name, measured when they are first asked for."""
    play = partial(play_in, tmp_path_factory.mktemp("disturbed"))
    return lru_cache(lambda name: outcomes(play, 60, DISTURBANCES[name]))


def wrong(result):
    return result.valid and abs(result.latency_ms / 1.2 - 1) > 0.05


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTURBANCES)
def test_a_disturbed_measurement_is_rejected_or_right(disturbed, name):
    assert np.mean([wrong(result) for result in disturbed(name)]) <= 0.05


def test_a_shared_core_still_gives_the_latency(disturbed):
    results = disturbed("preempted")
    assert np.mean([r.valid and not wrong(r) for r in results]) >= 0.9


def test_a_model_longer_than_a_time_slice_is_timed_by_the_processor(play):
    def shared(rng, seconds):
        return {"preempt": lambda now: 3.0, "base_ms": 12.0}

    protocol = Protocol(processes=3, runs=20, retries=0, pin=False)
    (result,) = outcomes(play, 1, shared, protocol)
    assert result.valid and result.conditions["samples"] == ["lowest-processor"] * 3
    assert result.latency_ms == pytest.approx(12.0, rel=0.02)


def test_quiet_measurements_are_kept(play):
    results = outcomes(play, 100, lambda rng, seconds: {})
    assert np.mean([not result.valid for result in results]) <= 0.02


@pytest.mark.slow
def test_the_95_percent_interval_of_whole_measurements_covers_the_truth(play):
    results = [run(play(seed=seed), FEW)[0] for seed in range(150)]
    covered = np.mean([result.low_ms <= 1.2 <= result.high_ms for result in results])
    assert 0.90 <= covered <= 0.99  # five standard errors of 150 tries around 0.95
