"""Blocks computed by their dataflow, against the formulas written out."""

from __future__ import annotations

import pytest
import torch

from search_spaces.errors import InputError
from supernet.dataflow import activate, dataflow_of

X = torch.randn(2, 4, 6, 6, generator=torch.Generator().manual_seed(0))


def scaled(factor):
    return lambda x: x * factor


def test_a_residual_block_adds_its_input_before_the_sum_is_quantised():
    ops = {"expand": scaled(2.0), "depthwise": scaled(3.0), "project": scaled(5.0)}
    ops |= {"output": torch.round, "sum": torch.floor}
    h = dataflow_of("mbconv")(X, ops, True)
    assert torch.equal(h, torch.floor(X + torch.round(X * 30)))


def test_without_a_residual_there_is_no_sum():
    ops = {"depthwise": scaled(3.0), "project": scaled(5.0), "output": torch.round}
    assert torch.equal(dataflow_of("mbconv")(X, ops, False), torch.round(X * 15))


def test_a_fused_block_has_no_depthwise_convolution():
    ops = {"expand": scaled(2.0), "project": scaled(5.0), "output": torch.round}
    assert torch.equal(dataflow_of("mbconv")(X, ops, False), torch.round(X * 10))


def test_squeeze_and_excite_gates_channels_by_their_means():
    ops = {"depthwise": scaled(1.0), "project": scaled(1.0), "output": scaled(1.0)}
    ops |= {"gate": torch.relu, "squeeze": scaled(2.0), "excite": scaled(3.0)}
    ops |= {"scale": torch.nn.functional.hardsigmoid}
    h = torch.relu(X)
    gate = torch.nn.functional.hardsigmoid(6 * h.mean((2, 3), keepdim=True))
    assert torch.allclose(dataflow_of("mbconv")(X, ops, False), h * gate)


def test_the_head_pools_what_it_quantised():
    ops = {"head": scaled(2.0), "pool": torch.round, "classifier": scaled(1.0)}
    assert torch.equal(dataflow_of("head")(X, ops, False), torch.round(2 * X).mean((2, 3)))


@pytest.mark.parametrize("name", ["none", "stream"])
def test_no_activation_changes_nothing(name):
    assert torch.equal(activate(X, name), X)


def test_an_unknown_activation_is_refused_by_name():
    with pytest.raises(InputError, match=r"'mish'.*available: relu"):
        activate(X, "mish")
