"""Convolutions as every network here runs them."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


def convolve(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    strides: Sequence[int],
    pads: Sequence[int],
    dilations: Sequence[int],
    groups: int,
) -> Tensor:
    """Return the convolution of ``x`` (batch, in, height, width) with ``weight`` (out, in, k, k).

    A kernel of one place with a stride runs on the places that it reads. That is the same, and
    oneDNN on processors without AVX-512 (torch 2.14) writes beyond its memory in the gradient of
    such a convolution's weights where it has fewer than eight inputs.
    """
    if tuple(weight.shape[2:]) == (1, 1) and not any(pads) and max(strides) > 1:
        x, strides = x[:, :, :: strides[0], :: strides[1]], (1, 1)
    return F.conv2d(x, weight, bias, tuple(strides), tuple(pads), tuple(dilations), groups)


class Conv2d(nn.Conv2d):
    """A convolution of an extracted network, with zeros as padding."""

    def forward(self, x: Tensor) -> Tensor:
        """Convolve ``x`` (batch, in_channels, height, width) as a supernet does."""
        assert not isinstance(self.padding, str)
        return convolve(
            x, self.weight, self.bias, self.stride, self.padding, self.dilation, self.groups
        )
