"""Bits that flip while a supernet is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.elastic import ElasticLayer
from supernet.faults.injection import Faults
from supernet.faults.training import BitErrors, FaultySubnets, disturbed
from supernet.network import Supernet
from supernet.quantizers.registry import QuantizerScheme


def made(**weights):
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    scheme = QuantizerScheme(**weights) if weights else None
    supernet = Supernet(space, quantizers=scheme)
    plan = supernet.plan(space.sample(np.random.default_rng(0)))
    supernet.statistics(plan, [torch.randn(16, *plan.input_shape)])  # sets the steps
    return supernet, plan


def test_every_other_step_is_faulty_and_a_step_has_its_own_faults():
    supernet, plan = made()
    layer = next(one for one in plan.layers() if one.weight_bits < 32)
    elastic = supernet.layer(layer.name)
    clean = elastic.quantized_weight(layer)
    errors = BitErrors(Faults("flips", 0.05, seed=1))
    schedule = FaultySubnets(plan, errors=errors)
    with disturbed(supernet, errors):
        found = {}
        for step in (0, 1, 3, 1):
            assert schedule.plans(step, 0.0) == [plan]
            found.setdefault(step, []).append(elastic.quantized_weight(layer))
    assert torch.equal(found[0][0], clean)
    assert torch.equal(found[1][0], found[1][1]) and not torch.equal(found[1][0], found[3][0])
    share = (found[1][0] != clean).float().mean().item()
    assert share == pytest.approx(1 - 0.95**layer.weight_bits, abs=0.15)
    assert torch.equal(elastic.quantized_weight(layer), clean)
    assert all(m.disturb is None for m in supernet.modules() if isinstance(m, ElasticLayer))


def test_gradients_pass_straight_through_the_faults():
    supernet, plan = made()
    layer = next(one for one in plan.layers() if one.weight_bits < 32)
    elastic = supernet.layer(layer.name)
    elastic.quantized_weight(layer).sum().backward()
    wanted = elastic.weight.grad.clone()
    elastic.weight.grad = None
    errors = BitErrors(Faults("flips", 0.2))
    errors.begin(1)
    with disturbed(supernet, errors):
        elastic.quantized_weight(layer).sum().backward()
    torch.testing.assert_close(elastic.weight.grad, wanted)


def test_formats_are_refused_with_what_to_do():
    supernet, plan = made(weights={"default": "lsq", 4: "fp4_e2m1"})
    layer = next((one for one in plan.layers() if one.weight_bits == 4), None)
    assert layer is not None
    errors = BitErrors(Faults("flips", 0.2))
    errors.begin(1)
    with disturbed(supernet, errors), pytest.raises(InputError, match="kind: variation"):
        supernet.layer(layer.name).quantized_weight(layer)
