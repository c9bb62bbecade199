"""Weights of a linear layer whose input channels share scales in groups, for weight-only bits.

A group's step is that of the uniform quantiser with the least squared error on a normal
distribution (Max, IRE Transactions on Information Theory 6, 1960, table II) of the group's root
mean square; levels are half steps apart from zero, ``step * (code + 1/2)``. So nothing is learnt
beside the weights, and a narrow network's whole groups are the wide one's.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.number_formats import NumberFormat
from supernet.quantizers.formats import EncodedWeights

STEPS = {1: 1.5958, 2: 0.9957, 3: 0.5860, 4: 0.3352, 5: 0.1881, 6: 0.1041, 7: 0.0569, 8: 0.0308}
"""Best step for a normal distribution of deviation 1, by bits."""

_LEAST = 1e-8


@lru_cache
def group_format(bits: int) -> NumberFormat:
    """Return the levels of ``bits``: half steps from zero on, in the order of their codes.

    Raises:
        InputError: no step is known for so many bits.
    """
    if bits not in STEPS:
        raise InputError(f"weights in groups have 1 to 8 bits, not {bits}")
    half = 2 ** (bits - 1)
    return NumberFormat(
        f"levels{bits}",
        bits,
        (tuple(code - half + 0.5 for code in range(2**bits)),),
        "uniform, half steps apart from zero (Max, 1960)",
    )


def group_steps(flat: Tensor, bits: int, group: int) -> Tensor:
    """Return the step of each group, (out, groups). ``flat``: (out, channels), float."""
    short = -flat.shape[1] % group
    squares = torch.nn.functional.pad(flat.detach().float().square(), (0, short))
    counts = torch.full((squares.shape[1] // group,), float(group), device=flat.device)
    counts[-1] -= short
    mean = squares.unflatten(1, (-1, group)).sum(2) / counts
    return (mean.sqrt() * STEPS[bits]).clamp(min=_LEAST)


def group_quantized(weight: Tensor, bits: int, group: int) -> Tensor:
    """Return weights (out, channels, ...) at the levels of their groups, with gradients.

    A weight beyond the last level gets no gradient, as in LSQ.
    """
    flat = weight.flatten(1)
    wide = _wide(group_steps(flat, bits, group), group, flat.shape[1])
    result: Tensor = _GroupFakeQuantize.apply(flat, wide, 2 ** (bits - 1))
    return result.view_as(weight)


@torch.no_grad()
def group_encoded(weight: Tensor, bits: int, group: int) -> EncodedWeights:
    """Return the codes of float weights (out, channels, ...) and the scales of their groups."""
    flat = weight.detach().flatten(1)
    steps = group_steps(flat, bits, group)
    half = 2 ** (bits - 1)
    codes = (flat / _wide(steps, group, flat.shape[1])).floor().clamp(-half, half - 1) + half
    return EncodedWeights(
        group_format(bits),
        codes.to(torch.uint8).cpu().numpy().reshape(tuple(weight.shape)),
        np.ascontiguousarray(steps.cpu().numpy(), np.float32),
        np.zeros(tuple(steps.shape), np.uint8),
        group,
    )


def _wide(steps: Tensor, group: int, channels: int) -> Tensor:
    return steps.repeat_interleave(group, 1)[:, :channels]


class _GroupFakeQuantize(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, flat: Tensor, wide: Tensor, half: int) -> Tensor:
        """Return the middle of each value's interval of width ``wide``, ``2 * half`` of them."""
        scaled = flat / wide
        codes = scaled.floor().clamp(-half, half - 1)
        ctx.save_for_backward((scaled >= -half) & (scaled < half))
        return (codes + 0.5) * wide

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradient, straight through where nothing was clipped."""
        (inside,) = ctx.saved_tensors
        return gradients[0] * inside, None, None
