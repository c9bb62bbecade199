"""Rank and bits of each layer, chosen together, exported as two layers."""

from __future__ import annotations

import itertools
import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nas.bits.ranks import RankOption, allocate_ranks
from nas.bits.search import write_bits
from nas.cli.bits.command import app
from search_spaces.errors import InputError


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU()]
    net = nn.Sequential(*layers, nn.Linear(48, 10)).eval()
    with torch.no_grad():  # a layer of few directions, and noise
        low = torch.randn(48, 4) @ torch.randn(4, 48)
        net[3].weight.copy_(0.1 * low + 0.002 * torch.randn(48, 48))
    return net


def batches() -> list[torch.Tensor]:
    return [torch.randn(64, 1, 8, 8, generator=torch.Generator().manual_seed(1))]


@pytest.fixture(scope="module")
def result():
    return allocate_ranks(network(), batches(), {"weights_kib": "76%"}, shares=(0.25, 0.5))


def test_the_optimum_is_that_of_all_combinations(result):
    table, limit = result.table, result.budgets["weights_kib"]
    best = min(
        table.total(chosen)
        for chosen in itertools.product(*(range(len(o)) for o in table.options))
        if table.cost("weights_kib", chosen) <= limit
    )
    assert result.best.optimal
    assert result.best.sensitivity == pytest.approx(best, abs=1e-9)
    assert all(one.sensitivity >= best - 1e-9 for one in result.others)
    # Without ranks the budget cannot be met.
    assert "without ranks" not in {one.method for one in result.others}


def test_a_layer_of_few_directions_becomes_two(result, tmp_path):
    chosen = dict(zip(result.table.layers, result.best.options, strict=True))
    assert [bool(option.rank) for option in chosen.values()] == [False, True, False]
    path = write_bits(result, tmp_path, batches()[0])
    told = json.loads(path.read_text())
    ranks = [layer.get("rank") for layer in told["best"]["layers"].values()]
    assert ranks[1] and ranks[0] is None
    assert told["weights_kib"] == pytest.approx(result.best.costs["weights_kib"], rel=0.02)
    products = [n for n in onnx.load(tmp_path / "model.onnx").graph.node if n.op_type == "Gemm"]
    assert len(products) == 4
    found = result.network(batches()[0]).detach().numpy()
    wanted = network()(batches()[0]).detach().numpy()
    assert np.linalg.norm(found - wanted) < 0.2 * np.linalg.norm(wanted)


def test_options_are_told_in_words():
    from nas.bits.allocation import Bits

    assert str(RankOption(Bits(8, 8), 6, Bits(4, 8))) == "rank 6, w4a8 then w8a8"
    assert str(RankOption(Bits(4, 8))) == "w4a8"


def test_the_command_lets_layers_become_two(tmp_path, monkeypatch):
    (tmp_path / "ranks_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef network():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 48), nn.ReLU(), nn.Linear(48, 48), "
        "nn.ReLU(), nn.Linear(48, 10)).eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    common = ["ranks_net.py:network", "--data", "digits", "--count", "64"]
    done = CliRunner().invoke(
        app, [*common, "--ranks", "0.5", "--weight-bits", "4,8", "--budget", "macs=85%"]
    )
    assert done.exit_code == 0, done.output
    assert "then" in done.output and "without ranks" not in done.output  # MACs fall by ranks alone
    for wrong, message in (
        (["--ranks", "half"], "no list of shares"),
        (["--ranks", "2"], "give shares above 0, to 1"),
        (["--ranks", "0.5", "--group", "32"], "goes without"),
    ):
        refused = CliRunner().invoke(
            app, [*common, *wrong, "--weight-bits", "4,8", "--budget", "bops=50%"]
        )
        assert refused.exit_code and isinstance(refused.exception, InputError)
        assert message in str(refused.exception)
