"""Layer sensitivity equals what quantising a layer by hand does."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.ptq.ranges import RangeObserver, quantize_weight, weight_steps
from supernet.ptq.sensitivity import METRICS, SensitivityTable, layer_sensitivity, outlier_share
from supernet.training.subnets import float_plan


class Small(nn.Module):
    """Branches, a reshape by the batch's own size, and a batch norm."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.second = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.last = nn.Linear(6 * 16, 5)

    def forward(self, x):
        h = torch.relu(self.norm(self.first(x)))
        h = h + self.second(h)
        return self.last(h.view(x.size(0), -1))


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    net = Small()
    with torch.no_grad():
        net.norm.running_var.uniform_(0.5, 2)
        net.norm.running_mean.normal_()
    return net.eval()


def images(count: int = 3) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(8, 1, 4, 4, generator=generator) for _ in range(count)]


@torch.no_grad()
def test_weights_by_hand(network):
    table = layer_sensitivity(network, images(), weight_bits=(2, 4))
    assert table.layers == ("first", "second", "last")
    for bits in (2, 4):
        changed = copy.deepcopy(network)
        weight = changed.second.weight
        weight.copy_(quantize_weight(weight, weight_steps(weight, bits), bits))
        column = table.weight_bits.index(bits)
        before = torch.cat([network(x) for x in images()])
        after = torch.cat([changed(x) for x in images()])
        mse = (after - before).square().mean().item()
        kl = nn.functional.kl_div(
            after.log_softmax(1), before.log_softmax(1), log_target=True, reduction="batchmean"
        )
        assert table.weights["logits_mse"][1, column] == pytest.approx(mse, rel=1e-4)
        assert table.weights["kl"][1, column] == pytest.approx(kl.item(), rel=1e-3)


@torch.no_grad()
def test_one_number_is_no_class(network):
    """The softmax of one number is one, whatever it is: no layer seemed to cost anything."""
    network.last = nn.Linear(6 * 16, 1)
    table = layer_sensitivity(network, images(1), weight_bits=(2, 8))
    power = network(images(1)[0]).square().mean().item()
    assert (table.weights["kl"] > 0).all() and (table.activations["kl"] > 0).all()
    np.testing.assert_allclose(table.weights["kl"], table.weights["logits_mse"] / power, rtol=1e-4)
    assert (table.weights["kl"][:, 0] > table.weights["kl"][:, 1]).all()


@torch.no_grad()
def test_activations_by_hand(network):
    table = layer_sensitivity(network, images(1), activation_bits=(3,))
    x = images(1)[0]
    observer = RangeObserver()
    observer.see(x)
    changed = network(observer.grid(3)(x))
    # The first layer's input feeds nothing else.
    mse = (changed - network(x)).square().mean().item()
    assert table.activations["logits_mse"][0, 0] == pytest.approx(mse, rel=1e-4)


def test_fewer_bits_cost_more_and_float_costs_nothing(network):
    table = layer_sensitivity(network, images())
    for metric in METRICS:
        for values in (table.weights[metric], table.activations[metric]):
            assert (np.diff(values.sum(0)) < 0).all()
    assert table.cost("first", 32, 32) == 0
    assert table.cost("first", 2, 32) > table.cost("first", 8, 32)
    assert table.cost("first", 2, 4) == pytest.approx(
        table.cost("first", 2, 32) + table.cost("first", 32, 4)
    )
    with pytest.raises(InputError, match="no column for 5 bits"):
        table.cost("first", 5, 8)
    with pytest.raises(InputError, match="no layer 'x'"):
        table.cost("x", 4, 8)


def test_goes_on_where_it_stopped(network, tmp_path):
    path = tmp_path / "part.json"
    whole = layer_sensitivity(network, images(3))

    class Stop(Exception):
        pass

    calls = 0
    original = nn.Linear.forward

    def dies(self, x):
        nonlocal calls
        calls += 1
        if calls > 20:
            raise Stop
        return original(self, x)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Linear, "forward", dies)
        with pytest.raises(Stop):
            layer_sensitivity(network, images(3), path=path)
    assert path.exists()
    again = layer_sensitivity(network, images(3), path=path)
    for metric in METRICS:
        np.testing.assert_allclose(again.weights[metric], whole.weights[metric])
        np.testing.assert_allclose(again.activations[metric], whole.activations[metric])
    with pytest.raises(InputError, match="other images"):
        layer_sensitivity(network, images(2), path=path)


def test_a_table_survives_its_file(network, tmp_path):
    table = layer_sensitivity(network, images(1))
    table.save(tmp_path / "t.json")
    again = SensitivityTable.load(tmp_path / "t.json")
    assert again.to_json() == table.to_json()
    (tmp_path / "t.json").write_text("{}")
    with pytest.raises(InputError, match="no sensitivity table"):
        SensitivityTable.load(tmp_path / "t.json")


def test_layers_of_an_extracted_network_have_their_plans_names():
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space, zero_init_residual=False)
    plan = float_plan(space.plan(space.largest()))
    x = torch.randn(16, *plan.input_shape)
    network = supernet.extract(plan, supernet.statistics(plan, [x]))
    table = layer_sensitivity(network, [x], weight_bits=(2, 8), activation_bits=(4,))
    assert table.layers == tuple(layer.name for layer in plan.layers())
    assert table.weights["output"].shape == (len(table.layers), 2)
    assert (table.weights["output"][:, 0] > table.weights["output"][:, 1]).all()


def test_outliers_are_counted():
    values = torch.zeros(1000)
    values[:500], values[500:] = -1, 1
    values[:10] = 50
    assert outlier_share(values) == pytest.approx(0.01)


def test_what_cannot_be_traced_or_measured_is_refused(network):
    class Peeks(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x):
            return self.layer(x) if x.sum() > 0 else x

    with pytest.raises(InputError, match="Peeks cannot be captured"):
        layer_sensitivity(Peeks(), [torch.zeros(1, 2)])
    with pytest.raises(InputError, match="at least one batch"):
        layer_sensitivity(network, [])


def test_a_layer_that_is_called_twice_counts_at_each_place():
    shared = nn.Linear(4, 4)
    table = layer_sensitivity(
        nn.Sequential(shared, nn.ReLU(), shared), [torch.randn(2, 4)], weight_bits=(8,)
    )
    assert table.layers == ("0", "0_call2")
