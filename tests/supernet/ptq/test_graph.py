"""What of a network is no layer is counted beside its layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from nas.bits.search import allocate_bits, beside_layers
from supernet.ptq.graph import trace_float


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed, self.mix, self.head = (nn.Linear(6, 24), nn.Linear(8, 8), nn.Linear(8, 3))

    def forward(self, x):
        query, key, value = self.embed(x).chunk(3, -1)
        shares = (query @ key.transpose(1, 2)).softmax(-1)
        return self.head(self.mix(shares @ value).mean(1))


def test_products_of_attention_are_counted_in_float():
    x = torch.randn(4, 5, 6)
    found = trace_float(Attention().eval(), x).products(x)
    macs = 2 * 5 * 5 * 8
    assert found == {"macs": macs, "bops": macs * 32 * 32}
    assert beside_layers(nn.Sequential(nn.Linear(6, 3)).eval(), x[:, 0])["bops"] == 0


def test_bit_operations_of_products_stand_in_every_allocation():
    torch.manual_seed(0)
    x = torch.randn(16, 5, 6)
    result = allocate_bits(
        Attention().eval(), [x], {"weights_kib": "100%"}, weight_bits=(4, 8), adaround=False
    )
    layers = {"embed": 5 * 6 * 24, "mix": 5 * 8 * 8, "head": 8 * 3}
    bits = dict(zip(result.table.layers, result.best.options, strict=True))
    own = sum(macs * bits[n].weight * bits[n].activation for n, macs in layers.items())
    assert result.best.costs["bops"] == pytest.approx(own + 2 * 5 * 5 * 8 * 1024)
