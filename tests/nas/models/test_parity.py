"""The gate finds files that execute wrongly; parity says how far file and network agree."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from nas.models.parity import (
    Parity,
    UnusableModel,
    check_optimised,
    check_parity,
    evaluate_onnx,
    export_checked,
)
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet


def write_model(path, nodes, constants, *, shape=(4,), outputs="y", batch="batch") -> None:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, *shape])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, path)


def scaled_identity(path, factor: float, batch: int | str = "n") -> None:
    write_model(
        path,
        [helper.make_node("Mul", ["x", "factor"], ["y"], name="scale")],
        {"factor": np.float32(factor)},
        batch=batch,
    )


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space)
    plan = space.plan(space.sample(np.random.default_rng(0)))
    return supernet.extract(plan, supernet.statistics(plan, [torch.randn(64, *plan.input_shape)]))


def test_sound_file_passes_and_names_its_operators(network, tmp_path):
    images = torch.randn(16, *network.plan.input_shape)
    summary, check = export_checked(network, tmp_path / "m.onnx", images, has_vnni=True)
    assert check.passed
    assert check.relative_error < 0.01
    assert check.float_fallbacks == ()
    convolutions = sum(layer.layer.kind == "conv" for layer in network.plain_layers())
    assert check.operators["QLinearConv"] == convolutions
    assert summary.size_kib > 0


def test_gate_catches_an_optimisation_that_changes_results(tmp_path):
    # Two quantisers in a row, one coarse and one fine, are merged by the optimiser to a fine
    # one: unoptimised, 0.4 rounds to 0; optimised it does not.
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "coarse", "zero"], ["a"]),
        helper.make_node("DequantizeLinear", ["a", "coarse", "zero"], ["b"]),
        helper.make_node("QuantizeLinear", ["b", "fine", "zero"], ["c"]),
        helper.make_node("DequantizeLinear", ["c", "fine", "zero"], ["y"]),
    ]
    constants = {"coarse": np.float32(1), "fine": np.float32(0.01), "zero": np.uint8(0)}
    write_model(tmp_path / "broken.onnx", nodes, constants)
    x = np.random.default_rng(0).uniform(0, 2, (8, 4)).astype(np.float32)
    check = check_optimised(tmp_path / "broken.onnx", x)
    assert not check.passed
    assert check.relative_error > 0.1
    assert "optimised and unoptimised execution differ" in check.problems[0]


def test_gate_catches_outputs_that_are_not_finite(tmp_path):
    write_model(tmp_path / "log.onnx", [helper.make_node("Log", ["x"], ["y"], name="log")], {})
    check = check_optimised(tmp_path / "log.onnx", np.full((2, 4), -1.0))
    assert not check.passed
    assert check.problems == ("outputs are not finite",)


def test_float_fallbacks_are_named(tmp_path):
    # A convolution before a non-linearity without an integer kernel stays a float one.
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"]),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"]),
        helper.make_node("DequantizeLinear", ["w", "s"], ["wd"]),
        helper.make_node("Conv", ["d", "wd"], ["c"], name="first"),
        helper.make_node("Sin", ["c"], ["y"], name="sine"),
    ]
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(128),
        "w": np.ones((3, 2, 1, 1), np.int8),
    }
    write_model(tmp_path / "m.onnx", nodes, constants, shape=(2, 4, 4))
    check = check_optimised(tmp_path / "m.onnx", np.ones((1, 2, 4, 4)))
    assert check.float_fallbacks == ("first", "sine")
    assert check.passed


def test_codes_are_reduced_where_the_check_fails(network, tmp_path, monkeypatch):
    from nas.models import parity

    calls = []

    def saturating(path, inputs, **options):
        calls.append(path)
        problems = ("saturates",) if len(calls) == 1 else ()
        return parity.RuntimeCheck(0.3, True, {}, (), problems)

    monkeypatch.setattr(parity, "check_optimised", saturating)
    export_checked(network, tmp_path / "m.onnx", torch.zeros(1), has_vnni=True)
    assert len(calls) == 2
    calls.clear()

    def always(path, inputs, **options):
        return parity.RuntimeCheck(0.3, True, {}, (), ("saturates",))

    monkeypatch.setattr(parity, "check_optimised", always)
    with pytest.raises(EnvironmentProblem, match=r"m\.onnx is not usable here: saturates"):
        export_checked(network, tmp_path / "m.onnx", torch.zeros(1), has_vnni=False)
    assert not (tmp_path / "m.onnx").exists()


def test_parity_of_an_exact_and_of_a_wrong_file(tmp_path):
    identity = torch.nn.Identity()
    images = torch.eye(4).repeat(25, 1)
    labels = images.argmax(1)
    scaled_identity(tmp_path / "same.onnx", 1.0)
    exact = check_parity(identity, tmp_path / "same.onnx", images, labels, batch_size=7)
    assert (exact.images, exact.agreement, exact.accuracy) == (100, 1.0, 1.0)
    assert exact.max_logit_error == 0
    assert exact.accuracy_difference == 0
    scaled_identity(tmp_path / "other.onnx", -1.0)
    wrong = check_parity(identity, tmp_path / "other.onnx", images, labels)
    assert wrong.agreement == 0
    assert wrong.accuracy_difference == -1
    assert wrong.max_logit_error == 2
    assert wrong.relative_error == pytest.approx(2)
    assert wrong.to_json()["accuracy_difference"] == -1


def test_parity_takes_batches(tmp_path):
    scaled_identity(tmp_path / "m.onnx", 1.0)
    x, y = torch.eye(4), torch.tensor([0, 1, 2, 0])
    from_batches = check_parity(
        torch.nn.Identity(), tmp_path / "m.onnx", [(x[:3], y[:3]), (x[3:], y[3:])]
    )
    assert from_batches.accuracy == 0.75
    unlabelled = check_parity(torch.nn.Identity(), tmp_path / "m.onnx", iter([x]))
    assert unlabelled.accuracy is None
    assert unlabelled.accuracy_difference is None


def test_wrong_calls(tmp_path):
    scaled_identity(tmp_path / "m.onnx", 1.0)
    with pytest.raises(InputError, match="no images"):
        check_parity(SimpleNamespace(), tmp_path / "m.onnx", [])
    with pytest.raises(InputError, match="no images"):
        evaluate_onnx(tmp_path / "m.onnx", [])
    (tmp_path / "no.onnx").write_bytes(b"not a model")
    with pytest.raises(EnvironmentProblem, match=r"cannot load .*no\.onnx"):
        evaluate_onnx(tmp_path / "no.onnx", [torch.zeros(1, 4)])


def test_evaluate_joins_batches(tmp_path):
    scaled_identity(tmp_path / "m.onnx", 2.0)
    out = evaluate_onnx(tmp_path / "m.onnx", [torch.ones(2, 4), np.zeros((1, 4))])
    np.testing.assert_array_equal(out, [[2] * 4, [2] * 4, [0] * 4])


def compared(agreement: float, error: float, outputs: int = 10) -> Parity:
    return Parity(100, agreement, None, None, 0.1, error, 1.0, 0.0, {}, (), outputs)


@pytest.mark.parametrize(
    ("agreement", "error", "outputs", "sound"),
    [
        (1.0, 1e-6, 10, True),
        (0.91, 0.5, 10, True),  # a network near its decision everywhere
        (0.85, 0.26, 10, True),
        (0.69, 0.1, 10, True),  # roundings of a network that hardly decides
        (0.69, 0.2, 10, False),
        (0.25, 1.3, 10, False),
        (0.85, 0.4, 10, False),
        (1.0, 0.2, 1, True),  # one output always agrees
        (1.0, 0.4, 1, False),
        (1.0, float("nan"), 10, False),
    ],
)
def test_a_file_that_computes_another_network_is_told(agreement, error, outputs, sound):
    assert (compared(agreement, error, outputs).problems == ()) == sound


def test_a_file_that_does_not_load_concerns_its_model_alone(tmp_path):
    (tmp_path / "m.onnx").write_bytes(b"no model")
    with pytest.raises(UnusableModel, match=r"cannot load .*m\.onnx"):
        check_parity(torch.nn.Identity(), tmp_path / "m.onnx", torch.eye(4))


def test_a_missing_runtime_concerns_every_model(tmp_path, monkeypatch):
    scaled_identity(tmp_path / "m.onnx", 1.0)
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(MissingExtraError) as found:
        check_parity(torch.nn.Identity(), tmp_path / "m.onnx", torch.eye(4))
    assert not isinstance(found.value, UnusableModel)


@pytest.mark.parametrize("batch", [1, 7, 100, 128])
def test_a_file_of_a_fixed_batch_is_compared_like_any_other(tmp_path, batch):
    scaled_identity(tmp_path / "any.onnx", 2.0)
    scaled_identity(tmp_path / "fixed.onnx", 2.0, batch=batch)
    images = torch.eye(4).repeat(25, 1)
    double = torch.nn.Linear(4, 4, bias=False)
    double.weight.data = 2 * torch.eye(4)
    expected = evaluate_onnx(tmp_path / "any.onnx", [images])
    np.testing.assert_array_equal(evaluate_onnx(tmp_path / "fixed.onnx", [images]), expected)
    assert check_optimised(tmp_path / "fixed.onnx", images).passed
    found = check_parity(double, tmp_path / "fixed.onnx", images, batch_size=9)
    assert (found.images, found.agreement, found.max_logit_error) == (100, 1.0, 0.0)
