"""Exits of an architecture, and cascades of them."""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from devices.simulators.device import RooflineDevice
from nas.cli.study import app
from nas.studies.exits import cascades, exits_of
from nas.studies.shared_exits import cheapest, mean_latencies
from nas.studies.shared_exits import settings as shared_settings
from search_spaces import build_space
from search_spaces.errors import InfeasibleError, InputError
from tests.nas.studies.small_run import SPACE, STAGES, run_of


def invoke(*arguments):
    result = CliRunner().invoke(app, [str(a) for a in arguments])
    if result.exception is not None:
        raise result.exception
    return result.output


def test_the_exits_of_a_run_are_told(tmp_path):
    run = run_of(tmp_path / "run", SPACE)
    text = invoke("exits", run, "--thresholds", "0,0.5,1", "--validation-images", "100")
    result = json.loads((run / "studies" / "exits" / "exits.json").read_text())
    assert [entry["exit"] for entry in result["exits"]] == [1, 2]
    early, whole = result["exits"]
    assert early["macs"] < whole["macs"] and "latency" not in early
    by_threshold = {row["threshold"]: row for row in result["cascades"]}
    assert by_threshold[0.0]["accuracy"] == early["accuracy"]
    assert by_threshold[0.0]["macs"] == early["macs"]
    assert by_threshold[1.0]["accuracy"] == pytest.approx(whole["accuracy"])
    assert by_threshold[1.0]["macs"] == pytest.approx(early["macs"] + whole["macs"])
    assert "cascades" in text


def test_the_exits_are_measured_on_a_device_and_not_again(tmp_path, monkeypatch):
    run = run_of(tmp_path / "run", SPACE)
    text = invoke("exits", run, "--device", "npu", "--thresholds", "0,1")
    result = json.loads((run / "studies" / "exits" / "exits.json").read_text())
    latencies = [entry["latency"]["latency_ms"] for entry in result["exits"]]
    assert all(latency > 0 for latency in latencies) and "ms" in text
    by_threshold = {row["threshold"]: row for row in result["cascades"]}
    assert by_threshold[0.0]["latency_ms"] == pytest.approx(latencies[0])
    assert by_threshold[1.0]["latency_ms"] == pytest.approx(sum(latencies))

    def no_measuring(*args, **kwargs):
        raise AssertionError("measured again though the run's store has it")

    monkeypatch.setattr(RooflineDevice, "_measure", no_measuring)
    invoke("exits", run, "--device", "npu", "--thresholds", "0,1")
    again = json.loads((run / "studies" / "exits" / "exits.json").read_text())
    assert [entry["latency"]["latency_ms"] for entry in again["exits"]] == latencies


def test_one_file_of_all_exits_is_written_and_timed(tmp_path):
    run = run_of(
        tmp_path / "run", SPACE, devices=[{"name": "cpu"}],
        protocol={
            "processes": 2, "runs": 5, "min_sample_ms": 0.1, "warmup_max_s": 0.1, "retries": 0,
            "nice": 0, "pin": False,
        },
    )  # fmt: skip
    text = invoke(
        "exits", run, "--device", "cpu", "--validation-images", "100", "--loss", "0.2",
        "--gates", "confidence,energy",
    )  # fmt: skip
    shared = json.loads((run / "studies" / "exits" / "exits.json").read_text())["shared"]
    assert shared["exits"] == [1, 2] and shared["cost_is"] == "latency_ms"
    assert shared["gates"][0]["kind"] in ("confidence", "energy")
    assert sum(shared["left_at"]) == pytest.approx(1)
    assert (run / "studies" / "exits" / shared["model"]).is_file()
    for one in shared["latency"].values():
        assert 0 < one["low_ms"] <= one["mean_ms"] <= one["high_ms"]
    assert "mean ms of an image" in text


def test_settings_are_counted_image_by_image():
    rng = np.random.default_rng(0)
    outputs = [torch.from_numpy(rng.normal(size=(60, 4))) for _ in range(3)]
    targets = torch.from_numpy(rng.integers(0, 4, 60))
    network = SimpleNamespace(exits=(1, 2, 3))
    costs = {1: 1.0, 2: 2.0, 3: 4.0}
    found = shared_settings(network, outputs, targets, costs, ("confidence", "learned"))
    assert {one.gates[0].kind for one in found} == {"confidence", "learned"}
    assert {one.exits for one in found} == {(1, 3), (2, 3), (1, 2, 3)}
    for one in found[::37]:
        correct = cost = 0.0
        for k in range(60):
            for stage, gate in zip(one.exits, (*one.gates, None), strict=True):
                logits = outputs[stage - 1][k : k + 1]
                if gate is None or bool(gate.leaves(logits)[0]):
                    correct += bool(logits.argmax() == targets[k])
                    cost += costs[stage]
                    break
        assert (one.accuracy, one.cost) == pytest.approx((correct / 60, cost / 60))
    best = cheapest(found, 0.3, 0.05)
    assert best.accuracy >= 0.25
    assert all(one.cost >= best.cost for one in found if one.accuracy >= 0.25)
    with pytest.raises(InfeasibleError, match="loses at most 0 accuracy"):
        cheapest(found, 1.0, 0.0)


def test_a_mean_latency_is_over_images_and_of_the_least_call():
    ticks = iter(range(0, 10**9, 1))

    def clock():
        return next(ticks)

    seen = []
    quick = SimpleNamespace(bind=lambda x: lambda: seen.append(x))
    slow = SimpleNamespace(bind=lambda x: lambda: [clock() for _ in range(3)])
    found = mean_latencies(
        {"a": quick, "b": slow},
        np.zeros((4, 1, 2, 2), np.float32), rounds=2, clock=clock,
    )  # fmt: skip
    assert found["a"]["mean_ms"] == pytest.approx(1e-6)
    assert found["b"]["mean_ms"] == pytest.approx(4e-6)
    assert len(seen) == 8 and seen[0].shape == (1, 1, 2, 2)


def test_what_cannot_be_studied_is_refused(tmp_path):
    plain = run_of(tmp_path / "plain", {k: v for k, v in SPACE.items() if k != "exits"})
    with pytest.raises(InputError, match="has no exits; give it some"):
        invoke("exits", plain)
    run = run_of(tmp_path / "run", SPACE)
    with pytest.raises(InputError, match="no device 'phone'; it has npu"):
        invoke("exits", run, "--device", "phone")
    with pytest.raises(InputError, match="no list of probabilities"):
        invoke("exits", run, "--thresholds", "90")


def test_an_exit_keeps_the_architecture_before_it():
    space = build_space(
        "mobilenet", preset="8x8", input_channels=1, stages=STAGES, exits=[1], outputs=10
    )
    arch = dict(space.smallest().items)
    found = exits_of(space, str(space.smallest()))
    assert sorted(found) == [1, 2]
    for stage, each in found.items():
        values = dict(each.items)
        assert values["exit"] == stage
        shared = set(values) & set(arch) - {"exit"}
        assert shared and all(values[name] == arch[name] for name in shared)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(2, 4),
    st.floats(0, 1),
)
def test_a_cascade_against_one_image_at_a_time(seed, count, threshold):
    rng = np.random.default_rng(seed)
    stages = list(range(1, count + 1))
    confidence = {stage: rng.random(20) for stage in stages}
    right = {stage: rng.random(20) < 0.6 for stage in stages}
    costs = {stage: float(rng.random()) for stage in stages}
    for row in cascades(confidence, right, {"macs": costs}, [threshold]):
        correct = spent = 0.0
        for image in range(20):
            for stage in row["exits"]:
                spent += costs[stage]
                if stage == row["exits"][-1] or confidence[stage][image] >= threshold:
                    correct += right[stage][image]
                    break
        assert row["accuracy"] == pytest.approx(correct / 20)
        assert row["macs"] == pytest.approx(spent / 20)
        assert sum(row["left_at"]) == pytest.approx(1)
