"""Deployment checks: right, and measured beside the float twin."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from typer.testing import CliRunner

from devices.device import DeviceSpec
from devices.fleet.remote import make_device
from devices.measuring.protocol import Protocol
from nas.boards.deployment import (
    Comparison,
    Images,
    _gain,
    check_deployment,
    input_shape,
    read_images,
)
from nas.cli.deploy import _naming
from nas.cli.main import app
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.training.subnets import at_bits

QUICK = Protocol(processes=2, runs=3, retries=0)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space)
    plan = at_bits(space.plan(space.sample(np.random.default_rng(0))), 8, 8)
    images = torch.randn(64, *plan.input_shape)
    network = supernet.extract(plan, supernet.statistics(plan, [images])).eval()
    path = tmp_path_factory.mktemp("deploy") / "model.onnx"
    export_onnx(network, path, reduce_range=True)
    return path


def test_a_sound_model_passes_and_its_twin_is_measured(model):
    shape = input_shape(model)
    labelled = Images(
        np.random.default_rng(0).standard_normal((20, *shape)).astype(np.float32),
        np.zeros(20, np.int64),
        "test",
    )
    device = make_device(DeviceSpec("here", "onnxruntime"))
    report = check_deployment(model, device, images=labelled, protocol=QUICK)
    assert report.passed and report.images == 20
    assert report.execution.relative_error < 0.05
    assert report.against_float is not None and report.against_float.accuracy is not None
    ratio = report.float_latency["latency_ms"] / report.latency["latency_ms"]
    assert report.speedup == pytest.approx(ratio)
    assert json.loads(json.dumps(report.to_json()))["passed"] is True


@pytest.mark.parametrize(
    ("model", "words"),
    [((0.7, 0.8), None), ((0.9, 1.0), "as fast as"), ((1.3, 1.5), "slower than .*: 1.40 times")],
)
def test_a_gain_in_time_is_denied_as_far_as_the_intervals_tell(model, words):
    def measured(low, high):
        return SimpleNamespace(latency_ms=(low + high) / 2, low_ms=low, high_ms=high)

    told = _gain(measured(*model), measured(0.95, 1.05))
    assert (words is None) == (told == []) and all(re.search(words, text) for text in told)


def test_wrong_outputs_are_a_problem(model, monkeypatch):
    device = make_device(DeviceSpec("here", "onnxruntime"))
    from nas.boards import deployment as deploy

    honest = deploy._outputs
    monkeypatch.setattr(
        deploy, "_outputs", lambda *a: (np.roll(honest(*a)[0], 1, axis=1) * 2, "onnxruntime")
    )
    report = check_deployment(model, device, protocol=QUICK)
    assert not report.passed and "saturates or is wrong" in report.problems[0]


def test_the_comparison_counts_what_differs():
    reference = np.eye(4, dtype=np.float32)
    output = reference.copy()
    output[0] = output[0][::-1]
    images = Images(np.zeros((4, 1, 1, 1), np.float32), np.arange(4), "test")
    found = Comparison.of(output, reference, images)
    assert (found.agreement, found.accuracy, found.reference_accuracy) == (0.75, 0.75, 1.0)
    assert found.max_logit_error == 1.0 and found.relative_error == pytest.approx(2**0.5 / 2)


def test_images_are_read_and_refused(model, tmp_path):
    shape = input_shape(model)
    np.savez(tmp_path / "a.npz", images=np.zeros((3, *shape)), labels=np.arange(3))
    found = read_images(tmp_path / "a.npz", shape, limit=2)
    assert found.pixels.shape == (2, *shape) and list(found.labels) == [0, 1]
    np.savez(tmp_path / "b.npz", other=np.zeros(3))
    with pytest.raises(InputError, match="array 'images'"):
        read_images(tmp_path / "b.npz", shape)
    device = make_device(DeviceSpec("here", "onnxruntime"))
    wrong = replace(found, pixels=np.zeros((3, 5, 8, 8), np.float32))
    with pytest.raises(InputError, match="the images have shape"):
        check_deployment(model, device, images=wrong, protocol=QUICK)
    with pytest.raises(InputError, match="no ONNX file"):
        check_deployment(tmp_path / "a.npz", device, protocol=QUICK)


def test_a_file_that_takes_bytes_is_told_which_to_check(model, tmp_path):
    from nas.models.formats.preprocessing import with_preprocessing

    rule = {"pixel_scale": 1 / 255, "mean": [0.5], "std": [0.25]}
    onnx.save(with_preprocessing(onnx.load(model), rule), tmp_path / "bytes.onnx")
    with pytest.raises(InputError, match="without pre-processing inside"):
        input_shape(tmp_path / "bytes.onnx")


def test_the_command_writes_json_and_ends_with_4_for_a_broken_model(model, tmp_path):
    arguments = ["--processes", "2", "--runs", "3", "--protocol", "retries=0", "--json"]
    report = tmp_path / "report.json"
    done = CliRunner().invoke(
        app, ["deploy", "check", str(model), *arguments, "--output", str(report)]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(report.read_text())["execution"]["agreement"] > 0.9
    broken = onnx.load(model)
    for tensor in broken.graph.initializer:
        if tensor.name.endswith("scale"):
            value = np.full_like(numpy_helper.to_array(tensor), np.nan)
            tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    path = tmp_path / "broken.onnx"
    onnx.save(broken, path)
    done = CliRunner().invoke(app, ["deploy", "check", str(path), *arguments])
    assert done.exit_code in (2, 4)


def test_a_detector_is_checked_by_its_boxes_and_no_argmax(tmp_path):
    from search_spaces import build_space

    torch.manual_seed(0)
    space = build_space("detector", preset="48x48", input_channels=1, outputs=6)
    supernet = Supernet(space)
    plan = space.plan(space.smallest())
    images = torch.randn(8, *plan.input_shape)
    network = supernet.extract(plan, supernet.statistics(plan, [images])).eval()
    path = tmp_path / "boxes.onnx"
    export_onnx(network, path, reduce_range=True)
    device = make_device(DeviceSpec("here", "onnxruntime"))
    with pytest.raises(InputError, match="give its run or job with --data"):
        check_deployment(path, device, protocol=QUICK)
    card = {"format": 1, "task": "object_detection", "preprocessing": {"classes": ["a", "b"]}}
    path.with_suffix(".json").write_text(json.dumps(card))
    boxes = np.full((8, 1, 6), -1.0, np.float32)
    boxes[:, 0] = [0, 0.2, 0.2, 0.6, 0.6, 0]
    np.savez(tmp_path / "a.npz", images=images.numpy(), labels=boxes)
    labelled = read_images(tmp_path / "a.npz", input_shape(path))
    report = check_deployment(path, device, images=labelled, protocol=QUICK)
    assert report.task == "object_detection"
    assert report.execution.agreement_of == "boxes" and report.execution.metric == "ap50"
    assert report.against_float.accuracy is None and report.against_float.value is not None
    assert set(report.against_float.by_class) <= {"a", "b"}
    assert json.loads(json.dumps(report.to_json()))["execution"]["agreement_of"] == "boxes"


@pytest.mark.parametrize("length", [64, 48])
def test_signals_of_a_job_are_made_as_long_as_the_model_takes_and_stay_signals(tmp_path, length):
    """They are one value high, as spectrograms are of another height than width."""
    (tmp_path / "job.yaml").write_text(
        "name: bells\n"
        "task: signal_classification\n"
        "data: {name: cylinder_bell_funnel, options: {examples: 40, length: 64}, validation: 10}\n"
        "space: {name: signal}\n"
    )
    found = read_images(tmp_path / "job.yaml", (1, 1, length))
    assert found.pixels.shape == (10, 1, 1, length) and len(found.labels) == 10


def test_weights_in_a_file_beside_are_read(model, tmp_path):
    """torch.onnx.export puts them there by default."""
    whole = onnx.load(model)
    onnx.save(
        whole, tmp_path / "m.onnx", save_as_external_data=True, size_threshold=0, location="m.data"
    )
    assert (tmp_path / "m.data").is_file()
    device = make_device(DeviceSpec("here", "onnxruntime"))
    report = check_deployment(tmp_path / "m.onnx", device, protocol=QUICK)
    assert report.execution.relative_error < 0.05 and report.against_float is not None


@pytest.mark.parametrize(
    ("shapes", "told"),
    [
        ([["n", 3, "h", "w"]], r"input is \['open', 3, 'open', 'open'\].*of a fixed size"),
        ([[1, 3, 8, 8], [1, 5]], r"has 2 inputs \(x0, x1\); one is checked"),
    ],
)
def test_inputs_that_cannot_be_made_are_told(tmp_path, shapes, told):
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    inputs = [helper.make_tensor_value_info(f"x{i}", kind, each) for i, each in enumerate(shapes)]
    output = helper.make_tensor_value_info("y", kind, shapes[0])
    graph = helper.make_graph([helper.make_node("Relu", ["x0"], ["y"])], "g", inputs, [output])
    onnx.save(helper.make_model(graph), tmp_path / "m.onnx")
    with pytest.raises(InputError, match=told):
        input_shape(tmp_path / "m.onnx")


def test_a_device_may_be_one_of_the_run_whose_data_are_taken(tmp_path):
    (tmp_path / "run").mkdir()
    job = tmp_path / "run" / "job.yaml"
    job.write_text(
        "name: a\ndata: {name: digits}\ndevices: [{name: bench, runtime: onnxruntime}]\n"
    )
    assert _naming(job.parent, "bench") == _naming(job, "bench") == job
    for data, device in ((job.parent, "other"), (job, "onnxruntime"), (None, "bench")):
        assert _naming(data, device) is None
    assert _naming(tmp_path / "a.npz", "bench") is None
