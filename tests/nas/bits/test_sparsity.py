"""Sparsity and bits of each layer, chosen together."""

from __future__ import annotations

import itertools
import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nas.bits.search import write_bits
from nas.bits.sparsity import allocate_sparsity
from nas.cli.bits.command import app
from search_spaces.errors import InputError
from search_spaces.sparsity import parse_sparsity
from tests.supernet.sparsity.patterns import obeys

PATTERNS = [parse_sparsity(text) for text in ("50%", "2:4")]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 10),
    ).eval()  # fmt: skip


def batches() -> list[torch.Tensor]:
    return [torch.randn(32, 1, 8, 8, generator=torch.Generator().manual_seed(1))]


@pytest.fixture(scope="module")
def result():
    return allocate_sparsity(
        network(), batches(), {"sparse_kib": "80%"}, patterns=PATTERNS, weight_bits=(4, 8)
    )


def test_the_optimum_is_that_of_all_combinations(result):
    table, limit = result.table, result.budgets["sparse_kib"]
    best = min(
        table.total(chosen)
        for chosen in itertools.product(*(range(len(o)) for o in table.options))
        if table.cost("sparse_kib", chosen) <= limit
    )
    assert result.best.optimal and result.best.sensitivity == pytest.approx(best)
    assert result.best.costs["sparse_kib"] <= limit < table.range("sparse_kib")[1]
    assert {one.method for one in result.others} <= {"dense", "greedy"}


def test_zeros_cost_the_file_nothing_less(result):
    for size, own in zip(result.table.layers, result.table.options, strict=True):
        at = result.table.layers.index(size)
        costs = {
            (o.bits, str(o.sparsity)): c
            for o, c in zip(own, result.table.costs["weights_kib"][at], strict=True)
        }
        for (bits, _), cost in costs.items():
            assert cost == costs[bits, "dense"]


def test_the_network_has_the_zeros_that_were_chosen(result):
    for layer in result.network.plain_layers():
        assert obeys(layer.op.weight, result.patterns[layer.layer.name])
    assert list(result.refused) == ["4"] and "1 input channel" in result.refused["4"]


def test_what_is_written_says_which_figures_are_estimates(result, tmp_path):
    path = write_bits(result, tmp_path, batches()[0])
    found = json.loads(path.read_text())
    assert found["estimated"] == ["sparse_kib"]
    assert set(found["best"]["layers"]["2"]) == {"weight_bits", "activation_bits", "sparsity"}


def test_layers_that_cannot_be_sparse_are_told():
    depthwise = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Flatten(),
        nn.Linear(128, 4),
    ).eval()  # fmt: skip
    with pytest.raises(InputError, match=r"no layer can have the sparsity 2:4 .*2: 2:4: an output"):
        allocate_sparsity(
            depthwise, batches(), {"sparse_kib": "80%"}, patterns=[parse_sparsity("2:4")]
        )


def test_the_command_chooses_and_tells(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mynet.py").write_text(
        "from tests.nas.bits.test_sparsity import network\n", encoding="utf-8"
    )
    done = CliRunner().invoke(
        app,
        ["mynet.py:network", "--data", "digits", "--count", "32", "--sparsity", "50%,2:4",
         "--weight-bits", "4,8", "--budget", "sparse_kib=70%", "--output", "out"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "an estimate" in done.output and "cannot have 2:4" in done.output
    assert json.loads((tmp_path / "out" / "bits.json").read_text())["metric"] == "kl"
    assert (tmp_path / "out" / "model.onnx").is_file()
    # What is no classes is judged by its values, here as in the search of bits alone.
    done = CliRunner().invoke(
        app,
        ["mynet.py:network", "--data", "digits", "--count", "32", "--sparsity", "50%", "--metric",
         "logits_mse", "--budget", "sparse_kib=70%", "--output", "values"],
    )  # fmt: skip
    assert done.exit_code == 0 and "logits_mse" in done.output
    told = json.loads((tmp_path / "values" / "bits.json").read_text())
    assert told["metric"] == "logits_mse"
    kl = json.loads((tmp_path / "out" / "bits.json").read_text())
    assert told["best"]["sensitivity"] != pytest.approx(kl["best"]["sensitivity"])
    for wrong, why in (("often", "no sparsity 'often'"), ("4:2", "keeps no part")):
        done = CliRunner().invoke(
            app, ["mynet.py:network", "--data", "digits", "--sparsity", wrong, "--budget",
                  "sparse_kib=70%"],
        )  # fmt: skip
        assert done.exit_code and why in str(done.exception)
