"""Bits for a trained network of the user's: costs are those of the exported plan."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nas.bits.allocation import allocate
from nas.bits.search import (
    STEPS,
    allocate_bits,
    assignment,
    bit_table,
    layer_sizes,
    resolve_budgets,
    write_bits,
)
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.spaces.mobilenet import MobileNetSpace
from supernet.network import Supernet
from supernet.ptq.quantize import quantize_post_training
from supernet.ptq.sensitivity import layer_sensitivity
from supernet.training.subnets import float_plan


class Small(nn.Module):
    """A convolution with a batch norm, a depthwise one, and two linear layers."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, stride=2)
        self.point = nn.Conv2d(8, 16, 1)
        self.hidden = nn.Linear(16, 12)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = torch.relu(self.norm(self.first(x)))
        x = torch.relu(self.point(self.depthwise(x))).mean((2, 3))
        return self.last(torch.relu(self.hidden(x)))


def make() -> nn.Module:
    torch.manual_seed(0)
    return Small().eval()


def batches(count=2):
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 1, 8, 8, generator=generator) for _ in range(count)]


@pytest.fixture(scope="module")
def result():
    return allocate_bits(
        make(),
        batches(),
        {"weights_kib": "82%", "bops": "75%"},
        activation_bits=(4, 8),
        adaround=False,
    )


def test_who_waits_is_told_how_many_layers_are_done():
    told = []
    allocate_bits(
        make(), batches(2), {"weights_kib": "90%"}, weight_bits=(4, 8), adaround=False,
        told=lambda work, done, of: told.append((work, done, of)),
    )  # fmt: skip
    # Five layers; their sensitivity is measured on both batches.
    sensitivity = [("sensitivity", done, 10) for done in range(1, 11)]
    assert told == sensitivity + [("quantisation", done, 5) for done in range(1, 6)]


def test_costs_are_those_of_the_quantised_plan(result):
    plan = result.network.plan
    assert result.best.costs["weights_kib"] == pytest.approx(plan.weights_kib)
    assert result.best.costs["bops"] == pytest.approx(plan.bops)
    assert result.best.costs["weight_bits_mean"] == pytest.approx(plan.weight_bits_mean)


def test_the_optimum_is_proven_within_the_budgets_and_no_baseline_is_better(result):
    assert result.best.optimal
    for name, budget in result.budgets.items():
        low, high = result.table.range(name)
        assert low < budget < high
        assert result.best.costs[name] <= budget * (1 + 1e-9)
    assert {o.method for o in result.others} >= {"importance: z-score", "greedy", "uniform"}
    for other in result.others:
        assert other.sensitivity >= result.best.sensitivity - 1e-9
        assert all(other.costs[n] <= b * (1 + 1e-6) for n, b in result.budgets.items())


def test_the_first_and_last_layer_keep_their_bits_unless_they_may_vary(result):
    bits = assignment(result.table, result.best)
    assert bits["first"] == bits["last"] == (8, 8)
    free = allocate_bits(
        make(),
        batches(1),
        {"weights_kib": "80%"},
        weight_bits=(2, 8),
        edge_bits=None,
        adaround=False,
    )
    assert len(free.table.options[0]) == 2


def test_a_layer_latency_is_a_cost_like_any_other():
    network, images = make(), batches(1)
    sensitivity = layer_sensitivity(network, images)
    table = bit_table(
        layer_sizes(network, images[0]),
        sensitivity,
        latency_ms=lambda layer, bits: bits.weight / 8.0,
    )
    low, high = table.range("latency_ms")
    assert (low, high) == (pytest.approx(2 + 3 * 0.25), pytest.approx(5.0))
    assert allocate(table, {"latency_ms": 3.5}).costs["latency_ms"] <= 3.5


def test_layers_of_an_architecture_keep_the_names_of_its_plan():
    """By which it is quantised again, for the figures of the baselines."""
    torch.manual_seed(0)
    space = MobileNetSpace.from_config(preset="8x8", input_channels=1)
    supernet = Supernet(space)
    plan = float_plan(space.plan(space.smallest()))
    images = torch.randn(16, *plan.input_shape)
    network = supernet.extract(plan, supernet.statistics(plan, [images])).eval()
    found = allocate_bits(network, [images], {"weights_kib": "90%"}, adaround=False)
    assert list(found.table.layers) == [layer.name for layer in plan.layers()]
    for one in [found.best, *found.others]:
        bits = assignment(found.table, one)
        again = quantize_post_training(network, [images], bits, steps=STEPS)
        assert again(images).shape == (16, space.outputs)


class WithMemory(nn.Module):
    """A convolution of signals, recurrent steps whose weights stay float, and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv1d(2, 6, 3), nn.Linear(5, 3)
        self.steps = nn.GRU(6, 5, batch_first=True)

    def forward(self, x):
        return self.fc(self.steps(torch.relu(self.conv(x)).transpose(1, 2))[0][:, -1])


def test_what_keeps_its_bits_counts_in_a_budget_of_size(tmp_path):
    torch.manual_seed(0)
    network, images = WithMemory().eval(), torch.randn(40, 2, 9)
    beside = 4 * sum(p.numel() for p in network.steps.parameters()) / 1024
    with pytest.raises(InfeasibleError, match="weights"):
        allocate_bits(network, [images], {"weights_kib": 0.9 * beside}, adaround=False)
    found = allocate_bits(network, [images], {"weights_kib": "100%"}, adaround=False)
    layers = sum(size.packed_kib(8) for size in layer_sizes(network, images))
    assert found.best.costs["weights_kib"] == pytest.approx(layers + beside)
    told = json.loads(write_bits(found, tmp_path, images).read_text())
    assert told["weights_kib"] == pytest.approx(found.best.costs["weights_kib"])
    assert told["parity"]["relative_error"] < 0.05


def test_written_files_hold_the_allocation_and_its_parity(result, tmp_path):
    path = write_bits(result, tmp_path / "out", batches(1)[0], about={"source": "test"})
    told = json.loads(path.read_text())
    assert (path.parent / told["model"]).stat().st_size == pytest.approx(told["size_kib"] * 1024)
    assert told["best"]["proven_optimal"] and told["best"]["layers"]["point"]["weight_bits"] <= 8
    assert told["parity"]["agreement"] == 1.0
    assert told["weights_kib"] == pytest.approx(result.best.costs["weights_kib"])


def test_impossible_and_senseless_budgets_are_refused(result):
    with pytest.raises(InfeasibleError, match="cheapest allocation needs"):
        allocate_bits(make(), batches(1), {"weights_kib": 0.01}, adaround=False)
    for budgets, message in (
        ({}, "at least one budget"),
        ({"watts": 1}, "known: weights_kib"),
        ({"latency_ms": 1}, "latencies of the layers"),
        ({"bops": "many"}, "neither a number"),
        ({"bops": "-3%"}, "above 0"),
    ):
        with pytest.raises(InputError, match=message):
            resolve_budgets(result.table, budgets)


def test_command_line_with_a_module_weights_and_an_array(tmp_path, monkeypatch):
    from safetensors.torch import save_file

    from nas.cli.main import app

    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "my_net.py").write_text(
        "from torch import nn\n\n\ndef make():\n"
        "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(),\n"
        "        nn.Flatten(), nn.Linear(24, 3))\n"
    )
    import importlib

    network = importlib.import_module("my_net").make()
    save_file(network.state_dict(), tmp_path / "weights.safetensors")
    np.save(tmp_path / "images.npy", np.random.default_rng(0).normal(size=(24, 1, 6, 6)))
    arguments = [
        "bits",
        "my_net:make",
        "--weights",
        "weights.safetensors",
        "--images",
        "images.npy",
    ]
    done = CliRunner().invoke(
        app, [*arguments, "--budget", "weights_kib=70%", "--no-adaround", "--output", "out"]
    )
    assert done.exit_code == 0, done.output
    assert "proven optimum" in done.output
    assert (tmp_path / "out" / "model.onnx").exists()
    for extra, message in (
        ([], "at least one budget"),
        (["--budget", "weights_kib"], "COST=MAX"),
        (["--budget", "bops=50%", "--weight-bits", "9"], "bits are 2 to 8"),
    ):
        failed = CliRunner().invoke(app, [*arguments, *extra])
        assert failed.exit_code == 2
        assert message in failed.output
