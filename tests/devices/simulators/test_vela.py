from pathlib import Path

import pytest

from devices.measuring.protocol import Protocol
from devices.simulators.device import make_simulated_device
from devices.simulators.vela import VelaDevice, _summary, accelerators
from search_spaces.errors import InputError

ROW = {
    "inference_time": "8.4e-05", "cycles_total": "42001", "sram_memory_used": "6.125",
    "dram_memory_used": "0.0", "on_chip_flash_memory_used": "0.0",
    "off_chip_flash_memory_used": "20.1875",
}  # fmt: skip


@pytest.fixture
def vela(tmp_path, monkeypatch):
    pytest.importorskip("ethosu.vela")
    pytest.importorskip("ai_edge_litert")
    monkeypatch.setenv("EDGE_NAS_CACHE", str(tmp_path / "cache"))
    return lambda accelerator: VelaDevice("npu", accelerator)


def test_an_estimate_says_what_it_is(vela, make_quantised):
    (found,) = vela("ethos-u55-128").measure([make_quantised()], protocol=Protocol())
    assert found.latency_ms > 0 and found.low_ms == found.high_ms == found.latency_ms
    assert found.conditions["latency_source"] == "estimated"
    assert found.conditions["accelerator"] == "ethos-u55-128"
    assert found.conditions["npu_operators"] >= 1
    # The toy ends in a feature map, which an application would take channels last.
    assert "TRANSPOSE" in " ".join(found.conditions["doubts"])


def test_more_units_are_not_slower(vela, make_quantised):
    path = make_quantised(clip=False)
    small, large = (vela(f"ethos-u55-{n}").estimate(path) for n in (32, 256))
    assert large["cycles"] < small["cycles"]
    assert large["flash_kib"] > 0 and large["memory_kib"] > 0


def test_a_float_model_is_refused(vela, make_model):
    with pytest.raises(InputError, match="takes int8 models"):
        vela("ethos-u55-128").estimate(make_model(batch=1))


def test_operators_left_to_a_processor_are_named():
    text = (
        "Warning (supported operators) operator: DEQUANTIZE, ofm: 'y'\n"
        "Warning (supported operators) operator: GATHER, ofm: 'g'\n"
        "CPU operators = 2 (20.0%)\nNPU operators = 8 (80.0%)\n"
    )
    found = _summary(text, ROW, Path("net.onnx"))
    assert found["latency_ms"] == pytest.approx(0.084)
    assert (found["npu_operators"], found["cpu_operators"]) == (8, 2)
    (doubt,) = found["doubts"]
    assert doubt.startswith("GATHER would run on a processor")
    with pytest.raises(InputError, match=r"net\.onnx: nothing of it runs"):
        _summary("CPU operators = 10 (100.0%)\nNPU operators = 0 (0.0%)\n", ROW, Path("net.onnx"))


def test_every_accelerator_can_be_named_and_no_other():
    for name in accelerators():
        device = make_simulated_device("npu", simulator="vela", hardware=name, space=None)
        assert device.spec.options["system_config"].startswith("Ethos_U")
    with pytest.raises(InputError, match="ethos-u55-64"):
        VelaDevice("npu", "ethos-u55-63")


def test_options_belong_to_the_simulator():
    options = {"memory_mode": "Sram_Only"}
    device = make_simulated_device(
        "npu", simulator="vela", hardware="ethos-u55-64", space=None, options=options
    )
    assert device.settings["memory_mode"] == "Sram_Only"
    with pytest.raises(InputError, match="no option 'memory_mode'"):
        make_simulated_device(
            "npu", simulator="roofline", hardware="x", space=None, options=options
        )
