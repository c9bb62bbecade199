"""What the supernet of every registered space must do: the same contract for all of them."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from nas.models.parity import check_optimised
from search_spaces.plan import LayerPlan, NetworkPlan
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.plain import PlainLayer
from supernet.training.subnets import BitsStage, SandwichSampler, float_plan

NAMES = [name for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)]
CASES = {
    **{name: (name, {}) for name in NAMES},
    "fused or not, and exits": (
        "mobilenet",
        {
            "stages": [
                {"channels": 8, "stride": 1, "depths": [1, 2], "blocks": ["mbconv", "fused"]},
                {"channels": 16, "stride": 2, "depths": [1], "squeeze": True,
                 "activation": "hswish"},
            ],
            "expands": [1, 2],
            "exits": [1],
        },
    ),
    "two kinds of residual": (
        "resnet",
        {
            "stages": [{"channels": 16, "stride": 2, "depths": [1, 2], "expands": [0.5, 1],
                        "blocks": ["basic", "bottleneck"]}],
            "stem_pool": True,
        },
    ),
}  # fmt: skip
FLOAT_OPERATORS = {
    "vit": {"Add", "LayerNormalization", "Softmax", "Gelu", "Mul", "ReduceMean"},
    "hybrid": {"Mul", "Softmax"},
    "fused or not, and exits": {"HardSwish", "HardSigmoid"},
    "two kinds of residual": {"MaxPool"},  # not in ONNX Runtime's NHWC form for all sizes
}
"""What computes on floats in a quantised file, by the type of the operator."""


@lru_cache
def build(case: str) -> Supernet:
    torch.manual_seed(0)
    name, config = CASES[case]
    preset = {"preset": "8x8"} if "8x8" in getattr(SPACES.get(name), "PRESETS", ()) else {}
    bits = {"weight_bits": [2, 3, 4, 8], "activation_bits": [2, 3, 4, 8]}
    space = build_space(name, input_channels=1, outputs=5, **preset, **bits, **config)
    supernet = Supernet(space)
    with torch.no_grad():
        for key, parameter in supernet.named_parameters():
            if key.endswith("gamma"):  # those of residual blocks start at 0
                large = 1.5 if bool(parameter.any()) else 0.4
                parameter.copy_(torch.empty_like(parameter).uniform_(large / 3, large))
                parameter[::3] *= -1
    return supernet


def plans(case: str, n: int):
    space = build(case).space
    rng = np.random.default_rng(1)
    archs = [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(n))]
    return [space.plan(arch) for arch in archs]


def at_bits_of(case: str, plan: NetworkPlan, bits: int) -> NetworkPlan:
    """``plan`` with its searched layers at ``bits``; edges stay as they are."""
    ranges = build(case).ranges

    def change(layer: LayerPlan) -> LayerPlan:
        if bits not in ranges[layer.name].weight_bits:
            return layer
        return replace(layer, weight_bits=bits, activation_bits=bits)

    blocks = (replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    return replace(plan, blocks=tuple(blocks))


def extracted(case: str, plan: NetworkPlan):
    supernet = build(case)
    torch.manual_seed(0)
    images = torch.randn(32, *plan.input_shape)
    statistics = {
        # Channels that hardly vary over random images would amplify a rounding at random.
        name: (mean, variance.clamp(min=0.5 * float(variance.mean())))
        for name, (mean, variance) in supernet.statistics(plan, [images]).items()
    }
    return supernet.extract(plan, statistics), images, statistics


@torch.no_grad()
def noise_response(network, images, expected, size: float) -> float:
    """Return how far outputs move when layers get noise of ``size`` of their outputs' spread."""
    torch.manual_seed(1)
    hooks = [
        layer.register_forward_hook(
            lambda m, args, out: out + size * out.std() * torch.randn_like(out)
        )
        for layer in network.plain_layers()
    ]
    moved = np.linalg.norm(network(images).numpy() - expected)
    for hook in hooks:
        hook.remove()
    return float(moved)


@pytest.fixture(params=CASES)
def case(request) -> str:
    return request.param


def test_an_extracted_network_gives_the_supernets_outputs_exactly(case):
    for plan in plans(case, 3):
        network, images, statistics = extracted(case, plan)
        with torch.no_grad():
            assert torch.equal(network(images), build(case).evaluate(images, plan, statistics))
            assert network(images).shape == (32, 5)


def test_costs_are_those_of_the_network_that_is_built(case):
    for plan in plans(case, 3):
        network, images, _ = extracted(case, plan)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            network(images[:1])
        assert counter.get_total_flops() == 2 * plan.macs
        convolutions = sum(
            layer.op.weight.numel() + layer.op.weight.shape[0] for layer in network.plain_layers()
        )
        inside = {id(p) for layer in network.plain_layers() for p in layer.parameters()}
        beside = sum(p.numel() for p in network.parameters() if id(p) not in inside)
        assert convolutions + beside == plan.parameters


def test_codes_of_a_narrow_network_are_a_prefix_of_the_wide_ones(case):
    wide, *others = (at_bits_of(case, plan, 4) for plan in plans(case, 6))
    wide_layers = {layer.layer.name: layer for layer in extracted(case, wide)[0].plain_layers()}
    compared = 0
    for plan in others:
        for layer in extracted(case, plan)[0].plain_layers():
            other = wide_layers.get(layer.layer.name)
            if other is None or other.layer.kernel != layer.layer.kernel:
                continue
            codes, prefix = layer.weight_codes(), other.weight_codes()
            prefix = prefix[tuple(slice(n) for n in codes.shape)]
            assert torch.equal(codes, prefix), layer.layer.name
            compared += codes.shape != other.weight_codes().shape
    assert compared > 3


def test_statistics_are_those_of_the_batch_norms(case):
    for plan in plans(case, 2):
        network, _, statistics = extracted(case, plan)
        normed = {
            m.layer.name
            for m in network.modules()
            if isinstance(m, PlainLayer) and isinstance(m.norm, nn.BatchNorm2d)
        }
        assert set(statistics) == normed


@pytest.mark.parametrize("bits", [8, 4, 3, 2, None])
def test_the_exported_file_computes_what_the_network_does(case, bits, tmp_path):
    for i, plan in enumerate(plans(case, 2)[2 if bits is None else 0 :]):
        plan = plan if bits is None else at_bits_of(case, plan, bits)
        network, images, _ = extracted(case, plan)
        summary = export_onnx(network, tmp_path / f"{i}.onnx")
        assert summary.weights_kib == pytest.approx(plan.weights_kib)
        session = onnxruntime.InferenceSession(str(tmp_path / f"{i}.onnx"))
        found = session.run(None, {"input": images.numpy()})[0]
        with torch.no_grad():
            expected = network(images).numpy()
        # An untrained network carries a code that rounds the other way through all its layers,
        # so the measure is what it does to noise of a few thousandths of each layer's output.
        allowed = 3 * noise_response(network, images, expected, 3e-3)
        assert np.linalg.norm(found - expected) <= max(allowed, 0.01 * np.linalg.norm(expected))
        if i == 0:
            check = check_optimised(tmp_path / f"{i}.onnx", images)
            kinds = {name.rsplit("_", 1)[0] for name in check.float_fallbacks}
            assert kinds <= FLOAT_OPERATORS.get(case, set()), check.float_fallbacks


def test_a_sandwich_step_trains_every_kind_of_layer(case):
    supernet = build(case)
    sampler = SandwichSampler(supernet.space, supernet.ranges, stages=[BitsStage(0, (2, 4, 8))])
    supernet.zero_grad()
    for plan in sampler.plans(0, 0.5):
        supernet(torch.randn(8, *plan.input_shape), plan).square().mean().backward()
    largest = supernet.space.plan(supernet.space.largest())
    for layer in largest.layers():
        gradient = supernet.layer(layer.name).weight.grad
        assert gradient is not None and gradient.isfinite().all() and gradient.any(), layer.name
    for operator in largest.operators():
        for parameter in supernet.operator(operator.name).parameters():
            assert parameter.grad is not None and parameter.grad.isfinite().all()
    supernet.zero_grad()


def test_a_float_network_has_no_quantiser(case):
    supernet = build(case)
    plan = float_plan(supernet.space.plan(supernet.space.largest()))
    network, images, statistics = extracted(case, plan)
    assert plan.stream_bits == 32
    with torch.no_grad():
        assert torch.equal(network(images), supernet.evaluate(images, plan, statistics))
