"""Small networks with what people's networks have beside layers, in the low-bit runtime.

Each is quantised, exported and packed, and computes what ONNX Runtime makes of the file, on
integers alone.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch

from devices.runtime import make_runtime
from experiments.own.odd_nets import NETWORKS
from nas.models.parity import evaluate_onnx
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training

pytestmark = [pytest.mark.long, pytest.mark.usefixtures("needs_compiler")]

NAMES = (
    "average pools as shortcuts", "uneven zeros", "uneven reflections", "uneven edges", "inception",
    "channel shuffle", "pixel shuffle", "focus", "cropped", "channels padded", "adaptive pool",
    "max pool that rounds up", "pool that counts its zeros", "as large, even kernel", "relu6",
    "u-net, transposed convolution", "u-net, transposed with overlap", "transposed by channel",
    "pool without its zeros", "average pool that rounds up", "group norm", "instance norm",
    "circular", "gated", "squeezed", "leaky relu", "parametric relu", "elu", "silu", "mish",
    "largest values", "u-net, bilinear", "u-net, nearest neighbours",
)  # fmt: skip

PAIRS = [(name, bits) for name in NAMES for bits in ((8, 4), (4, 8))]


@pytest.mark.parametrize(("name", "bits"), PAIRS)
def test_it_computes_what_onnx_runtime_makes_of_the_file(name, bits, tmp_path):
    torch.manual_seed(0)
    network = NETWORKS[name]()
    with torch.no_grad():
        for _ in range(4):
            network(torch.randn(16, 3, 16, 16))
    images = torch.randn(8, 3, 16, 16)
    codes = quantize_post_training(network.eval(), [images], bits, steps=(), edge_bits=None)
    path = tmp_path / "m.onnx"
    export_onnx(codes, path)
    expected = evaluate_onnx(path, [images], optimise=False)
    session = make_runtime("lowbit", {"batch": 8, "tune": False}).load(path)
    found = session(images.numpy())[0]
    # Some values lie between two codes, and another order of sums takes the other one.
    assert np.linalg.norm(found - expected) < 0.02 * np.linalg.norm(expected)
    off = np.abs(found - expected).reshape(8, -1).max(1) > 1e-4 * np.abs(expected).max()
    assert off.mean() <= 0.5
    assert session.network.float_operations == []
