"""Bits that flip while a supernet is trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.elastic import ElasticLayer
from supernet.faults.injection import Faults
from supernet.faults.training import BitErrors, FaultySubnets, disturbed, narrow_steps
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


def harm_of_flips(supernet, plan, rate):
    """By layer, the mean square that flipped bits, rounding and clipping leave of float weights."""
    errors = BitErrors(Faults("flips", rate, seed=3), every=1)
    found = {}
    with disturbed(supernet, errors), torch.no_grad():
        for layer in plan.layers():
            elastic = supernet.layer(layer.name)
            sign = elastic.code_sign(layer)
            assert sign is None
            square = 0.0
            for step in range(20):
                errors.begin(step)
                square += (
                    (elastic.quantized_weight(layer) - elastic.slice_of(layer)).square().mean()
                )
            found[layer.name] = float(square / 20)
    return found


def test_narrow_steps_lose_less_to_flips_than_those_that_training_began_with():
    supernet, plan = made()
    before = harm_of_flips(supernet, plan, 0.01)
    changed = narrow_steps(supernet, plan, 0.01)
    assert changed == [layer.name for layer in plan.layers() if layer.weight_bits < 32]
    after = harm_of_flips(supernet, plan, 0.01)
    assert all(after[name] < before[name] for name in changed)
    # A step to either side does no better: the least is where both errors are told together.
    for factor in (0.8, 1.25):
        other, _ = made()
        other.load_state_dict(supernet.state_dict())
        for layer in plan.layers():
            quantizer = other.layer(layer.name).weight_quantizer
            now = quantizer.step(layer.kernel, layer.weight_bits, layer.out_channels)
            quantizer.set_step(layer.kernel, layer.weight_bits, factor * now)
        moved = harm_of_flips(other, plan, 0.01)
        assert sum(moved.values()) > sum(after.values())


def test_narrow_steps_leave_formats_and_float_as_they_are():
    supernet, plan = made(weights={"default": "lsq", 4: "fp4_e2m1"})

    def steps():
        found = {}
        for one in plan.layers():
            quantizer = supernet.layer(one.name).weight_quantizer
            found[one.name] = quantizer.step(one.kernel, one.weight_bits, one.out_channels).clone()
        return found

    before, changed = steps(), narrow_steps(supernet, plan, 0.01)
    after = steps()
    kept = [one.name for one in plan.layers() if one.name not in changed]
    assert kept and {one.name for one in plan.layers() if one.weight_bits == 4} == {*kept}
    assert all(torch.equal(after[name], before[name]) for name in kept)
    assert not any(torch.equal(after[name], before[name]) for name in changed)
