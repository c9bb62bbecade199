"""Muon: momentum whose step is made orthogonal, for weights that are matrices.

Jordan et al., "Muon: An optimizer for hidden layers in neural networks" (2024): the momentum of a
matrix is replaced by the nearest (semi-)orthogonal one, so that every direction of its space
learns alike instead of the few that have large gradients. ``torch.optim.Muon`` takes nothing but
matrices, no filters, and multiplies in bfloat16, which many processors only emulate.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

ITERATIONS = 5
"""Of Newton and Schulz; their polynomial's coefficients are those of Jordan et al."""

_LINEAR, _CUBIC, _QUINTIC = 3.4445, -4.7750, 2.0315
_SMALLEST_NORM = 1e-7


def orthogonalised(matrix: Tensor, iterations: int = ITERATIONS) -> Tensor:
    """Return about the orthogonal factor U V^T of ``matrix`` = U S V^T; (rows, columns).

    Its singular values lie between about .7 and 1.2. Rows and columns of zeros remain zeros.
    """
    wide = matrix.T if matrix.size(0) > matrix.size(1) else matrix
    x = wide / (wide.norm() + _SMALLEST_NORM)
    for _ in range(iterations):
        squared = x @ x.T
        factor = torch.addmm(squared, squared, squared, beta=_CUBIC, alpha=_QUINTIC)
        x = torch.addmm(x, factor, x, beta=_LINEAR)
    return x.T if matrix.size(0) > matrix.size(1) else x


class Muon(torch.optim.Optimizer):
    """Momentum, made orthogonal for each parameter; a filter bank counts as (filters, the rest).

    Args:
        parameters: of two dimensions and more.
        lr: learning rate.
        momentum: share of what was that an average of gradients keeps; the step looks one ahead
            (Nesterov).
        weight_decay: times the learning rate, taken off the parameters in each step.
        update_rms: root mean square of a step's entries over the learning rate, whatever the
            shape. AdamW's are between .2 and .4 (Liu et al., "Muon is scalable for LLM training",
            2025, section 2.2), so one schedule of learning rates serves both.
    """

    def __init__(
        self,
        parameters: Iterable[nn.Parameter],
        lr: float,
        *,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        update_rms: float = 0.3,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "update_rms": update_rms,
        }
        super().__init__(parameters, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Take one step for every parameter that has a gradient."""
        for group in self.param_groups:
            taking = [p for p in group["params"] if p.grad is not None]
            if not taking:
                continue
            gradients = [p.grad for p in taking]
            averages = [self._average(p) for p in taking]
            torch._foreach_lerp_(averages, gradients, 1 - group["momentum"])
            ahead = torch._foreach_lerp(gradients, averages, group["momentum"])
            if group["weight_decay"]:
                torch._foreach_mul_(taking, 1 - group["lr"] * group["weight_decay"])
            for parameter, towards in zip(taking, ahead, strict=True):
                matrix = towards.flatten(1)
                # What never had a gradient, as pruned weights, keeps its value.
                update = orthogonalised(matrix) * (matrix != 0)
                # An orthogonal matrix of r rows and c columns has a mean square of 1 / max(r, c).
                size = group["lr"] * group["update_rms"] * max(update.shape) ** 0.5
                parameter.add_(update.view(parameter.shape), alpha=-size)

    def _average(self, parameter: nn.Parameter) -> Tensor:
        state = self.state[parameter]
        if "average" not in state:
            state["average"] = torch.zeros_like(parameter, requires_grad=False)
        average: Tensor = state["average"]
        return average
