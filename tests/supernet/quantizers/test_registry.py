"""Every registered quantiser keeps the same promises."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.onnx.packing import pack_onnx
from supernet.quantizers.kinds import (
    BinaryWeightQuantizer,
    DorefaWeightQuantizer,
    FixedPointWeightQuantizer,
    PactActivationQuantizer,
    TernaryWeightQuantizer,
    TrainedTernaryWeightQuantizer,
)
from supernet.quantizers.mixture import AttentionWeightQuantizer
from supernet.quantizers.registry import QUANTIZERS, QuantizerScheme
from tests.supernet.packed_reference import PackedReference

WEIGHTS = [
    (name, bits)
    for name in QUANTIZERS
    if QUANTIZERS.get(name).weights is not None
    for bits in (1, 2, 3, 4, 6, 8)
    if QUANTIZERS.get(name).weight_bits[0] <= bits <= QUANTIZERS.get(name).weight_bits[1]
]
ACTIVATIONS = [name for name in QUANTIZERS if QUANTIZERS.get(name).activations is not None]


def weights_of(name: str, bits: int, channels: int | None = None):
    return QUANTIZERS.get(name).weights([bits], [3], channels=channels, count=216)


def full() -> torch.Tensor:
    return torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)) * 0.3


@pytest.mark.parametrize(("name", "bits"), WEIGHTS)
@pytest.mark.parametrize("per_channel", [False, True])
def test_weights(name, bits, per_channel):
    quantizer = weights_of(name, bits, 6 if per_channel else None)
    w = full().requires_grad_()
    y = quantizer(w, bits, full=w)
    step = quantizer.step(3, bits, 6, full=full()).view(-1, 1, 1, 1)
    codes = (y / step).detach()
    chosen = quantizer.number_format(bits)
    if chosen is None or chosen.whole_codes[1]:
        torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
        low, high = quantizer.code_range(bits)
        assert low <= codes.round().min() and codes.round().max() <= high
        assert len(codes.round().unique()) <= 2**bits
    else:
        again = chosen.decode(chosen.encode(codes.numpy()))
        np.testing.assert_allclose(codes.numpy(), again, rtol=1e-5)
    y.square().sum().backward()
    assert torch.isfinite(w.grad).all() and w.grad.abs().sum() > 0
    # A narrow slice has a prefix of the codes.
    narrow = quantizer(full()[:3, :2], bits, full=full())
    torch.testing.assert_close(narrow, y[:3, :2].detach())
    # A loaded quantiser never starts anew.
    again = weights_of(name, bits, 6 if per_channel else None)
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(full(), bits, full=full()), y.detach())


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("bits", [2, 4, 8])
def test_activations(name, signed, bits):
    quantizer = QUANTIZERS.get(name).activations([bits], signed=signed)
    x = torch.randn(8, 20, generator=torch.Generator().manual_seed(1)).requires_grad_()
    y = quantizer(x, bits)
    step, zero = quantizer.constants(bits)
    codes = (y / step + zero).detach()
    torch.testing.assert_close(codes, codes.round(), atol=1e-3, rtol=0)
    assert codes.round().min() >= 0 and codes.round().max() < 2**bits
    torch.testing.assert_close(quantizer(y.detach(), bits), y.detach(), atol=1e-5, rtol=0)
    y.sum().backward()
    assert x.grad.abs().sum() > 0
    again = QUANTIZERS.get(name).activations([bits], signed=signed)
    again.load_state_dict(quantizer.state_dict())
    assert torch.equal(again(100 * x.detach(), bits), quantizer(100 * x.detach(), bits))


SCHEMES = [
    {"weights": "dorefa", "activations": "dorefa", "per_channel": "always"},
    {"weights": "fixed_point", "activations": "fixed_point", "per_channel": "never"},
    {"weights": {"default": "lsq", 2: "twn"}, "activations": "pact"},
    {"weights": {"default": "attention", "2": "ttq"}, "activations": "lsq"},
    {"weights": {"default": "lsq", 2: "shift2", 4: "fp4_e2m1"}},
    {"weights": {"default": "lsq", 2: "levels2"}, "per_channel": "always"},
]


@pytest.mark.parametrize("options", SCHEMES, ids=str)
def test_exported_codes_are_the_networks(options, tmp_path):
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space, quantizers=QuantizerScheme(**options), zero_init_residual=False)
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("gamma"):
                sign = torch.sign(torch.randn_like(parameter))
                parameter.copy_(sign * (0.5 + torch.rand_like(parameter)))
    plan = space.plan(space.sample(np.random.default_rng(0)))
    x = torch.randn(64, *plan.input_shape)
    statistics = supernet.statistics(plan, [x])
    network = supernet.extract(plan, statistics)
    torch.testing.assert_close(network(x), supernet.evaluate(x, plan, statistics))
    for layer in network.plain_layers():
        if hasattr(layer.norm, "running_var"):
            # Channels that hardly vary over random images would amplify a rounding at random.
            layer.norm.running_var.clamp_(min=0.5 * float(layer.norm.running_var.mean()))
    export_onnx(network, tmp_path / "m.onnx")
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    if all(layer.chosen is None or layer.chosen.odd for layer in network.plain_layers()):
        # Whole numbers of other formats need more bits than their codes.
        assert packed.weights_kib == pytest.approx(plan.weights_kib, rel=0.02)
    # Layer by layer: an untrained network carries one code rounded the other way through all of
    # its layers, so the layers are compared on equal inputs.
    reference, grids = PackedReference(packed), packed.graph["grids"]
    layers = {layer.layer.name: layer for layer in network.plain_layers()}
    inputs = {}
    for name, layer in layers.items():
        layer.register_forward_pre_hook(lambda _, x, name=name: inputs.update({name: x[0]}))
    with torch.no_grad():
        network(x)
        for node in packed.nodes():
            if "weights" not in node:
                continue
            layer, out = layers[node["layer"]], grids.get(node["output"])
            values = layer.source(inputs[node["layer"]])
            grid = grids[node["inputs"][0]]
            codes = np.rint(values.numpy() / grid["scale"]).astype(np.int64) + grid["zero_point"]
            found = reference._layer(node, codes, grid, out)
            expected = layer.norm(layer.op(values)).numpy()
            if out is None:
                np.testing.assert_allclose(found, expected, atol=1e-3)
                continue
            expected = np.rint(expected / out["scale"]) + out["zero_point"]
            off = np.abs(found - expected.clip(0, 2 ** out["bits"] - 1))
            assert off.max() <= 1 and (off > 0).mean() < 0.08, node["layer"]


def test_formulas_of_the_papers():
    w = full()
    twn = TernaryWeightQuantizer([2], [3], channels=None, count=216)
    kept = w.abs() > 0.7 * w.abs().mean()
    torch.testing.assert_close(twn(w, 2), w.sign() * kept * w.abs()[kept].mean())
    bwn = BinaryWeightQuantizer([1], [3], channels=6, count=216)
    torch.testing.assert_close(bwn(w, 1), w.sign() * w.abs().mean((1, 2, 3), keepdim=True))
    dorefa = DorefaWeightQuantizer([3], [3], channels=None, count=216)
    unit = torch.tanh(w) / (2 * torch.tanh(w).abs().max()) + 0.5
    torch.testing.assert_close(dorefa(w, 3), 2 * (unit * 7).round() / 7 - 1)


def test_steps_of_fixed_point_are_powers_of_two():
    quantizer = FixedPointWeightQuantizer([4], [3], channels=6, count=216)
    quantizer(full(), 4)
    exponent = quantizer.step(3, 4, 6).log2()
    assert torch.equal(exponent, exponent.round())


def test_the_level_of_pact_learns_from_what_it_clips():
    quantizer = PactActivationQuantizer([4], signed=False)
    quantizer.initialized.fill_(True)  # level 1
    x = torch.tensor([[-1.0, 0.5, 1.0, 3.0]], requires_grad=True)
    quantizer(x, 4).sum().backward()
    assert quantizer.alpha.grad.item() == 2
    assert x.grad.tolist() == [[0, 1, 0, 0]]


def test_gradients_of_trained_ternary_weights():
    quantizer = TrainedTernaryWeightQuantizer([2], [3], channels=None, count=216)
    w = full().requires_grad_()
    upstream = torch.randn(w.shape)
    y = quantizer(w, 2)
    (y * upstream).sum().backward()
    scale = quantizer.scale.detach().item()
    codes = (y / scale).detach().round()
    torch.testing.assert_close(quantizer.scale.grad.sum(), (upstream * codes).sum())
    torch.testing.assert_close(w.grad, upstream * torch.where(codes == 0, 1.0, scale))


def test_the_mixture_ends_at_the_bits_asked_for():
    quantizer = AttentionWeightQuantizer([2, 4, 8], [3], channels=None, count=216)
    with torch.no_grad():
        pure = quantizer(full(), 2, full=full())
        quantizer.attention.uniform_(-9, 9)
    w = full().requires_grad_()
    assert not torch.allclose(quantizer(w, 2, full=w), pure)
    quantizer.set_progress(0.999)
    _, shares = quantizer.shares(0, 0)
    assert shares.sum().item() == pytest.approx(1) and shares[0] > 0.95
    quantizer.set_progress(1.0)
    assert torch.equal(quantizer(w, 2, full=w), pure)


def test_wrong_choices_are_named():
    with pytest.raises(InputError, match="'pact' does not serve weights"):
        QuantizerScheme(weights="pact")
    with pytest.raises(InputError, match="unknown quantiser 'lsk'; did you mean 'lsq'"):
        QuantizerScheme(weights="lsk")
    with pytest.raises(InputError, match="'twn' does not serve weights of 4 bits"):
        QuantizerScheme(weights="twn").check("weights", (2, 4))
    with pytest.raises(InputError, match="per_channel is 'some'"):
        QuantizerScheme(per_channel="some")


def test_bits_that_pass_wait_for_no_data():
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space)
    for name, flags in supernet.named_buffers():
        if ".inputs.stream." in name and name.endswith("initialized"):
            assert flags.tolist()[-1:] == [True]
