"""Signals and inputs that are not square: integers in ONNX Runtime, and bit for bit in low bits."""

import numpy as np
import pytest
import torch

from devices.runtime import make_runtime
from nas.models.parity import check_optimised, check_parity
from search_spaces.spaces.registry import build_space
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.onnx.packing import pack_onnx
from tests.supernet.packed_reference import PackedReference

CASES = {
    "signal": {"name": "signal", "preset": "256", "input_size": (1, 90), "input_channels": 2},
    "residual": {"name": "signal", "preset": "256-residual", "input_size": (1, 75)},
    "lean": {"name": "signal", "preset": "256-lean", "input_size": (1, 75)},
    "spectrogram": {"name": "mobilenet", "preset": "49x40", "input_size": (49, 40)},
}


@pytest.fixture(params=CASES)
def made(request):
    """A supernet, one of its architectures extracted, and inputs."""
    torch.manual_seed(0)
    case = {"input_channels": 1, **CASES[request.param]}
    space = build_space(case.pop("name"), outputs=4, **case)
    net = Supernet(space)
    arch = space.sample(np.random.default_rng(3))
    plan = space.plan(arch)
    inputs = torch.randn(8, *plan.input_shape)
    statistics = net.statistics(plan, [inputs])
    return net, arch, statistics, net.extract(plan, statistics), inputs


def test_the_extracted_network_computes_what_the_supernet_does(made):
    net, arch, statistics, network, inputs = made
    with torch.no_grad():
        assert torch.equal(network(inputs), net.evaluate(inputs, arch, statistics))


def test_the_file_runs_on_integers_and_agrees(made, tmp_path):
    *_, network, inputs = made
    summary = export_onnx(network, tmp_path / "m.onnx", reduce_range=True)
    check = check_optimised(tmp_path / "m.onnx", inputs)
    assert check.passed and not check.float_fallbacks
    found = check_parity(network, tmp_path / "m.onnx", inputs)
    assert found.relative_error < 0.2 and not found.problems
    assert summary.weights_kib == pytest.approx(network.plan.weights_kib, rel=0.02)


def test_low_bit_kernels_agree_with_the_reference_bit_for_bit(made, tmp_path):
    *_, network, inputs = made
    export_onnx(network, tmp_path / "m.onnx")
    packed = pack_onnx(tmp_path / "m.onnx", tmp_path / "m.lowbit")
    values = inputs.numpy()
    session = make_runtime("lowbit", {"batch": len(values)}).load(tmp_path / "m.lowbit")
    expected = PackedReference(packed)(values)
    np.testing.assert_array_equal(session(values)[0], expected)
