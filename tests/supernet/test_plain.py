"""Extracted networks compute exactly what the supernet computes."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.plan import NetworkPlan
from search_spaces.spaces.mobilenet import PRESETS, MobileNetSpace
from supernet.network import Supernet
from supernet.plain import Source

# The stages of the 224-pixel preset with its squeeze and hswish, thinner, on small images.
OFA = {
    "preset": "224x224-ofa",
    "stages": [
        replace(s, channels=s.channels // 4, depths=s.depths[:2])
        for s in PRESETS["224x224-ofa"].stages
    ],
    "resolutions": [16, 24],
    "widths": [0.75, 1.0],
    "head_channels": 32,
    "feature_channels": 40,
    "divisor": 4,
}
MIXED = {
    "preset": "8x8",
    "expands": [1, 2],
    "weight_bits": [2, 5, 16, 32],
    "activation_bits": [1, 4, 16, 32],
}
CASES = {
    "8x8": ({"preset": "8x8"}, 1),
    "28x28": ({"preset": "28x28"}, 1),
    "ofa": (OFA, 3),
    "mixed": (MIXED, 3),
    "block": ({"preset": "8x8", "granularity": "block"}, 1),
}


@lru_cache
def build(case: str) -> Supernet:
    torch.manual_seed(0)
    config, channels = CASES[case]
    supernet = Supernet(MobileNetSpace.from_config(input_channels=channels, outputs=6, **config))
    with torch.no_grad():
        for name, parameter in supernet.named_parameters():
            if name.endswith("gamma"):
                parameter.copy_(torch.randn_like(parameter))
            elif name.endswith("beta"):
                parameter.copy_(0.3 * torch.randn_like(parameter))
            elif "transforms" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
    return supernet


def random_bits(supernet: Supernet, plan: NetworkPlan, rng: np.random.Generator) -> NetworkPlan:
    """Give every layer, the edges too, bits it has a quantiser for, or float."""

    def change(layer):
        elastic = supernet.layer(layer.name)
        inputs = elastic.inputs[layer.source].quantizer.bits
        return replace(
            layer,
            weight_bits=int(rng.choice([*elastic.weight_quantizer.bits, 32])),
            activation_bits=int(rng.choice([*inputs, 32])),
        )

    return replace(
        plan, blocks=tuple(replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    )


def draw(supernet: Supernet, seed: int) -> tuple[NetworkPlan, torch.Tensor]:
    rng = np.random.default_rng(seed)
    plan = supernet.space.plan(supernet.space.sample(rng))
    if seed % 2:
        plan = random_bits(supernet, plan, rng)
    torch.manual_seed(seed)
    return plan, torch.randn(5, *plan.input_shape)


@pytest.mark.parametrize("case", CASES)
@settings(max_examples=5)
@given(seed=st.integers(0, 2**31))
def test_outputs_equal_the_supernets_exactly(case, seed):
    supernet = build(case)
    plan, images = draw(supernet, seed)
    statistics = supernet.statistics(plan, [torch.randn(8, *plan.input_shape)])
    network = supernet.extract(plan, statistics)
    with torch.no_grad():
        assert torch.equal(network(images), supernet.evaluate(images, plan, statistics))
        assert torch.equal(network(images[:1]), supernet.evaluate(images[:1], plan, statistics))


def test_float_everywhere_equals_exactly_too():
    supernet = build("ofa")
    plan, images = draw(supernet, 0)
    layers = [tuple(replace(la, weight_bits=32, activation_bits=32) for la in b.layers)
              for b in plan.blocks]  # fmt: skip
    plan = replace(
        plan, blocks=tuple(replace(b, layers=la) for b, la in zip(plan.blocks, layers, strict=True))
    )
    assert plan.stream_bits == 32
    statistics = supernet.statistics(plan, [images])
    network = supernet.extract(plan, statistics)
    with torch.no_grad():
        assert torch.equal(network(images), supernet.evaluate(images, plan, statistics))
    assert all(source.bits == 32 for source in network.modules() if isinstance(source, Source))
    with pytest.raises(ValueError, match="stem are float"):
        network.plain_layers()[0].weight_codes()


@pytest.mark.parametrize("case", ["8x8", "mixed"])
def test_weights_are_whole_codes_of_their_bits_times_the_step(case):
    supernet = build(case)
    seen = set()
    for seed in range(4):
        plan, images = draw(supernet, 2 * seed)
        network = supernet.extract(plan, supernet.statistics(plan, [images]))
        assert network.plan == plan
        for layer in network.plain_layers():
            bits = layer.layer.weight_bits
            if bits == 32:
                assert layer.weight_step is None
                continue
            seen.add(bits)
            codes = layer.weight_codes()
            assert codes.dtype == (torch.int8 if bits <= 8 else torch.int16)
            assert codes.min().item() >= -(2 ** (bits - 1))
            assert codes.max().item() < 2 ** (bits - 1)
            step = layer.weight_step.view(-1, *[1] * (codes.dim() - 1))
            torch.testing.assert_close(codes * step, layer.op.weight.data)
    assert len(seen) >= 3


def test_an_extracted_network_shares_nothing():
    supernet = build("8x8")
    plan, images = draw(supernet, 4)
    statistics = supernet.statistics(plan, [images])
    network = supernet.extract(plan, statistics)
    assert not network.training
    with torch.no_grad():
        before = network(images)
        saved = {k: v.clone() for k, v in supernet.state_dict().items()}
        for parameter in supernet.parameters():
            parameter.add_(1.0)
        after = network(images)
        supernet.load_state_dict(saved)
    assert torch.equal(before, after)


def test_statistics_of_every_layer_are_needed():
    supernet = build("8x8")
    plan, images = draw(supernet, 4)
    statistics = supernet.statistics(plan, [images])
    del statistics["head.conv"]
    with pytest.raises(KeyError, match=r"head\.conv"):
        supernet.extract(plan, statistics)


def test_a_source_prints_its_constants():
    source = Source("hswish", bits=4, step=0.25, zero_point=2)
    assert "hswish, bits=4, step=0.25, zero=2" in repr(source)
    x = torch.tensor([-9.0, 1.0, 9.0])
    assert source(x).tolist() == [0.0, 0.75, 3.25]
