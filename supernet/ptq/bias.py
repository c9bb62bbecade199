"""Bias correction: the mean error of a layer's output is taken off its bias.

The empirical form of Nagel et al. (ICCV 2019, section 4.2 and appendix D): rounding shifts the
mean of each output channel, and later layers carry the shift on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from supernet.ptq.graph import Layer


@torch.no_grad()
def correct_bias(layer: Layer, expected: Sequence[Tensor], found: Sequence[Tensor]) -> Tensor:
    """Shift the bias of ``layer`` in place so that the mean output is the expected one.

    Args:
        layer: convolution or linear layer with a bias.
        expected: outputs of the float network, (batch, channels, ...) each; a linear layer's
            channels are last.
        found: outputs of the layer as it is, likewise.

    Returns:
        What was added, (channels,).
    """
    axis = -1 if isinstance(layer, nn.Linear) else 1
    assert layer.bias is not None, "bias is corrected where there is one"
    parts = [_sum(e - f, axis) for e, f in zip(expected, found, strict=True)]
    total = torch.stack(parts).sum(0)
    count = sum(e.numel() for e in expected) / len(layer.bias)
    shift = total / count
    layer.bias.add_(shift)
    return shift


def _sum(x: Tensor, axis: int) -> Tensor:
    return x.movedim(axis, 0).flatten(1).double().sum(1).float()
