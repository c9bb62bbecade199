"""Weights whose channels share scales in groups: levels, gradients, extraction and export."""

import numpy as np
import onnxruntime
import pytest
import torch

from search_spaces.spaces.registry import build_space
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.quantizers.groups import STEPS, group_encoded, group_quantized, group_steps


@pytest.mark.parametrize("bits", list(STEPS))
def test_codes_and_values_are_the_same_weights(bits):
    torch.manual_seed(0)
    weight = torch.randn(6, 20, 1, 1)
    encoded = group_encoded(weight, bits, 8)
    assert encoded.codes.max() < 2**bits and encoded.scales.shape == (6, 3)
    found = group_quantized(weight, bits, 8)
    np.testing.assert_allclose(encoded.decoded(), found.numpy(), rtol=1e-6)
    # As many levels a group as codes, half steps apart from zero.
    assert not (found == 0).any()


def test_the_step_is_the_best_for_a_normal_distribution():
    torch.manual_seed(0)
    weight = torch.randn(64, 4096)
    for bits in (2, 3, 4):
        own = (group_quantized(weight, bits, 4096) - weight).square().mean()
        # Of Max's table II: .1188, .03744 and .01154.
        assert float(own) == pytest.approx({2: 0.1188, 3: 0.0374, 4: 0.0115}[bits], rel=0.02)


def test_a_group_has_its_own_step_and_a_last_short_one_counts_what_it_has():
    weight = torch.cat([torch.full((1, 8), 1.0), torch.full((1, 4), 100.0)], 1)
    steps = group_steps(weight, 4, 8)
    np.testing.assert_allclose(steps.numpy(), [[STEPS[4], 100 * STEPS[4]]], rtol=1e-5)
    # Whole groups of a narrow network are the wide one's.
    wide = torch.randn(4, 24)
    both = group_quantized(wide, 3, 8), group_quantized(wide[:, :16], 3, 8)
    assert torch.equal(both[0][:, :16], both[1])


def test_weights_get_gradients_unless_they_lie_beyond_the_last_level():
    weight = torch.tensor([[0.1, -0.2, 0.3, 9.0, 0.1, 0.1, -0.1, 0.2]], requires_grad=True)
    group_quantized(weight, 2, 8).sum().backward()
    assert weight.grad.tolist() == [[1, 1, 1, 0, 1, 1, 1, 1]]


@pytest.mark.parametrize("bits", [2, 4])
def test_a_network_trains_and_its_file_computes_the_same(bits, tmp_path):
    torch.manual_seed(0)
    space = build_space(
        "decoder", outputs=11, weight_bits=[bits, 8], activation_bits=[32], groups=[0, 16],
        edge_bits=8, input_size=(1, 12),
    )  # fmt: skip
    supernet = Supernet(space)
    tokens = torch.randint(0, 11, (3, 1, 1, 12)).float()
    arch = space.arch(
        {name: bits if ".w." in name else value for name, value in space.largest().items}
    )
    plan = space.plan(arch)
    supernet(tokens, plan).square().mean().backward()
    gradient = supernet.layer("b1.qkv").weight.grad
    assert gradient is not None and gradient.isfinite().all() and gradient.any()
    network = supernet.extract(plan, {})
    layer = next(x for x in network.plain_layers() if x.layer.name == "b1.qkv")
    assert layer.encoded is not None and layer.encoded.group == 16
    with torch.no_grad():
        expected = network(tokens).numpy()
        np.testing.assert_array_equal(supernet.evaluate(tokens, plan, {}).numpy(), expected)
    path = tmp_path / "model.onnx"
    summary = export_onnx(network, path)
    assert summary.weights_kib == pytest.approx(plan.weights_kib, rel=1e-6)
    session = onnxruntime.InferenceSession(str(path))
    found = session.run(None, {"input": tokens.numpy()})[0]
    assert np.linalg.norm(found - expected) <= 1e-4 * np.linalg.norm(expected)
    # Codes lie in the file as small integers.
    floats = tmp_path / "floats.onnx"
    whole = supernet.extract(space.plan(space.arch({**dict(arch.items), "b1.w.qkv": 8})), {})
    export_onnx(whole, floats)
    assert path.stat().st_size < floats.stat().st_size
