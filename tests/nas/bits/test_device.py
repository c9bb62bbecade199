"""Bits whose latency is measured on a device, layer by layer."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nas.bits.allocation import Bits
from nas.bits.device import in_turns, measure_layers, verify
from nas.bits.search import allocate_bits, write_bits
from nas.cli.bits.command import app
from search_spaces.errors import EnvironmentProblem, InputError
from supernet.onnx.export import WEIGHT_BITS


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1),
        nn.Flatten(), nn.Linear(128, 10),
    ).eval()  # fmt: skip


def batches() -> list[torch.Tensor]:
    return [torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))]


def by_bits(files) -> list[float]:
    """A device whose layers take a time of their own for a bit."""
    found = []
    for file in files:
        total = 1.0
        for place, node in enumerate(
            n for n in onnx.load(file).graph.node if n.op_type in ("Conv", "Gemm")
        ):
            bits = next(int(p.value) for p in node.metadata_props if p.key == WEIGHT_BITS)
            total += bits * (place + 1) / 100
        found.append(total)
    return found


PAIRS = [Bits(8, 8), Bits(4, 8), Bits(2, 8)]


@pytest.fixture(scope="module")
def costs():
    return measure_layers(network(), batches(), PAIRS, by_bits)


def test_a_layers_bits_cost_what_they_change(costs):
    first, second, third, last = costs.differences
    assert costs.base_ms == pytest.approx(1 + 8 * (1 + 2 + 3 + 4) / 100)
    assert costs.differences[first] == costs.differences[last] == {}
    assert costs.latency_ms(second, Bits(4, 8)) == pytest.approx(-4 * 2 / 100)
    assert costs.latency_ms(third, Bits(2, 8)) == pytest.approx(-6 * 3 / 100)
    assert costs.latency_ms(first, Bits(8, 8)) == costs.latency_ms(last, Bits(6, 6)) == 0
    with pytest.raises(InputError, match="was not measured at w3a8"):
        costs.latency_ms(second, Bits(3, 8))


def test_a_budget_on_latency_is_kept_and_verified(costs, tmp_path):
    result = allocate_bits(
        network(), batches(), {"latency_ms": 1.6}, weight_bits=(2, 4, 8), adaround=False,
        latency_ms=costs.latency_ms, fixed_ms=costs.base_ms,
    )  # fmt: skip
    assert result.best.costs["latency_ms"] <= 1.6 + 1e-9
    write_bits(result, tmp_path, batches()[0])
    assigned = dict(zip(result.table.layers, result.best.options, strict=True))

    def faster_now(files):
        return [0.5 * value for value in by_bits(files)]

    for measure, speed in ((by_bits, 1.0), (faster_now, 0.5)):
        found = verify(network(), batches(), costs, assigned, tmp_path / "model.onnx", measure)
        assert found.predicted_ms == pytest.approx(speed * result.best.costs["latency_ms"])
        assert found.error == pytest.approx(0, abs=1e-9)
        assert found.to_json()["share_of_base"] < 1


def test_what_cannot_be_measured_is_told():
    with pytest.raises(InputError, match="leave nothing to choose"):
        measure_layers(network(), batches(), [Bits(8, 8)], by_bits)
    with pytest.raises(EnvironmentProblem, match="could not be measured on the device"):
        measure_layers(network(), batches(), PAIRS, lambda files: [float("nan")] * len(files))


def test_files_take_turns_in_this_process(tmp_path):
    pytest.importorskip("onnxruntime")
    seen = []

    def measured(files):
        seen.extend(files)
        ticks = iter(np.arange(0, 10**9, 1000).tolist())
        return in_turns("onnxruntime", rounds=3, clock=lambda: next(ticks))(files)

    costs = measure_layers(network(), batches(), PAIRS[:2], measured)
    assert len(seen) == 1 + 2
    # Each call took one tick.
    assert costs.base_ms == pytest.approx(1e-3)
    assert all(
        v == pytest.approx(0) for known in costs.differences.values() for v in known.values()
    )


def test_the_command_measures_allocates_and_verifies(tmp_path, monkeypatch):
    (tmp_path / "device_net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef network():\n    torch.manual_seed(0)\n"
        "    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(),"
        " nn.Flatten(), nn.Linear(128, 10)).eval()\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("nas.cli.bits.command.measured_on", lambda *options: by_bits)
    common = ["device_net.py:network", "--data", "digits", "--count", "64", "--no-adaround",
              "--weight-bits", "4,8", "--device", "onnxruntime"]  # fmt: skip
    done = CliRunner().invoke(app, [*common, "--budget", "latency_ms=96%"])
    assert done.exit_code == 0, done.output
    assert "(0.0 % off); all layers at w8a8" in done.output
    told = json.loads((tmp_path / "bits" / "bits.json").read_text())["device"]
    assert told["name"] == "onnxruntime" and told["base"] == "w8a8"
    assert told["verified"]["prediction_error"] == pytest.approx(0, abs=1e-9)
    both = CliRunner().invoke(
        app, [*common, "--hardware", "systolic-16x16", "--budget", "latency_ms=96%"]
    )
    assert isinstance(both.exception, InputError) and "--device goes without" in str(both.exception)
