"""The supernet: every architecture runs, with statistics of its own."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from search_spaces.spaces.mobilenet import PRESETS, MobileNetSpace
from supernet.batchnorm import BatchStatistics, FrozenStatistics
from supernet.network import Supernet, layer_ranges
from supernet.training.subnets import at_bits

SMALL = {
    "preset": "8x8",
    "stages": [
        {"channels": 8, "stride": 1, "depths": [1, 2]},
        {"channels": 12, "stride": 2, "depths": [1, 2], "activation": "hswish", "squeeze": True},
    ],
    "stem_channels": 8,
    "head_channels": 16,
    "expands": [1, 2],
}


def build(**changes) -> Supernet:
    torch.manual_seed(0)
    config = {**SMALL, **changes}
    return Supernet(MobileNetSpace.from_config(input_channels=1, outputs=5, **config))


def archs(space, n: int, seed: int = 0):
    genes = space.sample_genes(np.random.default_rng(seed), n)
    return [*space.decode(genes), space.largest(), space.smallest()]


def largest_at(space, bits: int):
    values = dict(space.largest().items)
    return space.arch({n: bits if ".w." in n or ".a." in n else v for n, v in values.items()})


@pytest.mark.parametrize("preset", PRESETS)
def test_the_range_of_a_layer_covers_every_architecture(preset):
    space = MobileNetSpace.from_config(preset=preset)
    ranges = layer_ranges(space)
    for arch in archs(space, 15):
        for layer in space.plan(arch).layers():
            extent = ranges[layer.name]
            assert layer.in_channels <= extent.largest.in_channels
            assert layer.out_channels <= extent.largest.out_channels
            assert layer.kernel in extent.kernels
            assert layer.weight_bits in extent.weight_bits
            assert layer.activation_bits in extent.activation_bits
            assert layer.source in extent.sources
            assert (layer.groups > 1) == (extent.largest.groups > 1)


def test_a_depthwise_layer_after_no_expansion_takes_the_stream():
    ranges = build().ranges
    assert ranges["s1.b1.depthwise"].sources == ("relu", "stream")
    assert build(expands=[1]).ranges["s1.b1.depthwise"].sources == ("stream",)
    assert build(expands=[2]).ranges["s1.b1.depthwise"].sources == ("relu",)


def test_the_kind_of_a_block_and_its_width_together_say_what_a_layer_takes():
    stage = {"channels": 8, "stride": 1, "depths": [1, 2], "blocks": ["mbconv", "fused"]}
    supernet = build(stages=[stage], weight_bits=[4, 8], activation_bits=[8])
    assert supernet.ranges["s1.b1.depthwise"].sources == ("relu", "stream")
    for arch in archs(supernet.space, 30):
        assert supernet(torch.randn(2, 1, 8, 8), arch).shape == (2, 5)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"granularity": "block"},
        {"weight_bits": [32], "activation_bits": [32]},
        {"weight_bits": [32], "activation_bits": [2, 4]},
        {"weight_bits": [2, 16, 32], "activation_bits": [1, 16, 32]},
        {"feature_channels": 8, "expands": [1]},
    ],
)
def test_every_architecture_runs_and_learns(changes):
    supernet = build(**changes)
    for arch in archs(supernet.space, 4):
        supernet.zero_grad()
        outputs = supernet(torch.randn(4, 1, 8, 8), arch)
        assert outputs.shape == (4, 5) and outputs.isfinite().all()
        outputs.square().sum().backward()
        for layer in supernet.space.plan(arch).layers():
            gradient = supernet.layer(layer.name).weight.grad
            assert gradient is not None and gradient.isfinite().all()


def test_a_residual_that_only_some_widths_have_runs():
    # 20 and 24 channels at full width, 12 and 12 at half of it.
    supernet = build(
        stem_channels=20,
        stages=[{"channels": 24, "stride": 1, "depths": [1]}],
        widths=[0.5, 1.0],
    )
    space = supernet.space
    narrow, wide = space.smallest(), space.largest()
    assert space.plan(narrow).blocks[1].residual and not space.plan(wide).blocks[1].residual
    for arch in (narrow, wide):
        assert supernet(torch.randn(2, 1, 8, 8), arch).isfinite().all()
    assert "s1_b1_sum" in supernet.points


def test_blocks_that_are_never_residual_have_no_sum():
    supernet = build()
    assert "s1_b2_sum" in supernet.points and "s2_b1_sum" not in supernet.points


def test_residual_blocks_start_as_the_identity():
    supernet = build()
    for block in supernet.space.plan(supernet.space.largest()).blocks:
        gamma = supernet.layer(block.layers[-1].name).gamma
        if gamma is not None:
            assert bool((gamma == 0).all()) == block.residual, block.name
    other = Supernet(supernet.space, zero_init_residual=False)
    gammas = [p for n, p in other.named_parameters() if n.endswith("gamma")]
    assert all((gamma == 1).all() for gamma in gammas)


def test_an_architecture_and_its_plan_are_the_same():
    supernet = build()
    arch = supernet.space.sample(np.random.default_rng(1))
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        first = supernet(x, arch)
        assert torch.equal(first, supernet(x, supernet.space.plan(arch)))
        assert torch.equal(first, supernet(x, arch, BatchStatistics()))


def test_only_layers_of_the_architecture_get_gradients():
    supernet = build()
    arch = supernet.space.smallest()
    supernet(torch.randn(4, 1, 8, 8), arch).sum().backward()
    used = {layer.name for layer in supernet.space.plan(arch).layers()}
    for name in supernet.ranges:
        assert (supernet.layer(name).weight.grad is not None) == (name in used), name


def test_statistics_depend_on_the_bits():
    supernet = build()
    images = [torch.randn(16, 1, 8, 8)]
    high, low = (supernet.statistics(largest_at(supernet.space, bits), images) for bits in (8, 2))
    assert sorted(high) == sorted(low)
    different = [n for n in high if not torch.allclose(high[n][1], low[n][1], rtol=1e-2)]
    assert "s1.b1.project" in different


def test_pooled_statistics_of_the_first_layer_are_those_of_one_batch():
    supernet = build()
    plan = at_bits(supernet.space.plan(supernet.space.largest()), 32, 32)
    images = torch.randn(24, 1, 8, 8)
    whole = supernet.statistics(plan, [images])["stem"]
    parts = supernet.statistics(plan, images.split([5, 16, 3]))["stem"]
    torch.testing.assert_close(parts[0], whole[0], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(parts[1], whole[1], rtol=1e-4, atol=1e-6)


def test_recording_leaves_the_network_alone():
    supernet = build()
    arch = supernet.space.largest()
    images = [torch.randn(8, 1, 8, 8)]
    supernet.statistics(arch, images)  # initialises the steps
    before = {k: v.clone() for k, v in supernet.state_dict().items()}
    supernet.statistics(arch, images)
    assert all(torch.equal(before[k], v) for k, v in supernet.state_dict().items())


def test_with_frozen_statistics_an_image_does_not_see_its_batch():
    supernet = build()
    arch = supernet.space.sample(np.random.default_rng(3))
    images = torch.randn(8, 1, 8, 8)
    statistics = supernet.statistics(arch, [images])
    together = supernet.evaluate(images, arch, statistics)
    alone = torch.cat([supernet.evaluate(images[i : i + 1], arch, statistics) for i in range(8)])
    assert not together.requires_grad
    # Rounding to codes turns float noise into a step now and then, so compare most of them.
    assert ((together - alone).abs() < 1e-4).float().mean() > 0.9
    with torch.no_grad():
        assert torch.equal(together, supernet(images, arch, FrozenStatistics(statistics)))


def test_another_width_uses_a_prefix_of_the_weights():
    supernet = build(widths=[0.5, 1.0])
    space = supernet.space
    narrow = space.plan(space.smallest())
    x = torch.randn(4, 1, 8, 8)
    with torch.no_grad():
        before = supernet(x, at_bits(narrow, 32, 32))
        for layer in narrow.layers():
            supernet.layer(layer.name).weight[layer.out_channels :] = 1e6
        assert torch.equal(supernet(x, at_bits(narrow, 32, 32)), before)


def test_state_round_trips_with_the_flags_of_the_quantisers():
    first, second = build(), build()
    x = torch.randn(4, 1, 8, 8)
    arch = first.space.sample(np.random.default_rng(5))
    first(x, arch)
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        assert torch.equal(first(10 * x, arch), second(10 * x, arch))
    for name, value in second.state_dict().items():
        assert torch.equal(value, first.state_dict()[name]), name
    assert any("initialized" in name and value.any() for name, value in second.state_dict().items())


def test_a_plan_at_bits_no_quantiser_has_is_refused():
    supernet = build()
    plan = supernet.space.plan(supernet.space.largest())
    block = plan.blocks[1]
    layers = (replace(block.layers[0], weight_bits=5), *block.layers[1:])
    odd = replace(plan, blocks=(plan.blocks[0], replace(block, layers=layers), *plan.blocks[2:]))
    with pytest.raises(ValueError, match="trained for 5 bits"):
        supernet(torch.randn(2, 1, 8, 8), odd)
