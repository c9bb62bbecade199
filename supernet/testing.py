"""What the supernet of every space must do, as tests that a space's author runs too.

Subclass the suite and give it a space of small networks::

    class TestMySpace(SupernetContract):
        @pytest.fixture(scope="class")
        def space(self):
            return MySpace.from_config(input_channels=1, outputs=5)
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from search_spaces.plan import LayerPlan, NetworkPlan
from search_spaces.planned import PlannedSpace
from supernet.narrow import narrowed
from supernet.network import Supernet
from supernet.plain import PlainLayer, PlainNetwork
from supernet.training.subnets import BitsStage, SandwichSampler, float_plan

BATCH = 32


def plans_of(space: PlannedSpace, n: int) -> list[NetworkPlan]:
    """Return the largest, the smallest and ``n`` random networks of ``space``."""
    rng = np.random.default_rng(1)
    archs = [space.largest(), space.smallest(), *(space.sample(rng) for _ in range(n))]
    return [space.plan(arch) for arch in archs]


def at_bits(supernet: Supernet, plan: NetworkPlan, bits: int) -> NetworkPlan:
    """Return ``plan`` with its searched layers at ``bits``; edges stay as they are."""

    def change(layer: LayerPlan[int]) -> LayerPlan[int]:
        if bits not in supernet.ranges[layer.name].weight_bits:
            return layer
        return replace(layer, weight_bits=bits, activation_bits=bits)

    blocks = (replace(b, layers=tuple(map(change, b.layers))) for b in plan.blocks)
    return replace(plan, blocks=tuple(blocks))


def extracted(
    supernet: Supernet, plan: NetworkPlan
) -> tuple[PlainNetwork, Tensor, dict[str, tuple[Tensor, Tensor]]]:
    """Return the plain network of ``plan``, images for it and its batch-norm statistics."""
    torch.manual_seed(0)
    images = torch.randn(BATCH, *plan.input_shape)
    statistics = {
        # Channels that hardly vary over random images would amplify a rounding at random.
        name: (mean, variance.clamp(min=0.5 * float(variance.mean())))
        for name, (mean, variance) in supernet.statistics(plan, [images]).items()
    }
    return supernet.extract(plan, statistics), images, statistics


def random_gains(supernet: Supernet) -> Supernet:
    """Give every batch norm random gains of both signs; those of residual blocks start at 0."""
    with torch.no_grad():
        for key, parameter in supernet.named_parameters():
            if key.endswith("gamma"):
                large = 1.5 if bool(parameter.any()) else 0.4
                parameter.copy_(torch.empty_like(parameter).uniform_(large / 3, large))
                parameter[::3] *= -1
    return supernet


class SupernetContract:
    """The promises of :class:`~supernet.network.Supernet` and of what is extracted from it."""

    @pytest.fixture(scope="class")
    def space(self) -> PlannedSpace:
        """The space under test, its networks small."""
        raise NotImplementedError("give the suite a fixture 'space'")

    @pytest.fixture(scope="class")
    def supernet(self, space: PlannedSpace) -> Supernet:
        """An untrained supernet of the space."""
        torch.manual_seed(0)
        return random_gains(Supernet(space))

    def test_an_extracted_network_gives_the_supernets_outputs_exactly(
        self, supernet: Supernet
    ) -> None:
        """Of any architecture, to the bit."""
        for plan in plans_of(supernet.space, 3):
            network, images, statistics = extracted(supernet, plan)
            with torch.no_grad():
                expected = supernet.evaluate(images, plan, statistics)
                assert torch.equal(network(images), expected)
                # Networks that answer for every place of an image have further axes.
                shape = network(images).shape
                assert shape[0] == BATCH and supernet.space.outputs in shape[1:]

    def test_a_narrowed_copy_is_the_same_network_with_its_own_weights_alone(
        self, supernet: Supernet
    ) -> None:
        """It shares no memory with the supernet and trains all that it has."""
        for plan in plans_of(supernet.space, 2):
            network, images, statistics = extracted(supernet, plan)
            copied = narrowed(supernet, plan)
            with torch.no_grad():
                assert torch.equal(copied.evaluate(images, plan, statistics), network(images))
            outputs = copied(images, plan)
            outputs.square().sum().backward()
            for layer in plan.layers():
                gradient = copied.layer(layer.name).weight.grad
                assert gradient is not None and gradient.numel() == layer.weight_count
            shared = {p.data_ptr() for p in supernet.parameters() if p.numel()}
            assert not any(p.data_ptr() in shared for p in copied.parameters() if p.numel())

    def test_costs_are_those_of_the_network_that_is_built(self, supernet: Supernet) -> None:
        """Multiplications are counted while it runs, parameters on its modules."""
        for plan in plans_of(supernet.space, 3):
            network, images, _ = extracted(supernet, plan)
            with FlopCounterMode(display=False) as counter, torch.no_grad():
                network(images[:1])
            assert counter.get_total_flops() == 2 * plan.macs
            layers = list(network.plain_layers())
            weights = sum(x.op.weight.numel() + x.op.weight.shape[0] for x in layers)
            inside = {id(p) for layer in layers for p in layer.parameters()}
            beside = sum(p.numel() for p in network.parameters() if id(p) not in inside)
            assert weights + beside == plan.parameters

    def test_codes_of_a_narrow_network_are_a_prefix_of_the_wide_ones(
        self, supernet: Supernet
    ) -> None:
        """Steps do not depend on the width, so neither do the codes."""
        wide, *others = (at_bits(supernet, plan, 4) for plan in plans_of(supernet.space, 6))
        network = extracted(supernet, wide)[0]
        wide_layers = {layer.layer.name: layer for layer in network.plain_layers()}
        compared = 0
        for plan in others:
            for layer in extracted(supernet, plan)[0].plain_layers():
                other = wide_layers.get(layer.layer.name)
                if other is None or other.layer.kernel != layer.layer.kernel:
                    continue
                codes, prefix = layer.weight_codes(), other.weight_codes()
                prefix = prefix[tuple(slice(n) for n in codes.shape)]
                assert torch.equal(codes, prefix), layer.layer.name
                compared += codes.shape != other.weight_codes().shape
        assert compared > 3

    def test_statistics_are_those_of_the_batch_norms(self, supernet: Supernet) -> None:
        """By the name of the layer, and of no other normalisation."""
        for plan in plans_of(supernet.space, 2):
            network, _, statistics = extracted(supernet, plan)
            normed = {
                m.layer.name
                for m in network.modules()
                if isinstance(m, PlainLayer) and isinstance(m.norm, nn.BatchNorm2d)
            }
            assert set(statistics) == normed

    def test_a_sandwich_step_trains_every_kind_of_layer(self, supernet: Supernet) -> None:
        """Every layer and operator of the largest network has a gradient."""
        stages = [BitsStage(0, (2, 4, 8))]
        sampler = SandwichSampler(supernet.space, supernet.ranges, stages=stages)
        supernet.zero_grad()
        for plan in sampler.plans(0, 0.5):
            supernet(torch.randn(8, *plan.input_shape), plan).square().mean().backward()
        largest = supernet.space.plan(supernet.space.largest())
        for layer in largest.layers():
            gradient = supernet.layer(layer.name).weight.grad
            assert gradient is not None and gradient.isfinite().all(), layer.name
            assert gradient.any(), layer.name
        for operator in largest.operators():
            for parameter in supernet.operator(operator.name).parameters():
                assert parameter.grad is not None and parameter.grad.isfinite().all()
        supernet.zero_grad()

    def test_a_float_network_has_no_quantiser(self, supernet: Supernet) -> None:
        """At 32 bits nothing is rounded."""
        plan = float_plan(supernet.space.plan(supernet.space.largest()))
        network, images, statistics = extracted(supernet, plan)
        assert plan.stream_bits == 32
        with torch.no_grad():
            assert torch.equal(network(images), supernet.evaluate(images, plan, statistics))
