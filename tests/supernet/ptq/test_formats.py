"""Post-training quantisation in number formats, down to the exported file."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from search_spaces.errors import InputError
from search_spaces.number_formats import NUMBER_FORMATS, number_format
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training
from supernet.ptq.ranges import RangeObserver
from supernet.ptq.sensitivity import layer_sensitivity


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 16, 3, padding=1, groups=8),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(16, 12, 1),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(12, 10),
    ).eval()


def images() -> torch.Tensor:
    return torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def run(path, x: torch.Tensor, *, optimised: bool = True) -> np.ndarray:
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options).run(None, {"input": x.numpy()})[0]


@pytest.mark.parametrize("name", list(NUMBER_FORMATS))
@pytest.mark.parametrize("group", [0, 16])
def test_a_file_computes_what_the_network_does(name, group, tmp_path):
    quantised = quantize_post_training(
        network(), [images()], (name, 32), steps=("mse", "bias"), group=group, edge_bits=None
    )
    layers = quantised.plain_layers()
    assert {layer.chosen.name for layer in layers} == {name}
    summary = export_onnx(quantised, tmp_path / "m.onnx")
    wanted = quantised(images()).detach().numpy()
    found = run(tmp_path / "m.onnx", images())
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    weights = sum(layer.op.weight.numel() for layer in layers)
    assert summary.weights_kib * 8192 >= weights * number_format(name).bits


@pytest.mark.parametrize("name", ["fp8_e4m3", "fp8_e5m2"])
def test_inputs_in_float8_are_onnx_tensors_of_the_type(name, tmp_path):
    quantised = quantize_post_training(
        network(), [images()], (name, name), steps=("mse",), edge_bits=None
    )
    export_onnx(quantised, tmp_path / "m.onnx")
    wanted = quantised(images()).detach().numpy()
    for optimised in (False, True):
        found = run(tmp_path / "m.onnx", images(), optimised=optimised)
        np.testing.assert_allclose(found, wanted, atol=1e-4 * np.abs(wanted).max())
    model = onnx.load(tmp_path / "m.onnx")
    kind = onnx.TensorProto.DataType.Value(number_format(name).onnx)
    assert sum(t.data_type == kind for t in model.graph.initializer) >= 5
    assert model.opset_import[0].version == 19


def test_whole_numbers_run_on_integer_kernels(tmp_path):
    quantised = quantize_post_training(network(), [images()], ("fp4_e2m1", 8), steps=("mse",))
    inner = quantised.plain_layers()[1]
    codes = inner.weight_codes()
    assert inner.code_range == (-12, 12) and codes.abs().max() <= 12
    assert {abs(int(c)) for c in codes.unique()} <= {0, 1, 2, 3, 4, 6, 8, 12}
    export_onnx(quantised, tmp_path / "m.onnx")
    found, wanted = run(tmp_path / "m.onnx", images()), quantised(images()).detach().numpy()
    assert np.linalg.norm(found - wanted) <= 0.05 * np.linalg.norm(wanted)


def test_what_cannot_be_is_refused_with_the_reason(tmp_path):
    with pytest.raises(InputError, match="nf4 is a format of weights"):
        quantize_post_training(network(), [images()], (8, "nf4"))
    with pytest.raises(InputError, match="unknown number format 'fp5'"):
        quantize_post_training(network(), [images()], ("fp5", 8))
    quantised = quantize_post_training(
        network(), [images()], (8, "fp6_e2m3"), steps=("mse",), edge_bits=None
    )
    with pytest.raises(InputError, match=r"0: ONNX Runtime computes no inputs in fp6_e2m3"):
        export_onnx(quantised, tmp_path / "m.onnx")


def test_outliers_widen_an_integer_grid_and_not_that_of_a_float():
    observer = RangeObserver("max")
    x = torch.cat([images().flatten(), torch.tensor([500.0])])
    observer.see(x)
    chosen = number_format("fp8_e4m3")
    step = observer.format_step(chosen)
    from supernet.quantizers.formats import round_to_format

    small = x[x.abs() < 3]
    of_float = (round_to_format(small / step, chosen) * step - small).square().mean()
    of_integers = (observer.grid(8)(small) - small).square().mean()
    assert of_float < 0.05 * of_integers


def test_sensitivity_has_a_column_for_a_format():
    table = layer_sensitivity(
        network(),
        [images()],
        weight_bits=(4, "nf4", "bitmod3"),
        activation_bits=(8, "fp8_e4m3"),
        group=16,
    )
    name = table.layers[1]
    assert table.cost(name, "bitmod3", 8) > table.cost(name, "nf4", 8) > 0
    assert table.cost(name, 32, "fp8_e4m3") > 0
    with pytest.raises(InputError, match="no column for shift4"):
        table.cost(name, "shift4", 8)
