"""What the supernet of every registered space must do: the same contract for all of them."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pytest
import torch

from nas.models.parity import check_optimised
from search_spaces.planned import PlannedSpace
from search_spaces.spaces.registry import SPACES, build_space
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.testing import SupernetContract, at_bits, extracted, plans_of, random_gains
from tests.supernet.sessions import exact_session

NAMES = [name for name in SPACES if issubclass(SPACES.get(name), PlannedSpace)]
CASES = {
    **{name: (name, {}) for name in NAMES},
    "fused or not, and exits": (
        "mobilenet",
        {
            "stages": [
                {"channels": 8, "stride": 1, "depths": [1, 2], "blocks": ["mbconv", "fused"]},
                {"channels": 16, "stride": 2, "depths": [1], "squeeze": True,
                 "activation": "hswish"},
            ],
            "expands": [1, 2],
            "exits": [1],
        },
    ),
    "stages of several widths": (
        "mobilenet",
        {
            "stages": [
                {"channels": 8, "stride": 1, "depths": [1, 2], "widths": [0.5, 1.0]},
                {"channels": 16, "stride": 2, "depths": [1, 2], "widths": [0.5, 0.75, 1.5]},
            ],
            "widths": [0.5, 1.0],
            "expands": [1, 2],
        },
    ),
    "two kinds of residual": (
        "resnet",
        {
            "stages": [{"channels": 16, "stride": 2, "depths": [1, 2], "expands": [0.5, 1],
                        "blocks": ["basic", "bottleneck"]}],
            "stem_pool": True,
        },
    ),
}  # fmt: skip
FLOAT_OPERATORS = {
    "vit": {"Add", "LayerNormalization", "Softmax", "Gelu", "Mul", "ReduceMean"},
    "hybrid": {"Mul", "Softmax"},
    "decoder": {"Add", "LayerNormalization", "Softmax", "Gelu", "Mul", "MatMul", "Round", "Gather"},
    "encoder_decoder": {
        "Add", "LayerNormalization", "Softmax", "Gelu", "Mul", "MatMul", "Round", "Gather", "Sub",
    },
    "fused or not, and exits": {"HardSwish", "HardSigmoid"},
    "two kinds of residual": {"MaxPool"},  # not in ONNX Runtime's NHWC form for all sizes
}  # fmt: skip
"""What computes on floats in a quantised file, by the type of the operator."""


@lru_cache
def build(case: str) -> Supernet:
    torch.manual_seed(0)
    name, config = CASES[case]
    preset = {"preset": "8x8"} if "8x8" in getattr(SPACES.get(name), "PRESETS", ()) else {}
    bits = {"weight_bits": [2, 3, 4, 8], "activation_bits": [2, 3, 4, 8]}
    space = build_space(name, input_channels=1, outputs=5, **preset, **bits, **config)
    return random_gains(Supernet(space))


@torch.no_grad()
def noise_response(network, images, expected, size: float) -> float:
    """Return how far outputs move when layers get noise of ``size`` of their outputs' spread."""
    torch.manual_seed(1)
    hooks = [
        layer.register_forward_hook(
            lambda m, args, out: out + size * out.std() * torch.randn_like(out)
        )
        for layer in network.plain_layers()
    ]
    moved = np.linalg.norm(network(images).numpy() - expected)
    for hook in hooks:
        hook.remove()
    return float(moved)


class TestEverySpace(SupernetContract):
    @pytest.fixture(scope="class", params=CASES)
    def case(self, request) -> str:
        return request.param

    @pytest.fixture(scope="class")
    def supernet(self, case) -> Supernet:
        return build(case)

    @pytest.mark.parametrize("bits", [8, 4, 3, 2, None])
    def test_the_exported_file_computes_what_the_network_does(self, case, bits, tmp_path):
        for i, plan in enumerate(plans_of(build(case).space, 2)[2 if bits is None else 0 :]):
            plan = plan if bits is None else at_bits(build(case), plan, bits)
            network, images, _ = extracted(build(case), plan)
            summary = export_onnx(network, tmp_path / f"{i}.onnx")
            assert summary.weights_kib == pytest.approx(plan.weights_kib)
            session = exact_session(tmp_path / f"{i}.onnx")
            found = session.run(None, {"input": images.numpy()})[0]
            with torch.no_grad():
                expected = network(images).numpy()
            # An untrained network carries a code that rounds the other way through all its layers,
            # so the measure is what it does to noise of a few thousandths of each layer's output.
            allowed = 3 * noise_response(network, images, expected, 3e-3)
            assert np.linalg.norm(found - expected) <= max(allowed, 0.01 * np.linalg.norm(expected))
            if i == 0:
                check = check_optimised(tmp_path / f"{i}.onnx", images)
                kinds = {name.rsplit("_", 1)[0] for name in check.float_fallbacks}
                assert kinds <= FLOAT_OPERATORS.get(case, set()), check.float_fallbacks
