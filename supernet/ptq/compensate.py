"""Rounding weights one after another, what is lost being made up by those that follow.

GPTQ (Frantar et al., ICLR 2023, algorithm 1) for convolutions as well as linear layers: the squared
error of a layer's outputs on calibration images, not that of its weights, is what is kept small. In
closed form and without gradients, so it takes seconds where learned rounding takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from supernet.ptq.graph import Layer
from supernet.ptq.ranges import quantize_weight
from supernet.quantizers.lsq import weight_range

ROWS = 4096
"""Output positions that count, over all images; more where a row has many weights."""

MANY = 4608
"""Weights of a row (512 channels of 3x3) beyond which they are rounded to nearest: what they say of
each other is a matrix of so many rows and columns, which has to be inverted."""

FEW = 64
"""Weights of a row up to which grids are looked for: a rounding that falls badly weighs much there,
as in depthwise convolutions, and there is little to compute."""

_WIDER = torch.linspace(1.0, 1.4, 17).tolist()
_DAMP = 0.01


@torch.no_grad()
def compensate(
    layer: Layer,
    step: Tensor,
    bits: int,
    inputs: Sequence[Tensor],
    *,
    seed: int = 0,
    mask: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return weights of ``layer`` on a grid, shape and type as they are, and its steps, (out,).

    Rows of few weights take the best of several grids, up to 1.4 times as wide as ``step``.

    Args:
        layer: convolution or linear layer with float weights.
        step: (out,) of the signed codes.
        bits: of the codes.
        inputs: what the layer gets in the quantised network, (batch, ...) each.
        seed: of the positions that are looked at.
        mask: which weights are kept, in their shape; what is lost with the others is made up for
            as well (SparseGPT, Frantar and Alistarh, ICML 2023, with a mask that is given).
    """
    groups = layer.groups if isinstance(layer, nn.Conv2d) else 1
    weight = layer.weight.double().flatten(1).unflatten(0, (groups, -1))
    columns = weight.shape[-1]
    if columns > MANY:
        kept = layer.weight if mask is None else layer.weight * mask
        return quantize_weight(kept, step, bits), step
    stays = None if mask is None else mask.flatten(1).unflatten(0, (groups, -1))
    rows = _rows(layer, inputs, max(ROWS, 3 * columns), seed).unflatten(1, (groups, -1))
    gram = torch.einsum("ngc,ngd->gcd", rows, rows) / max(1, len(rows))
    diagonal = gram.diagonal(dim1=1, dim2=2)
    # What is never there says nothing: it is rounded to nearest.
    diagonal += _DAMP * diagonal.mean(1, keepdim=True).clamp(min=1e-12) + 1e-12
    upper = torch.linalg.cholesky(torch.linalg.inv(gram), upper=True)
    size = step.double().unflatten(0, (groups, -1))
    best, chosen, least = weight, size, torch.full_like(size, torch.inf)
    for wider in _WIDER if columns <= FEW else _WIDER[:1]:
        found = _rounded(weight, wider * size, upper, bits, stays)
        lost = found - weight
        error = torch.einsum("goc,gcd,god->go", lost, gram, lost)
        better = error < least
        best = torch.where(better[..., None], found, best)
        chosen, least = torch.where(better, wider * size, chosen), torch.where(better, error, least)
    rounded = best.flatten(0, 1).view_as(layer.weight).to(layer.weight.dtype)
    return rounded, chosen.flatten().to(step.dtype)


def _rounded(
    weight: Tensor, size: Tensor, upper: Tensor, bits: int, stays: Tensor | None
) -> Tensor:
    """Return ``weight`` (groups, out, columns) on the grids of ``size`` (groups, out)."""
    low, high = weight_range(bits)
    rest, found = weight.clone(), torch.empty_like(weight)
    for place in range(weight.shape[-1]):
        column = rest[..., place]
        found[..., place] = (column / size).round().clamp(low, high) * size
        if stays is not None:
            found[..., place] *= stays[..., place]
        lost = (column - found[..., place]) / upper[:, place, place, None]
        rest[..., place:] -= lost[..., None] * upper[:, None, place, place:]
    return found


def _rows(layer: Layer, inputs: Sequence[Tensor], count: int, seed: int) -> Tensor:
    """Return what some output positions read: (rows, inputs of all groups) float64."""
    generator = torch.Generator().manual_seed(seed)
    images = sum(len(x) for x in inputs)
    each = max(1, -(-count // images))
    found = []
    for x in inputs:
        if not isinstance(layer, nn.Conv2d):
            flat = x.reshape(-1, x.shape[-1])
            chosen = torch.randperm(len(flat), generator=generator)[: each * len(x)]
            found.append(flat[chosen].double())
            continue
        assert not isinstance(layer.padding, str), "paddings are numbers once a network was read"
        for image in x.split(1):
            # F.unfold knows no two paddings of one side, and none is needed here.
            patches = F.unfold(
                image, layer.kernel_size, layer.dilation, layer.padding, layer.stride
            )  # fmt: skip
            chosen = torch.randperm(patches.shape[-1], generator=generator)[:each]
            found.append(patches[0, :, chosen].T.double())
    return torch.cat(found)
