"""AdaRound: whether each weight rounds up or down is learned (Nagel et al., ICML 2020).

Rounding to nearest minimises the error of the weights; this minimises that of the layer's
output on a few unlabelled images (equations 21 to 25).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from supernet.ptq.graph import Layer
from supernet.quantizers.lsq import weight_range

_ZETA, _GAMMA = 1.1, -0.1
"""The rectified sigmoid reaches from -0.1 to 1.1 before it is cut to 0..1 (equation 23)."""


@dataclass(frozen=True)
class RoundingRecipe:
    """How rounding is learned.

    Attributes:
        iterations: steps of Adam a layer.
        batch: images in a step.
        learning_rate: of Adam.
        regularizer: weight of the term that drives each weight to one side.
        start, stop: its exponent falls from ``start`` to ``stop``.
        warmup: share of the steps without that term.
    """

    iterations: int = 1000
    batch: int = 32
    learning_rate: float = 1e-2
    regularizer: float = 0.01
    start: float = 20.0
    stop: float = 2.0
    warmup: float = 0.2


def learn_rounding(
    layer: Layer,
    step: Tensor,
    bits: int,
    *,
    inputs: Tensor,
    targets: Tensor,
    activation: Callable[[Tensor], Tensor] | None = None,
    recipe: RoundingRecipe = RoundingRecipe(),
    seed: int = 0,
    mask: Tensor | None = None,
) -> Tensor:
    """Return weights of ``layer`` on the grid of ``step``, each rounded up or down.

    Args:
        layer: convolution or linear layer with float weights and its bias.
        step: (out,) of the signed codes.
        bits: of the codes.
        inputs: what the layer gets in the quantised network, (images, ...).
        targets: its outputs in the float network, (images, ...).
        activation: non-linearity after the layer; errors that it removes do not count.
        recipe: hyperparameters.
        seed: of the images of each step.
        mask: which weights are kept, in their shape; the others are zero.
    """
    low, high = weight_range(bits)
    weight = layer.weight.detach()
    column = step.view(-1, *[1] * (weight.dim() - 1))
    kept = 1.0 if mask is None else mask.to(weight.dtype)
    floor = (weight / column).floor()
    rest = (weight / column - floor).clamp(1e-4, 1 - 1e-4)
    # So that the start is the float weight (equation 22 solved for V).
    start = -torch.log((_ZETA - _GAMMA) / (rest - _GAMMA) - 1)
    variable = start.requires_grad_()
    optimizer = torch.optim.Adam([variable], lr=recipe.learning_rate)
    generator = torch.Generator().manual_seed(seed)
    act = activation or (lambda x: x)
    with torch.enable_grad():
        for i in range(recipe.iterations):
            rows = torch.randint(
                len(inputs), (min(recipe.batch, len(inputs)),), generator=generator
            )
            up = _rectified(variable)
            soft = (floor + up).clamp(low, high) * column * kept
            found = torch.func.functional_call(layer, {"weight": soft}, (inputs[rows],))
            error = (act(found) - act(targets[rows])).square()
            # Summed over channels, averaged over images and positions.
            loss = error.sum(1).mean()
            progress = (i / recipe.iterations - recipe.warmup) / (1 - recipe.warmup)
            if progress > 0:
                share = 0.5 * (1 + math.cos(progress * math.pi))
                beta = recipe.stop + (recipe.start - recipe.stop) * share
                loss = loss + recipe.regularizer * (1 - (2 * up - 1).abs().pow(beta)).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    with torch.no_grad():
        hard = (floor + (_rectified(variable) >= 0.5)).clamp(low, high) * column * kept
    return hard.detach()


def _rectified(variable: Tensor) -> Tensor:
    return (torch.sigmoid(variable) * (_ZETA - _GAMMA) + _GAMMA).clamp(0, 1)
