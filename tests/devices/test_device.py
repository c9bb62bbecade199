import contextlib
import math
import multiprocessing
import types
from dataclasses import replace

import pytest

from devices.device import (
    DeviceSpec,
    LocalDevice,
    computes_bfloat16,
    device_fingerprint,
    machine_lock,
)
from devices.measuring.protocol import Protocol
from devices.measuring.store import MeasurementStore
from search_spaces.errors import EnvironmentProblem, InputError

PROTOCOL = Protocol(processes=2, runs=10, retries=0, pin=False)


@pytest.fixture
def bench(play, monkeypatch, tmp_path):
    """A local device on a played machine, its store, and a maker of model files."""
    played = play()
    monkeypatch.setattr(DeviceSpec, "make_runtime", lambda self: played.runtime)

    def device(name="bench", **options):
        return LocalDevice(
            DeviceSpec(name, "played"),
            sampler=played.sampler,
            lock=contextlib.nullcontext,
            fingerprint={"cpu": "played"},
            **options,
        )

    played.device = device
    played.store = MeasurementStore(tmp_path / "store.sqlite")
    return played


def test_measurements_are_named_stored_and_reused(bench):
    models = [bench.model(f"m{i}", f"{1 + i}") for i in range(3)]
    archs = ["a", "b", "c"]
    options = {"archs": archs, "space": "s", "protocol": PROTOCOL, "store": bench.store}
    first = bench.device().measure(models, **options)
    taken = len(bench.sampler.sequences)
    seen = []
    again = bench.device().measure(models, **options, on_result=lambda i, m: seen.append((i, m)))
    assert again == first and seen == list(enumerate(first))
    assert len(bench.sampler.sequences) == taken
    assert [row["arch"] for row in bench.store.rows()] == archs
    assert {m.device for m in first} == {"bench"}
    assert [m.key for m in first] == [row["key"] for row in bench.store.rows()]


def test_only_what_is_missing_is_measured(bench):
    models = [bench.model(f"m{i}", f"{1 + i}") for i in range(3)]
    bench.device().measure(models[:2], protocol=PROTOCOL, store=bench.store)
    bench.runtime.loaded.clear()
    results = bench.device().measure(models, protocol=PROTOCOL, store=bench.store)
    assert set(bench.runtime.loaded) == {"m2"}
    assert [round(m.latency_ms / 1.2) for m in results] == [1, 2, 3]


def test_each_group_is_stored_before_the_next_begins(bench):
    models = [bench.model(f"m{i}", f"{1 + i}") for i in range(5)]
    stored = []

    def stop_at_the_third(index, measurement):
        stored.append(len(bench.store.rows()))
        if len(stored) == 3:
            raise KeyboardInterrupt

    device = bench.device(group=2)
    with pytest.raises(KeyboardInterrupt):
        device.measure(models, protocol=PROTOCOL, store=bench.store, on_result=stop_at_the_third)
    assert stored == [1, 2, 3]
    bench.runtime.loaded.clear()
    device.measure(models, protocol=PROTOCOL, store=bench.store)
    assert set(bench.runtime.loaded) == {"m3", "m4"}


def test_one_file_for_two_architectures_is_measured_once_and_replayed_for_both(bench):
    model = bench.model("net")
    options = {"archs": ["a", "b"], "space": "s", "protocol": PROTOCOL}
    one, two = bench.device().measure([model, model], store=bench.store, **options)
    assert one == two and len(bench.sampler.sequences) == PROTOCOL.processes
    replay = MeasurementStore.replay(bench.store.path)
    assert bench.device().measure([model, model], store=replay, **options) == [one, two]


def test_a_replay_measures_nothing(bench, tmp_path):
    model = bench.model("net")
    options = {"space": "s", "protocol": PROTOCOL}
    (first,) = bench.device().measure([model], archs=["a"], store=bench.store, **options)
    replay = MeasurementStore.replay(bench.store.path)
    absent = [tmp_path / "absent.onnx"]
    taken = len(bench.sampler.sequences)
    assert bench.device().measure(absent, archs=["a"], store=replay, **options) == [first]
    with pytest.raises(InputError, match="'b'"):
        bench.device().measure([model], archs=["b"], store=replay, **options)
    assert len(bench.sampler.sequences) == taken


def test_invalid_measurements_are_reused_unless_asked_otherwise(bench):
    model = bench.model("net", "1.0 nan")
    options = {"protocol": PROTOCOL, "store": bench.store}
    (bad,) = bench.device().measure([model], **options)
    assert not bad.valid
    taken = len(bench.sampler.sequences)
    assert bench.device().measure([model], **options) == [bad]
    assert len(bench.sampler.sequences) == taken
    bench.device(remeasure_invalid=True).measure([model], **options)
    assert len(bench.sampler.sequences) > taken


def test_a_missing_model_is_named(bench, tmp_path):
    with pytest.raises(InputError, match="absent"):
        bench.device().measure([tmp_path / "absent"], protocol=PROTOCOL)


def test_archs_must_match_the_models(bench):
    with pytest.raises(InputError, match="1 models and 2 architectures"):
        bench.device().measure([bench.model("net")], archs=["a", "b"], protocol=PROTOCOL)


@pytest.mark.parametrize("name", ["", "a b", "a/b", "x" * 65, "a,b"])
def test_device_names_are_fit_for_columns_and_files(name):
    with pytest.raises(InputError, match="device name"):
        DeviceSpec(name)


def test_spec_parameters_reach_the_runtime():
    spec = DeviceSpec("cpu2", threads=2, batch=4, options={"graph_optimization": "basic"})
    assert spec.make_runtime().parameters() == {
        "threads": 2,
        "batch": 4,
        "provider": "CPUExecutionProvider",
        "graph_optimization": "basic",
    }


def test_fingerprint_of_this_machine_is_stable_and_complete():
    found = device_fingerprint()
    assert found == device_fingerprint()
    assert found["cpu"] and found["cores"] >= 1


@pytest.mark.parametrize(
    "info, cpu, vnni",
    [
        ("model name\t: Intel(R) Xeon(R)\nflags\t\t: fpu avx512_vnni\n", "Intel(R) Xeon(R)", True),
        ("model name\t: AMD EPYC\nflags\t\t: fpu avx2\n", "AMD EPYC", False),
        ("processor\t: 0\nFeatures\t: fp asimd\nModel\t\t: Pi 4\n", "Pi 4", False),
        ("processor\t: 0\nFeatures\t: fp asimd asimddp\nModel\t\t: Pi 5\n", "Pi 5", True),
    ],
)
def test_fingerprint_of_other_machines(info, cpu, vnni):
    found = device_fingerprint(reader=lambda path: info if path == "/proc/cpuinfo" else None)
    assert found["cpu"] == cpu and found["has_vnni"] is vnni


def test_a_lock_that_cannot_be_opened(tmp_path):
    with (
        pytest.raises(EnvironmentProblem, match="cannot open the lock"),
        machine_lock(tmp_path / "absent" / "lock"),
    ):
        pass


def hold(path, entered, leave):
    with machine_lock(path):
        entered.set()
        leave.wait(30)


def test_the_lock_is_held_by_one_process_and_freed_by_a_kill(tmp_path):
    path = tmp_path / "lock"
    context = multiprocessing.get_context("fork")
    events = [(context.Event(), context.Event()) for _ in range(2)]
    holders = [context.Process(target=hold, args=(path, *pair)) for pair in events]
    holders[0].start()
    assert events[0][0].wait(30)
    holders[1].start()
    assert not events[1][0].wait(0.3)
    holders[0].kill()
    assert events[1][0].wait(30)
    events[1][1].set()
    for holder in holders:
        holder.join(30)


@pytest.mark.parametrize("latency", [-1.0, 0.0, 1e308])
def test_an_impossible_latency_is_invalid_from_a_device_and_from_its_store(bench, latency):
    def reported(self, queries, protocol, done):
        for query in queries:
            done(query.key, replace(sound, latency_ms=latency, low_ms=latency, high_ms=latency))

    model = bench.model("m", "1")
    (sound,) = bench.device().measure([model], protocol=PROTOCOL)
    assert sound.valid
    device = bench.device()
    device._measure = types.MethodType(reported, device)
    for _ in range(2):
        (found,) = device.measure([model], protocol=PROTOCOL, store=bench.store)
        assert not found.valid and math.isnan(found.latency_ms)


@pytest.mark.parametrize(
    ("line", "there"),
    [
        ("flags\t\t: fpu avx2 avx512_bf16", True),
        ("flags : amx_bf16", True),
        ("Features\t: fp asimd bf16", True),
        ("flags : fpu avx2 avx512f", False),
        (None, False),
    ],
)
def test_which_processors_multiply_bfloat16(line, there):
    assert computes_bfloat16(reader=lambda path: line) is there
