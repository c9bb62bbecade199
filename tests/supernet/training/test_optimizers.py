"""Which parameter is trained by what, and what Muon does to it."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from supernet.training.muon import Muon, orthogonalised
from supernet.training.optimizers import adamw, muon_and_adamw
from tests.supernet.conftest import build


def test_only_weights_decay():
    supernet = build()
    with torch.no_grad():
        for parameter in supernet.parameters():
            parameter.fill_(0.5)
            parameter.grad = torch.zeros_like(parameter)
    adamw(supernet.named_parameters(), 0.1, weight_decay=0.2).step()
    for name, parameter in supernet.named_parameters():
        decayed = not torch.equal(parameter, torch.full_like(parameter, 0.5))
        assert decayed == (name.split(".")[-1] == "weight"), name
    names = {name.split(".")[-1] for name, _ in supernet.named_parameters()}
    assert {"log_step", "offset", "gamma", "beta", "weight"} <= names


def test_every_parameter_has_one_optimiser_and_muon_those_that_mix_channels():
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 3, groups=4), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(6),
        nn.Linear(6, 2),
    )  # fmt: skip
    muon, rest = muon_and_adamw(network.named_parameters(), 0.1, weight_decay=0.0)
    of_muon = [p for group in muon.param_groups for p in group["params"]]
    of_rest = [p for group in rest.param_groups for p in group["params"]]
    assert {id(p) for p in of_muon} == {id(network[2].weight), id(network[4].weight)}
    assert len(of_muon) + len(of_rest) == len(list(network.parameters()))
    assert not {id(p) for p in of_muon} & {id(p) for p in of_rest}


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    size=st.floats(1e-3, 1e3),
    seed=st.integers(0, 99),
)
def test_what_is_orthogonalised_has_the_directions_of_the_matrix(rows, columns, size, seed):
    generator = torch.Generator().manual_seed(seed)
    u, _ = torch.linalg.qr(torch.randn(rows, rows, generator=generator))
    v, _ = torch.linalg.qr(torch.randn(columns, columns, generator=generator))
    rank = min(rows, columns)
    values = torch.linspace(1.0, 0.1, rank)
    matrix = size * u[:, :rank] @ values.diag() @ v[:, :rank].T
    # The singular vectors remain; the values come near one.
    inner = u[:, :rank].T @ orthogonalised(matrix) @ v[:, :rank]
    assert torch.allclose(inner, inner.diag().diag(), atol=1e-3)
    assert inner.diag().min() > 0.6 and inner.diag().max() < 1.3


def test_a_step_is_as_large_as_told_whatever_the_gradient():
    for shape, size in [((8, 4, 3, 3), 1e-4), ((16, 16), 1.0), ((40, 5), 100.0)]:
        torch.manual_seed(0)
        weight = nn.Parameter(torch.zeros(shape))
        weight.grad = torch.randn(shape) * size
        Muon([weight], 0.5, update_rms=0.2).step()
        assert weight.detach().square().mean().sqrt().item() == pytest.approx(0.1, rel=0.2)
        assert (weight * weight.grad).sum() < 0


def test_zeros_without_a_gradient_stay_and_others_move():
    torch.manual_seed(0)
    mask = torch.rand(8, 4, 3, 3) < 0.5
    weight = nn.Parameter(torch.randn(mask.shape) * mask)
    optimizer = Muon([weight], 0.1)
    for _ in range(3):
        weight.grad = torch.randn(mask.shape) * mask
        optimizer.step()
    assert torch.equal(weight != 0, mask)


def test_it_needs_fewer_steps_where_directions_have_unlike_gradients():
    """A quadratic with curvatures from 1 to 1e-3, where plain momentum crawls."""
    curvatures = torch.logspace(0, -3, 16)
    found = {}
    for name in ("muon", "momentum"):
        torch.manual_seed(0)
        wanted = torch.randn(16, 16)
        weight = nn.Parameter(torch.zeros(16, 16))
        optimizer = (
            Muon([weight], 0.0, momentum=0.9)
            if name == "muon"
            else torch.optim.SGD([weight], 0.0, momentum=0.9, nesterov=True)
        )
        for step in range(200):
            optimizer.zero_grad()
            loss = (curvatures[:, None] * (weight - wanted).square()).sum() / 2
            loss.backward()
            optimizer.param_groups[0]["lr"] = (0.3 if name == "muon" else 0.1) * (1 - step / 200)
            optimizer.step()
        found[name] = (weight - wanted).square().mean().item()
    assert found["muon"] < 0.1 * found["momentum"]
