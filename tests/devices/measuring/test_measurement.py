import json
import math
from dataclasses import replace

import pytest

from devices.measuring.attempt import Attempt, conclude
from devices.measuring.measurement import Measurement, Reason, plausible
from devices.measuring.protocol import Protocol
from devices.measuring.quiet import Level
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
    assert {reason for _, reason in CASES} | {Reason.DISTURBED} == set(Reason)


LEVEL = Level(50_000.0, 50_000.0)


def probed(factor=1.0, *, probe=1.0, away=0.0, start=0):
    """A block with probes: ``probe`` times the quiet level, its core lost for ``away`` ms."""
    count = len(QUIET.samples_ns)
    block = scaled(QUIET, factor)
    lost = [round(away * 1e6) if i >= start else 0 for i in range(count)]
    return replace(
        block,
        samples_ns=tuple(n + more for n, more in zip(block.samples_ns, lost, strict=True)),
        processor_ns=block.samples_ns,
        probes_ns=(round(50_000 * probe),) * (count + 1),
        first_probes_ns=(round(50_000 * probe),) * (count + 1),
    )


def test_a_process_that_met_no_quiet_machine_does_not_count():
    slow = probed(1.3, probe=1.3)
    enough = replace(attempt(*[probed()] * 3, slow, protocol=Protocol(processes=4)), level=LEVEL)
    found = finish(enough)
    assert found.valid and found.latency_ms == pytest.approx(1.003)
    assert [r.reasons for r in found.rejected] == [("machine-never-quiet",)]
    assert found.rejected[0].samples_ms == (slow.samples_ms,)
    few = replace(attempt(probed(), slow, slow), level=LEVEL)
    assert Reason.DISTURBED in few.reasons and few.missing == 2
    # There are figures all the same, of all that was measured, and they are marked.
    assert not finish(few).valid and finish(few).latency_ms > 1.2


def test_a_slow_process_with_quick_probes_is_never_left_out():
    found = replace(attempt(probed(), probed(1.3), probed()), level=LEVEL)
    assert len(found.counting) == 3 and Reason.SPREAD in found.reasons


def test_samples_that_lost_the_core_are_left_out_or_timed_by_the_processor():
    some = [probed(away=3.0, start=20)] * 3
    assert finish(replace(attempt(*some), level=LEVEL)).latency_ms == pytest.approx(1.003)
    every = finish(replace(attempt(*[probed(away=3.0)] * 3), level=LEVEL))
    assert every.valid and every.latency_ms == pytest.approx(1.0, abs=0.002)
    assert every.conditions["samples"] == ["lowest-processor"] * 3
    assert every.busy is True
    assert finish(replace(attempt(*[probed()] * 3), level=LEVEL)).busy is False
    assert finish(attempt(QUIET, QUIET)).busy is None
    # Threads wait for one another, so their processor time is not the latency.
    waiting = [
        replace(block, waited_ns=(3_000_000,) * 40, processor_ns=())
        for block in [probed(away=3.0)] * 3
    ]
    threads = replace(attempt(*waiting, threads=2), level=LEVEL)
    assert Reason.DISTURBED in threads.reasons


def test_a_measurement_of_an_earlier_version_has_no_floor():
    value = finish(attempt(QUIET, QUIET, QUIET)).to_json()
    for name in ("floor_ms", "processor_ms"):
        del value[name]
    again = Measurement.from_json(value)
    assert again.floor_ms is None and again.processor_ms is None and again.valid


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
