"""Bits and accelerator together: the pair that enumeration finds."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from devices.simulators.design import Design, all_designs, area_mm2
from devices.simulators.roofline import estimate_layer
from nas.bits.allocation import Bits
from nas.bits.hardware import network_plans
from nas.bits.joint import joint_optimum
from nas.cli.bits.command import app
from search_spaces.errors import InfeasibleError, InputError

OPTIONS = [Bits(8, 8), Bits(4, 8), Bits(2, 8), Bits("fp8_e4m3", "fp8_e4m3")]
DESIGN = {
    "version": 1,
    "bases": ["systolic-16x16", "loom-16x16"],
    "rows": [4, 16],
    "columns": [4, 16],
    "limits": {"area_mm2": 1.0},
}


def plans():
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.Flatten(), nn.Linear(256, 10)
    ).eval()
    return network_plans(module, torch.randn(4, 1, 8, 8))


@pytest.mark.parametrize("seed", range(4))
def test_the_optimum_is_that_of_enumeration(seed):
    layers = plans()
    hurt = np.sort(np.random.default_rng(seed).random((3, 4)), axis=1).tolist()
    designs = list(all_designs(Design.model_validate(DESIGN)))
    budget = {"latency_ms": 0.012 + 0.002 * seed}
    best = None
    for hardware in designs:
        for chosen in itertools.product(range(4), repeat=3):
            try:
                latency = sum(
                    estimate_layer(plan, hardware, OPTIONS[k].weight, OPTIONS[k].activation)[0]
                    for plan, k in zip(layers.values(), chosen, strict=True)
                )
            except InputError:  # no units for the format
                continue
            if latency > budget["latency_ms"]:
                continue
            value = sum(row[k] for row, k in zip(hurt, chosen, strict=True))
            key = (round(value, 12), area_mm2(hardware))
            best = key if best is None or key < best else best
    assert best is not None
    found = joint_optimum(layers, [OPTIONS] * 3, hurt, designs, budget)
    assert (found.best.allocation.sensitivity, found.best.area_mm2) == pytest.approx(best)
    assert found.best.allocation.costs["latency_ms"] <= budget["latency_ms"] + 1e-9
    assert found.designs == len(designs) >= found.feasible > 0
    assert found.best.to_json() in [point.to_json() for point in found.front]


def test_what_cannot_be_kept_is_told():
    layers, designs = plans(), list(all_designs(Design.model_validate(DESIGN)))
    hurt = [[0.0] * 4] * 3
    with pytest.raises(
        InfeasibleError, match=r"none of \d+ designs keeps the budgets; the nearest"
    ):
        joint_optimum(layers, [OPTIONS] * 3, hurt, designs, {"latency_ms": 1e-6})
    with pytest.raises(InputError, match="no design keeps the limits"):
        joint_optimum(layers, [OPTIONS] * 3, hurt, [], {"latency_ms": 1})
    with pytest.raises(InputError, match="give a budget"):
        joint_optimum(layers, [OPTIONS] * 3, hurt, designs, {})
    nothing = [[Bits("nf4", 8)]] * 3
    with pytest.raises(InfeasibleError, match="no design has units"):
        joint_optimum(layers, nothing, [[0.0]] * 3, designs, {"latency_ms": 1})


def test_the_command_writes_hardware_that_nas_bits_reads(tmp_path, monkeypatch):
    (tmp_path / "joint_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef network():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),"
        " nn.Flatten(), nn.Linear(256, 10)).eval()\n"
    )
    (tmp_path / "design.json").write_text(json.dumps(DESIGN))
    monkeypatch.chdir(tmp_path)
    common = ["joint_net.py:network", "--data", "digits", "--count", "64", "--no-adaround"]
    done = CliRunner().invoke(
        app, [*common, "--design", "design.json", "--weight-bits", "2,4,8",
              "--budget", "latency_ms=0.02"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    told = json.loads((tmp_path / "bits" / "bits.json").read_text())
    assert 0 < told["designs"] < 8 and told["front"] and told["area_mm2"] <= 1
    again = CliRunner().invoke(
        app, [*common, "--hardware", "bits/hardware.json", "--weight-bits", "2,4,8",
              "--budget", "latency_ms=0.02", "--output", "again"],
    )  # fmt: skip
    assert again.exit_code == 0, again.output
    same = json.loads((tmp_path / "again" / "bits.json").read_text())["best"]
    assert same["sensitivity"] == pytest.approx(told["best"]["sensitivity"])
    wrong = CliRunner().invoke(app, [*common, "--design", "design.json", "--budget", "bops=50%"])
    assert "latency_ms and energy_mj alone" in str(wrong.exception)
