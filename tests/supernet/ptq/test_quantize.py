"""Post-training quantisation, end to end: float network in, integer ONNX out."""

from __future__ import annotations

import copy
from collections import Counter
from functools import lru_cache

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.onnx.packing import pack_onnx
from supernet.ptq.adaround import RoundingRecipe
from supernet.ptq.quantize import STEPS, layer_bits, quantize_post_training
from supernet.quantizers.lsq import weight_range
from supernet.training.subnets import float_plan
from tests.supernet.packed_reference import PackedReference

SHORT = RoundingRecipe(iterations=80, batch=32)


class Block(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(outputs)
        self.second = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(outputs)
        self.short = nn.Sequential()
        if stride > 1 or inputs != outputs:
            self.short = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x):
        h = F.relu(self.norm1(self.first(x)))
        return F.relu(self.norm2(self.second(h)) + self.short(x))


class SmallResNet(nn.Module):
    """As people write it: functional and module ReLUs, a pool, a view by the batch's size."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(1, 8, 3, 1, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        )
        self.pool = nn.MaxPool2d(2)
        self.blocks = nn.Sequential(Block(8, 8, 1), Block(8, 16, 2))
        self.gather = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(16, 10)

    def forward(self, x):
        h = self.gather(self.blocks(self.pool(self.stem(x))))
        return self.classifier(h.view(h.size(0), -1))


@lru_cache
def digits() -> tuple[torch.Tensor, torch.Tensor]:
    datasets = pytest.importorskip("sklearn.datasets")
    data = datasets.load_digits()
    x = torch.tensor(data.images, dtype=torch.float32)[:, None] / 8 - 1
    return x, torch.tensor(data.target)


@lru_cache
def trained() -> nn.Module:
    """Return a network of about 97 % on digits, trained in a few seconds."""
    torch.manual_seed(0)
    x, y = digits()
    network = SmallResNet().train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    for _ in range(5):
        for rows in torch.randperm(1200).split(64):
            loss = F.cross_entropy(network(x[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return network.eval()


@torch.no_grad()
def accuracy(network: nn.Module) -> float:
    x, y = digits()
    return (network(x[1200:]).argmax(1) == y[1200:]).float().mean().item()


def calibration() -> list[torch.Tensor]:
    return list(digits()[0][:256].split(128))


def test_eight_bits_lose_nothing_and_the_network_is_left_alone():
    before = copy.deepcopy(trained().state_dict())
    quantized = quantize_post_training(trained(), calibration(), (8, 8), steps=("mse", "bias"))
    assert accuracy(quantized) >= accuracy(trained()) - 0.01
    for name, value in trained().state_dict().items():
        assert torch.equal(value, before[name]), name


def test_each_step_helps_where_bits_are_few():
    # Four bits in one step a layer: what equalisation is for.
    plain = quantize_post_training(trained(), calibration(), (3, 8), steps=())
    ranges = quantize_post_training(trained(), calibration(), (3, 8), steps=("mse",))
    rounded = quantize_post_training(
        trained(), calibration(), (3, 8), steps=("mse", "bias", "adaround"), rounding=SHORT
    )
    x = digits()[0][1200:]
    with torch.no_grad():
        expected = trained()(x)
        errors = [(n(x) - expected).square().mean().item() for n in (plain, ranges, rounded)]
    assert errors[0] > errors[1] > errors[2]
    assert accuracy(rounded) >= accuracy(plain)


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (3, 4), (2, 2)], ids=str)
def test_exported_and_packed_it_computes_the_same_on_integers(bits, tmp_path):
    ort = pytest.importorskip("onnxruntime")
    network = quantize_post_training(trained(), calibration(), bits, steps=("mse", "bias"))
    summary = export_onnx(network, tmp_path / "m.onnx", reduce_range=True)
    assert summary.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.optimized_model_filepath = str(tmp_path / "o.onnx")
    session = ort.InferenceSession(
        str(tmp_path / "m.onnx"), options, providers=["CPUExecutionProvider"]
    )
    x = digits()[0][1200:1400]
    logits = session.run(None, {"input": x.numpy()})[0]
    with torch.no_grad():
        expected = network(x).numpy()
    # One of two bits' codes rounded the other way is a third of the range.
    error = 0.1 if bits[1] > 2 else 0.25
    assert np.linalg.norm(logits - expected) < error * np.linalg.norm(expected)
    operators = Counter(node.op_type for node in onnx.load(tmp_path / "o.onnx").graph.node)
    assert operators["QLinearConv"] == 6 and operators["QGemm"] == 1
    assert operators["QLinearAdd"] == 2 and operators["Relu"] == 0
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    assert packed.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)
    np.testing.assert_array_equal(PackedReference(packed)(x.numpy()), logits)


def test_codes_fit_their_bits():
    network = quantize_post_training(
        trained(), calibration(), (3, 4), rounding=RoundingRecipe(iterations=20)
    )
    for layer in network.plain_layers():
        low, high = weight_range(layer.layer.weight_bits)
        codes = layer.weight_codes()
        assert low <= codes.min() and codes.max() <= high
        step = layer.weight_step.view(-1, *[1] * (codes.dim() - 1))
        torch.testing.assert_close(codes * step, layer.op.weight.detach())


def test_float_bits_change_nothing():
    network = quantize_post_training(trained(), calibration(), (32, 32), steps=("equalize",))
    x = digits()[0][:50]
    with torch.no_grad():
        torch.testing.assert_close(network(x), trained()(x), atol=1e-4, rtol=1e-4)


def test_the_same_seed_gives_the_same_network():
    recipe = RoundingRecipe(iterations=20)
    first, second = (
        quantize_post_training(trained(), calibration(), (4, 4), rounding=recipe, seed=3)
        for _ in range(2)
    )
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("bits", [(8, 8), (4, 4)], ids=str)
def test_an_extracted_network(bits, tmp_path):
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space, zero_init_residual=False)
    plan = float_plan(space.plan(space.largest()))
    x = torch.randn(64, *plan.input_shape)
    network = supernet.extract(plan, supernet.statistics(plan, [x]))
    quantized = quantize_post_training(network, [x], bits, steps=("equalize", "mse", "bias"))
    assert [layer.name for layer in quantized.plan.layers()] == [n.name for n in plan.layers()]
    with torch.no_grad():
        expected, found = network(x), quantized(x)
    if bits == (8, 8):
        assert (found - expected).norm() < 0.1 * expected.norm()
    export_onnx(quantized, tmp_path / "m.onnx")
    pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")


def test_bits_by_layer():
    names = ("a", "b", "c")
    assert layer_bits(names, (4, 4)) == {"a": (8, 8), "b": (4, 4), "c": (8, 8)}
    assert layer_bits(names, (4, 32), None) == dict.fromkeys(names, (4, 32))
    assert layer_bits(names, (4, 32)) == {"a": (8, 32), "b": (4, 32), "c": (8, 32)}
    own = {"a": (2, 8), "b": (3, 8), "c": (4, 8)}
    assert layer_bits(names, own) == own
    with pytest.raises(InputError, match=r"missing \['c'\], unknown \['d'\]"):
        layer_bits(names, {"a": (8, 8), "b": (8, 8), "d": (8, 8)})


def test_bad_input_is_refused():
    with pytest.raises(InputError, match="unknown post-training step 'magic'"):
        quantize_post_training(trained(), calibration(), steps=("magic",))
    with pytest.raises(InputError, match="at least one batch"):
        quantize_post_training(trained(), [])
    assert set(STEPS) == {"equalize", "balance", "mse", "compensate", "bias", "adaround"}
