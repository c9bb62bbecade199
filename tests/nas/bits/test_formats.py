"""Number formats as options of a layer: chosen by the programme, costed, exported or refused."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nas.bits.allocation import Bits
from nas.bits.hardware import hardware_costs, network_plans
from nas.bits.search import LayerSize, allocate_bits, write_bits
from nas.cli.bits.command import app
from search_spaces.errors import InputError

NETWORK = """
import torch
from torch import nn

def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
                         nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10)).eval()
"""


def small() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 1)]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8 * 16, 10)).eval()


def batches() -> list[torch.Tensor]:
    return [torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))]


def test_the_programme_chooses_formats_by_layer_and_group(tmp_path):
    result = allocate_bits(
        small(), batches(), {"weights_kib": "92%"}, weight_bits=(8, "nf4", "bitmod3"),
        group=16, adaround=False,
    )  # fmt: skip
    chosen = {str(option.weight) for option in result.best.options}
    assert chosen & {"nf4", "bitmod3"} and result.best.optimal
    path = write_bits(result, tmp_path, batches()[0])
    told = json.loads(path.read_text())
    assert told["weights_kib"] == pytest.approx(result.best.costs["weights_kib"], rel=0.02)
    formats = [layer.get("weight_format") for layer in told["best"]["layers"].values()]
    assert set(formats) & {"nf4", "bitmod3"} and formats[0] is None


def test_inputs_that_no_runtime_computes_are_refused_before_anything_is_measured():
    with pytest.raises(InputError, match="fp6_e2m3 cannot be exported: ONNX Runtime has fp8_e4m3"):
        allocate_bits(small(), batches(), {"bops": "50%"}, activation_bits=(8, "fp6_e2m3"))


def test_sizes_count_scales_of_groups_and_choices_of_tables():
    size = LayerSize("layer", weights=16 * 64, outputs=16, macs=1)
    assert size.packed_kib(4) * 1024 == 16 * 64 / 2 + 8 * 16
    assert size.packed_kib("nf4") == size.packed_kib(4)
    assert size.packed_kib("nf4", group=16) * 1024 == 16 * 64 / 2 + 4 * 16 * 4 + 4 * 16
    assert size.packed_kib("bitmod4", group=16) * 1024 == 16 * 64 / 2 + 4 * 64 + 64 * 2 / 8 + 64


def test_hardware_says_what_a_format_costs():
    latency, energy = hardware_costs(small(), batches()[0], "systolic-16x16")
    layer = list(network_plans(small(), batches()[0]))[1]
    whole = energy(layer, Bits(8, 8))
    assert energy(layer, Bits("fp8_e4m3", "fp8_e4m3")) > whole
    assert energy(layer, Bits("fp4_e2m1", 8)) < whole  # integer units, and half the traffic
    assert latency(layer, Bits("fp8_e4m3", 8)) == pytest.approx(latency(layer, Bits(8, 8)))
    with pytest.raises(InputError, match="systolic-16x16 has no units for nf4"):
        latency(layer, Bits("nf4", 8))


def test_the_command_takes_formats_and_hardware(tmp_path, monkeypatch):
    (tmp_path / "formats_net.py").write_text(NETWORK)
    monkeypatch.chdir(tmp_path)
    common = ["formats_net.py:network", "--data", "digits", "--count", "64", "--no-adaround"]
    done = CliRunner().invoke(
        app,
        [*common, "--weight-bits", "8,fp8_e4m3,fp4_e2m1", "--hardware", "systolic-16x16",
         "--budget", "energy_mj=90%", "--budget", "weights_kib=75%"],
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "weights fp4_e2m1, inputs 8" in done.output
    told = json.loads((tmp_path / "bits" / "bits.json").read_text())
    assert told["hardware"] == "systolic-16x16, estimated"
    assert told["best"]["costs"]["latency_ms"] > 0
    wrong = CliRunner().invoke(app, [*common, "--weight-bits", "fp9", "--budget", "bops=50%"])
    assert wrong.exit_code and "unknown number format 'fp9'" in str(wrong.exception)
