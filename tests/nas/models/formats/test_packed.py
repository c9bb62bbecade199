"""Packed files of layers that only networks of users have."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.models.formats.base import FORMATS, Source
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training


@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("pool", [{"stride": 2}, {"stride": 1, "dilation": 2}])
def test_pools_of_signals_and_with_gaps_are_packed_as_what_they_are(rank, pool, tmp_path):
    torch.manual_seed(0)
    conv, maximum = ((nn.Conv1d, nn.MaxPool1d), (nn.Conv2d, nn.MaxPool2d))[rank - 1]
    network = nn.Sequential(conv(3, 4, 3), nn.ReLU(), maximum(3, padding=1, **pool), conv(4, 3, 1))
    examples = torch.randn(4, 3, *[9] * rank)
    codes = quantize_post_training(network.eval(), [examples], (8, 8), steps=())
    export_onnx(codes, tmp_path / "m.onnx")
    written = FORMATS.get("lowbit").write(Source(tmp_path / "m.onnx", "m"), tmp_path)
    assert written.relative_error is None or written.relative_error < 0.05
