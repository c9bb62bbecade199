"""``nas study value`` on a tiny finished run of digits, on a played device."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

from devices.device import DeviceSpec, LocalDevice
from devices.measuring.measurement import Measurement
from nas.job.schema import Job
from nas.models.parity import export_checked
from nas.record.bit_text import unpack_bits
from nas.record.run_folder import RunStore
from nas.record.spending import Spending
from nas.studies.source import find_source
from nas.studies.value.family import PlainMobileNet
from nas.studies.value.latencies import interleaved
from nas.studies.value.study import ValueStudy
from nas.studies.value.text import lines
from search_spaces.errors import InputError
from supernet.ptq.quantize import quantize_post_training

pytestmark = pytest.mark.long

JOB = {
    "name": "tiny",
    "data": {"name": "digits", "calibration": 64, "train": 256},
    "space": {"name": "mobilenet", "preset": "8x8"},
    "devices": [
        {"name": "cpu", "runtime": "onnxruntime"},
        {"name": "array", "simulator": "roofline", "hardware": "systolic-16x16"},
    ],
}
MEMBERS = """
from torch import nn

def small(request):
    return {
        f"w{width}": lambda width=width: nn.Sequential(
            nn.Conv2d(request.input_channels, width, 3, 2, 1, bias=False),
            nn.BatchNorm2d(width), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, request.outputs))
        for width in (4, 8)
    }
"""


class Ruler(LocalDevice):
    """A device on which a model takes as many ms as its file has MB."""

    def __init__(self, config, space):
        super().__init__(DeviceSpec(config.name), fingerprint={"cpu": "ruler"})
        self.measured = []

    def _measure(self, queries, protocol, done):
        for query in queries:
            self.measured.append(query.model.name)
            size = query.model.stat().st_size / 2**20
            done(
                query.key,
                Measurement(
                    *(size, size, size, 0.0, size, size, 0.0),
                    samples_ms=((size,),),
                    calls=(1,),
                    valid=True,
                    reasons=(),
                    attempts=1,
                    rejected=(),
                    runtime="ruler",
                    runtime_version="1",
                    parameters={},
                    protocol=protocol.to_json(),
                    conditions={},
                    pinned=False,
                ),
            )


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """A run whose front is two untrained networks."""
    folder = tmp_path_factory.mktemp("run") / "run"
    job = Job.model_validate(JOB)
    store = RunStore.create(folder, {"job": job.resolved(), "accelerator": "cpu"})
    store.checkpoint.parent.mkdir()
    store.checkpoint.write_bytes(b"weights")
    store.models.mkdir()
    front = []
    for name, width in (("aaaaaaaaaa", 0.1), ("bbbbbbbbbb", 0.3)):
        torch.manual_seed(0)
        module = PlainMobileNet(1, 8, 10, width).eval()
        images = torch.randn(32, 1, 8, 8)
        network = quantize_post_training(module, [images], (8, 8), steps=())
        export_checked(network, store.models / f"{name}.onnx", images)
        front.append(
            {
                "id": name,
                "model": f"models/{name}.onnx",
                "costs": {"weights_kib": network.plan.weights_kib, "macs": network.plan.macs},
                "plan": {"input_shape": [1, 8, 8]},
                "test_accuracy": 0.1,
                "validation_accuracy": 0.1,
            }
        )
    store.results.write_text(json.dumps({"front": front}))
    with Spending(folder, cpu=iter([0.0, 0.0, 2.0, 2.0]).__next__, every_s=1000.0):
        pass
    return folder


@pytest.fixture(scope="module")
def members(tmp_path_factory):
    folder = tmp_path_factory.mktemp("family")
    (folder / "value_members.py").write_text(MEMBERS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(folder)
        yield "value_members:small"


@pytest.fixture(scope="module")
def short(members):
    return ValueStudy(family=members, qat=False, cpu_seconds=0.2)


@pytest.fixture(scope="module")
def unmeasured(run_folder, short, tmp_path_factory):
    """The folder and the result of a short study whose device cannot measure."""

    def broken(config, space):
        raise InputError("no such runtime")

    folder = tmp_path_factory.mktemp("unmeasured") / "value"
    return folder, short.run(find_source(run_folder), folder, make_device=broken)


def test_the_whole_study_and_its_resumption(run_folder, members, tmp_path):
    source, folder = find_source(run_folder), tmp_path / "studies" / "value"
    devices = []

    def make(config, space):
        devices.append(Ruler(config, space))
        return devices[-1]

    study = ValueStudy(family=members, seeds=2, cpu_seconds=0.4)
    records = []
    result = study.run(
        source, folder, make_device=make, on_record=lambda *values: records.append(values)
    )
    assert result == json.loads((tmp_path / "studies" / "value.json").read_text())
    # Two members, in float and quantisation-aware, twice.
    assert [done for done, _, _ in records] == list(range(1, 9))
    assert result["budget"]["of_a_member"] == pytest.approx(0.2)
    assert {row["kind"] for row in result["members"]} == {"ptq", "ort", "qat"}
    assert len(result["members"]) == 12
    for row in result["members"]:
        assert 0 <= row["accuracy"] <= 1 and row["latency_ms"]["cpu"] > 0
    assert set(result["at_size"]) == {"int8", "ptq", "ort", "qat"}
    assert set(result["at_latency"]) == {"cpu"}
    assert len(result["at_latency"]["cpu"]["int8"]["rows"]) == 5
    (simulated,) = (item for item in result["latency"] if item["device"] == "array")
    assert "simulator" in simulated["unavailable"]
    # A network of random weights is not ahead of one that was trained.
    text = "\n".join(lines(result))
    assert "0 processor seconds (given)" in text and "ms on cpu" in text
    # The front and the family were measured among each other, each file once.
    (measured,) = (device.measured for device in devices)
    ours = [name for name in measured if name.split(".")[0] in ("a" * 10, "b" * 10)]
    assert len(ours) == 2 and len(measured) == len(set(measured)) == 8
    assert measured.index(ours[1]) - measured.index(ours[0]) > 1

    # Cut off after some trainings, it does the others and nothing twice.
    path = folder / "records.jsonl"
    kept = path.read_text().splitlines()
    path.write_text("\n".join(kept[:-3]) + "\n")
    again = study.run(
        source, folder, make_device=make, on_record=lambda *values: records.append(values)
    )
    assert len(records) == 8 + 3
    assert again["members"][:6] == result["members"][:6]
    third = study.run(source, folder, make_device=make)
    assert len(records) == 11 and third == again
    # More seeds keep those that are there.
    more = ValueStudy(family=members, seeds=3, cpu_seconds=0.4, qat=False)
    records.clear()
    more.run(source, folder, make_device=make, on_record=lambda *values: records.append(values))
    assert len(records) == 2


def test_the_runs_own_cost_is_the_budget(run_folder, members, tmp_path):
    study = ValueStudy(family=members, qat=False, sizes=(0.5, 5.0))
    result = study.run(find_source(run_folder), tmp_path / "value", make_device=Ruler)
    assert result["budget"] == {
        "seconds": 2.0,
        "clock": "processor seconds",
        "source": "spent by the run",
        "of_a_member": 1.0,
    }
    for row in result["members"]:
        assert row["training"]["seconds"] == pytest.approx(1.0, abs=0.5)
    sizes = result["at_size"]["int8"]
    assert [row["budget"] for row in sizes["rows"]] == [0.5, 5.0]
    assert "qat" not in result["at_size"]
    # What is told of a file is what its answers to single images add up to.
    tested = 0
    for line in (tmp_path / "value" / "records.jsonl").read_text().splitlines():
        record = json.loads(line)
        for file in record["files"].values() if "files" in record else [record]:
            right = unpack_bits(file["right"], result["test_images"])
            assert right.mean() == pytest.approx(file["accuracy"])
            tested += 1
    assert tested == 2 + 2 * 2


def test_refusals_name_the_way_out(run_folder, members, short, unmeasured, tmp_path):
    source = find_source(run_folder)
    shutil.copytree(unmeasured[0], tmp_path / "value")
    with pytest.raises(InputError, match="seconds_of_a_member"):
        ValueStudy(family=members, qat=False, cpu_seconds=9.0).run(
            source, tmp_path / "value", make_device=Ruler
        )
    changed = next((tmp_path / "value" / "models").glob("*-ptq-0.onnx"))
    changed.write_bytes(b"other")
    with pytest.raises(InputError, match=changed.name):
        short.run(source, tmp_path / "value", make_device=Ruler)
    other = tmp_path / "older"
    shutil.copytree(run_folder, other)
    shutil.rmtree(other / "spending")
    with pytest.raises(InputError, match="--cpu-seconds"):
        ValueStudy(family=members).run(find_source(other), tmp_path / "v2", make_device=Ruler)
    (other / "models" / "aaaaaaaaaa.onnx").unlink()
    with pytest.raises(InputError, match=r"aaaaaaaaaa\.onnx is missing"):
        short.run(find_source(other), tmp_path / "v3", make_device=Ruler)


def test_a_device_that_cannot_measure_costs_only_itself(unmeasured):
    _, result = unmeasured
    assert result["at_latency"] == {}
    assert result["latency"][0]["unavailable"] == "no such runtime"
    assert any("no such runtime" in line for line in lines(result))


def test_interleaving_keeps_proportions():
    order = interleaved([f"a{i}" for i in range(6)], [f"b{i}" for i in range(3)])
    assert sorted(order) == sorted([*(f"a{i}" for i in range(6)), *(f"b{i}" for i in range(3))])
    for start in range(0, 9, 3):
        assert sum(name[0] == "b" for name in order[start : start + 3]) == 1
