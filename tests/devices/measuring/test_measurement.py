import json
import math
from dataclasses import replace

import pytest

from devices.measuring.measurement import Attempt, Measurement, Reason, conclude, plausible
from devices.measuring.protocol import Protocol
from devices.measuring.sampling import Block, Failure

QUIET = Block(
    calls=1,
    samples_ns=tuple(1_000_000 + 1000 * (i % 7) for i in range(40)),
    settled=True,
    finite=True,
    processor_share=1.0,
    before={"frequency_mhz": 1500.0, "throttle_count": 3.0, "temperature_c": 50.0},
    after={"frequency_mhz": 1500.0, "throttle_count": 3.0, "temperature_c": 60.0},
)


def attempt(*outcomes, protocol=None, runs_on_cpu=True, threads=1):
    return Attempt(
        outcomes=outcomes,
        runs_on_cpu=runs_on_cpu,
        threads=threads,
        protocol=protocol or Protocol(processes=3),
    )


def finish(*attempts):
    return conclude(attempts, runtime="r", runtime_version="1", parameters={}, machine={})


def scaled(block, factor, start=0):
    samples = [round(n * factor) if i >= start else n for i, n in enumerate(block.samples_ns)]
    return replace(block, samples_ns=tuple(samples))


def after(**changes):
    return replace(QUIET, after={**QUIET.after, **changes})


CASES = [
    (after(throttle_count=4.0), Reason.THROTTLING),
    (after(frequency_mhz=1400.0), Reason.FREQUENCY_DROP),
    (scaled(QUIET, 1.04, start=20), Reason.DRIFT),
    (replace(QUIET, reference_ms=(1.0, 1.06)), Reason.REFERENCE_DRIFT),
    (scaled(QUIET, 1.06), Reason.SPREAD),
    (scaled(QUIET, 1.03), Reason.INTERVAL),
    (scaled(QUIET, 2.0, start=34), Reason.LOAD),
    (replace(QUIET, processor_share=0.9), Reason.LOAD),
    (
        replace(QUIET, samples_ns=tuple(1_000_000 + 200_000 * (i % 2) for i in range(40))),
        Reason.SCATTERED,
    ),
    (replace(QUIET, settled=False), Reason.UNSETTLED),
    (replace(QUIET, finite=False), Reason.NON_FINITE),
    (Failure("process-crashed", "killed by SIGSEGV"), Reason.CRASHED),
    (Failure("deadline-passed", "not done within 1 s"), Reason.DEADLINE),
    (Failure("memory-limit", "bad_alloc"), Reason.MEMORY),
    (Failure("model-failed", "no kernel"), Reason.FAILED),
    (scaled(QUIET, 0.0, start=39), Reason.IMPOSSIBLE),
]


@pytest.mark.parametrize("outcome, reason", CASES, ids=[reason.value for _, reason in CASES])
def test_each_reason_is_found(outcome, reason):
    assert reason in attempt(QUIET, QUIET, outcome).reasons


def test_every_reason_has_a_case():
    assert {reason for _, reason in CASES} == set(Reason)


def test_throttling_between_two_processes_is_found():
    state = {**QUIET.before, "throttle_count": 4.0}
    later = replace(QUIET, before=state, after=state)
    assert attempt(QUIET, QUIET, later).reasons == (Reason.THROTTLING,)
    # Other cores have counters of their own.
    elsewhere = replace(later, cores=(3,))
    assert attempt(QUIET, QUIET, elsewhere).reasons == ()


def test_energy_is_the_median_of_the_processes_or_unknown():
    blocks = [replace(QUIET, energy_mj=e) for e in (1.0, 9.0, 2.0)]
    assert finish(attempt(*blocks)).energy_mj == 2.0
    assert finish(attempt(*blocks[:2], QUIET)).energy_mj is None


def test_doubts_and_arithmetic_are_kept():
    block = replace(QUIET, arithmetic={"int8": 3}, doubts=("saturates",))
    found = finish(attempt(block, block))
    assert found.conditions["doubts"] == ["saturates"]
    assert found.conditions["arithmetic"] == {"int8": 3}


def test_nothing_is_found_in_quiet_samples():
    assert attempt(QUIET, scaled(QUIET, 1.005), QUIET).reasons == ()


def test_limits_belong_to_the_job():
    noisy = (QUIET, scaled(QUIET, 1.06), scaled(QUIET, 1.04, start=20))
    assert attempt(*noisy).reasons
    tolerant = Protocol(processes=3, max_interval=0.3, max_spread=0.1, max_drift=None)
    assert attempt(*noisy, protocol=tolerant).reasons == ()


def test_a_hot_zone_counts_only_against_a_limit_that_was_set():
    hot = after(temperature_c=95.0)
    assert attempt(QUIET, QUIET, hot).reasons == ()
    limited = Protocol(processes=3, max_temperature_c=85.0)
    assert attempt(QUIET, QUIET, hot, protocol=limited).reasons == (Reason.THROTTLING,)


def test_waiting_for_an_accelerator_is_not_background_load():
    waiting = replace(QUIET, processor_share=0.1)
    assert attempt(waiting, waiting, runs_on_cpu=False).reasons == ()
    assert attempt(waiting, waiting, threads=2).reasons == ()


def test_an_invalid_measurement_shows_its_best_attempt():
    bad = attempt(QUIET, scaled(QUIET, 2.0), scaled(QUIET, 1.5, start=20))
    better = attempt(QUIET, QUIET, scaled(QUIET, 1.04, start=20))
    result = finish(better, bad)
    assert not result.valid and result.attempts == 2
    assert result.reasons == tuple(reason.value for reason in better.reasons)
    assert result.samples_ms == better.samples_ms
    assert [rejected.samples_ms for rejected in result.rejected] == [bad.samples_ms]


def test_pinned_needs_cores_and_frequency():
    cored = replace(QUIET, cores=(1,))
    fixed = replace(cored, before={**QUIET.before, "governor": "performance"})
    assert not finish(attempt(QUIET, QUIET)).pinned
    assert not finish(attempt(cored, cored)).pinned
    assert finish(attempt(fixed, fixed)).pinned


@pytest.mark.parametrize(
    "attempts",
    [
        [attempt(QUIET, QUIET, QUIET)],
        [attempt(QUIET, scaled(QUIET, 2)), attempt(QUIET, QUIET)],
        [attempt(Failure("model-failed", "no kernel"), Failure("model-failed", "no kernel"))],
    ],
    ids=["valid", "retried", "failed"],
)
def test_json_round_trip(attempts):
    result = replace(finish(*attempts), device="d", key="k")
    text = json.dumps(result.to_json(), allow_nan=False)
    again = Measurement.from_json(json.loads(text))
    assert again.to_json() == result.to_json()
    assert math.isnan(again.latency_ms) == math.isnan(result.latency_ms)
    later = {**json.loads(text), "something_new": 1}
    assert Measurement.from_json(later).to_json() == result.to_json()


@pytest.mark.parametrize("latency", [-1.0, 0.0, 1e308, float("inf"), -float("inf")])
@pytest.mark.parametrize("name", ["latency_ms", "low_ms", "high_ms"])
def test_a_latency_that_no_inference_takes_is_no_latency(name, latency):
    sound = finish(attempt(QUIET, QUIET, QUIET))
    assert plausible(sound) is sound
    found = plausible(replace(sound, **{name: latency}))
    assert not found.valid and math.isnan(found.latency_ms) and math.isnan(found.high_ms)
    assert "impossible-latency" in found.reasons and f"{latency:g} ms" in found.detail


@pytest.mark.parametrize("energy", [-1.0, float("inf"), float("nan")])
def test_an_energy_that_cannot_be_is_unknown(energy):
    sound = finish(attempt(QUIET, QUIET, QUIET))
    found = plausible(replace(sound, energy_mj=energy))
    assert found.energy_mj is None and found.latency_ms == sound.latency_ms


def test_samples_of_a_clock_that_stands_still_or_runs_back_end_in_no_figure():
    for sample in (0, -5, 10**20):
        broken = replace(QUIET, samples_ns=(sample,) * 40)
        found = finish(attempt(broken, broken, broken))
        assert math.isnan(found.latency_ms) and not found.valid and "clock" in found.detail
