"""Weights and inputs in number formats: codes, scales of groups, gradients."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.number_formats import NUMBER_FORMATS, number_format
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.quantizers.formats import (
    EncodedWeights,
    encode_weights,
    least_error_steps,
    round_to_format,
    weight_quantizer,
)
from supernet.quantizers.registry import QuantizerScheme


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("name", list(NUMBER_FORMATS))
def test_rounding_is_encoding_and_decoding(name):
    chosen = number_format(name)
    for variant in range(chosen.variants):
        _, values, middles = chosen.ladder(variant)
        x = np.concatenate([values, middles, -middles, normal(500).numpy() * chosen.largest(), [0]])
        x = x.astype(np.float32)
        found = round_to_format(torch.from_numpy(x), chosen, variant).numpy()
        wanted = chosen.decode(chosen.encode(x, variant), variant)
        np.testing.assert_array_equal(found, wanted)
        np.testing.assert_array_equal(np.signbit(found), np.signbit(wanted))


@pytest.mark.parametrize("name", list(NUMBER_FORMATS))
@pytest.mark.parametrize("scales", ["tensor", "channel", 16])
def test_finer_scales_err_less_and_decode_to_the_shape(name, scales):
    w = normal(6, 5, 3, 3) * torch.linspace(0.1, 3, 6)[:, None, None, None]
    encoded = encode_weights(w, number_format(name), scales=scales)
    assert encoded.decoded().shape == tuple(w.shape)
    assert encoded.codes.max() < 2 ** number_format(name).bits
    groups = {"tensor": 1, "channel": 1, 16: 3}[scales]
    assert encoded.scales.shape == (6, groups)

    def error(one: EncodedWeights) -> float:
        return float(np.square(one.decoded() - w.numpy()).sum())

    whole = encode_weights(w, number_format(name), scales="tensor")
    # A float has as many values in each octave, so a scale of one's own hardly helps it.
    assert error(encoded) <= error(whole) * (1.1 if name.startswith("fp8") else 1.001)
    assert error(encoded) <= error(
        encode_weights(w, number_format(name), scales=scales, method="max")
    )
    assert encoded.nbytes >= whole.nbytes


def test_a_group_takes_the_table_that_suits_it():
    chosen = number_format("bitmod4")
    rows = torch.tensor([[0.0, 1, -2, 6, 5, 3], [0.0, 1, -2, 6, -5, 3], [0.5, 1, -2, 6, 8, -3]])
    steps, tables = least_error_steps(rows, chosen, clip=1.0, tries=1)
    np.testing.assert_allclose(steps, 1.0)
    assert tables.tolist() == [0, 1, 2]


def test_what_fills_up_a_group_does_not_count():
    w = torch.full((1, 5), 4.0)
    encoded = encode_weights(w, number_format("shift3"), scales=4)
    np.testing.assert_allclose(encoded.decoded(), 4.0, rtol=1e-6)


def test_wrong_scales_are_told():
    with pytest.raises(InputError, match="use 'tensor', 'channel', or a number"):
        encode_weights(normal(2, 4), number_format("nf4"), scales="row")
    good = encode_weights(normal(2, 4), number_format("nf4"))
    with pytest.raises(InputError, match=r"have shape \(2, 1\), not \(2, 2\)"):
        EncodedWeights(good.chosen, good.codes, good.scales, good.tables, group=2)


def test_the_gradient_of_a_step_is_that_of_its_logarithm():
    from supernet.quantizers.registry import QUANTIZERS

    quantizer = QUANTIZERS.get("fp4_e2m1").weights([4], [1], channels=None, count=64)
    w = normal(8, 8, 1, 1)
    quantizer(w, 4, full=w)
    with torch.no_grad():
        quantizer.log_step -= 1  # much is clipped
    y = quantizer(w, 4, full=w)
    y.sum().backward()
    step = quantizer.log_step.exp().item()
    inside = w.abs() <= 6 * step
    assert 0.2 < inside.float().mean() < 0.9
    wanted = (y - w * inside).sum().item() / (w.numel() * 6) ** 0.5
    assert quantizer.log_step.grad.item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("name", ["fp8_e4m3", "nf4", "shift4"])
def test_a_supernet_trains_and_exports_formats_that_are_no_integers(name, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    torch.manual_seed(0)
    bits = number_format(name).bits
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    scheme = QuantizerScheme(weights={"default": "lsq", bits: name})
    supernet = Supernet(space, quantizers=scheme)
    with torch.no_grad():
        for key, parameter in supernet.named_parameters():
            if key.endswith("gamma"):
                parameter.copy_(torch.sign(torch.randn_like(parameter)))
    genes = space.genes([space.largest()])
    for column, choice in enumerate(space.choices):
        if ".w." in choice.name and bits in choice.options:
            genes[:, column] = choice.options.index(bits)
    plan = space.plan(space.decode(space.canonical(genes))[0])
    x = normal(32, *plan.input_shape)
    network = supernet.extract(plan, supernet.statistics(plan, [x]))
    encoded = [layer for layer in network.plain_layers() if layer.encoded is not None]
    assert encoded and all(layer.chosen.name == name for layer in encoded)
    for layer in encoded:
        np.testing.assert_allclose(
            layer.encoded.decoded(), layer.op.weight.detach().numpy(), rtol=1e-5, atol=1e-6
        )
    export_onnx(network, tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"), options)
    found = session.run(None, {"input": x.numpy()})[0]
    wanted = network(x).detach().numpy()
    assert np.linalg.norm(found - wanted) <= 0.1 * np.linalg.norm(wanted)


def test_a_copy_of_fewer_channels_takes_the_first_steps():
    """Winners that begin in float meet their formats with the channels of one architecture."""
    quantizer = weight_quantizer(number_format("nf4"))([4], [3], channels=8, count=72)
    w = normal(5, 1, 3, 3)
    assert quantizer(w, 4).shape == w.shape
    assert bool(quantizer.initialized.all())
    assert quantizer.log_step[0, 0, 5:].abs().max() == 0 < quantizer.log_step[0, 0, :5].abs().min()
