"""Linear layers of one bit that are trained, and what their file holds."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from supernet.weight_only.onebit import OneBitLinear


def test_a_layer_starts_from_the_best_matrix_of_rank_one_and_learns():
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 32), torch.randn(256, 64)
    with torch.no_grad():
        layer.weight *= torch.rand(32, 1) + 0.2
        layer.weight *= torch.rand(64) + 0.2
    student = OneBitLinear(layer)
    error = (student(x) - layer(x)).square().mean()
    plain = layer.weight.abs().mean() * layer.weight.sign()
    assert error < (x @ plain.T + layer.bias - layer(x)).square().mean()
    with torch.no_grad():
        student.inputs *= 1.5
        student.weight[:, ::8] *= -1
    spoilt = (student(x) - layer(x)).square().mean()
    optimizer = torch.optim.AdamW(student.parameters(), 1e-2, weight_decay=0.0)
    for _ in range(200):
        optimizer.zero_grad()
        loss = (student(x) - layer(x).detach()).square().mean()
        loss.backward()
        optimizer.step()
    assert spoilt > 2 * error and loss < 0.5 * spoilt


def test_a_packed_layer_computes_what_was_trained():
    torch.manual_seed(0)
    student = OneBitLinear(nn.Linear(64, 32))
    with torch.no_grad():
        student.outputs[:5] *= -1  # training may turn a value negative
        student.weight.add_(0.1 * torch.randn_like(student.weight))
    x = torch.randn(8, 64)
    packed = student.grouped()
    found = x.numpy() @ packed.dequantised().T + packed.bias
    np.testing.assert_allclose(found, student(x).detach().numpy(), rtol=2e-3, atol=2e-3)
    assert packed.bits == 1 and 8 * packed.nbytes / (32 * 64) < 3
