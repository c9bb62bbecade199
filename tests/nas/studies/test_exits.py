"""Exits of an architecture, and cascades of them."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from devices.simulators.device import RooflineDevice
from nas.cli.study import app
from nas.job.schema import Job
from nas.record.run_folder import RunStore
from nas.studies.exits import cascades, exits_of
from search_spaces import build_space
from search_spaces.errors import InputError

STAGES = [
    {"channels": 8, "stride": 1, "depths": [1, 2]},
    {"channels": 16, "stride": 2, "depths": [1, 2]},
]
SPACE = {
    "name": "mobilenet",
    "preset": "8x8",
    "stages": STAGES,
    "stem_channels": 4,
    "head_channels": 8,
    "exits": [1],
}


def run_of(folder, space):
    """A run whose supernet was never trained: the study does not mind."""
    from supernet.network import Supernet
    from supernet.training.checkpoint import save_checkpoint

    job = Job.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "calibration": 64},
            "space": space,
            "devices": [{"name": "npu", "simulator": "roofline", "hardware": "bitfusion-16x32"}],
        }
    )
    store = RunStore.create(folder, {"job": job.resolved()})
    store.checkpoint.parent.mkdir()
    torch.manual_seed(0)
    keys = {key: value for key, value in space.items() if key != "name"}
    supernet = Supernet(build_space("mobilenet", input_channels=1, outputs=10, **keys))
    tensors = {f"model.{name}": value for name, value in supernet.state_dict().items()}
    save_checkpoint(store.checkpoint, tensors, {"step": 1, "recipe": {"steps": 1}})
    return folder


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
