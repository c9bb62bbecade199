"""Ranges of weights and activations: the extremes, or those of least squared error.

Clipping outliers makes the step of all others finer. The range of least mean squared error is
found by trying shrunken versions of the extremes (Banner et al., NeurIPS 2019, who solve for it
under an assumed distribution; Nagel et al., "A White Paper on Neural Network Quantization", 2021,
section 3.1, as here).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.number_formats import NumberFormat
from supernet.quantizers.formats import round_to_format
from supernet.quantizers.lsq import activation_range, weight_range

METHODS = ("max", "mse")

_CANDIDATES = 60
_SMALLEST = 1e-8


@dataclass(frozen=True)
class ActivationGrid:
    """Codes of a tensor: its values are ``step * (code - zero_point)``."""

    step: float
    zero_point: int
    bits: int

    def __call__(self, x: Tensor) -> Tensor:
        """Fake-quantise ``x`` of any shape."""
        low, high = activation_range(self.bits)
        codes = (x / self.step).round_().add_(self.zero_point).clamp_(low, high)
        return codes.sub_(self.zero_point).mul_(self.step)


@torch.no_grad()
def weight_steps(
    weight: Tensor, bits: int, *, method: str = "mse", per_channel: bool = True
) -> Tensor:
    """Return the step of each output channel of ``weight`` (out, ...), (out,).

    Args:
        weight: float weights.
        bits: of the signed codes.
        method: ``max`` covers every weight; ``mse`` minimises the squared error.
        per_channel: otherwise all channels have one step.
    """
    _check(method)
    low, high = weight_range(bits)
    rows = weight.detach().flatten(1) if per_channel else weight.detach().reshape(1, -1)
    top = rows.abs().amax(1).clamp(min=_SMALLEST)
    full = top / max(high, 0.5)
    if method == "mse":
        # Beyond 1 too: two's complement has one more code below zero.
        shrink = torch.linspace(0.2, 1.05, _CANDIDATES, device=rows.device)
        best, least = full.clone(), torch.full_like(full, torch.inf)
        for factor in shrink:
            step = full * factor
            codes = (rows / step[:, None]).round_().clamp_(low, high)
            error = (codes.mul_(step[:, None]) - rows).square_().sum(1)
            better = error < least
            best, least = torch.where(better, step, best), torch.where(better, error, least)
        full = best
    return full.expand(len(weight)).clone()


def quantize_weight(weight: Tensor, step: Tensor, bits: int) -> Tensor:
    """Return ``weight`` (out, ...) rounded to the grid of ``step`` (out,)."""
    column = step.view(-1, *[1] * (weight.dim() - 1))
    return (weight / column).round().clamp(*weight_range(bits)) * column


class RangeObserver:
    """Collects what is needed to choose an activation's grid.

    Args:
        method: ``max`` keeps the extremes, ``mse`` a sample of values as well.
        sample: values kept of each batch.
    """

    def __init__(self, method: str = "mse", *, sample: int = 2**13) -> None:
        _check(method)
        self.method, self.sample = method, sample
        self.low, self.high = 0.0, 0.0
        self._kept: list[Tensor] = []

    def see(self, x: Tensor) -> None:
        """Take ``x`` of any shape into account."""
        x = x.detach()
        if not bool(x.isfinite().all()):
            # What a max pool is padded with becomes the least code, whatever the range is.
            x = x[x.isfinite()]
        self.low = min(self.low, x.min().item())
        self.high = max(self.high, x.max().item())
        if self.method == "mse":
            flat = x.reshape(-1)
            if flat.numel() > self.sample:
                # At random, with a fixed seed: evenly spaced values would all lie in a few columns
                # of the images.
                generator = torch.Generator().manual_seed(len(self._kept))
                rows = torch.randint(flat.numel(), (self.sample,), generator=generator)
                flat = flat[rows.to(flat.device)]
            self._kept.append(flat.clone())

    @torch.no_grad()
    def grid(self, bits: int) -> ActivationGrid:
        """Return the grid for ``bits``; zero is one of its values, as padding needs."""
        high_code = activation_range(bits)[1]
        if self.method == "max" or self.high <= self.low:
            return _grid(self.low, self.high, bits)
        values = torch.cat(self._kept)
        shrink = torch.linspace(0.1, 1.0, _CANDIDATES).tolist()
        # First both ends together, then each end alone, from the best so far.
        pairs = [(factor, factor) for factor in shrink]
        best = min(pairs, key=lambda p: self._error(values, p, bits))
        if self.low < 0 < self.high and high_code > 1:
            for end in range(2):
                pairs = [(f, best[1]) if end == 0 else (best[0], f) for f in shrink]
                best = min([best, *pairs], key=lambda p: self._error(values, p, bits))
        return _grid(self.low * best[0], self.high * best[1], bits)

    @torch.no_grad()
    def format_step(self, chosen: NumberFormat) -> float:
        """Return the scale of a number format: the extremes, or that of least squared error."""
        top = max(self.high, -self.low, _SMALLEST) / chosen.largest()
        if self.method == "max":
            return top
        values = torch.cat(self._kept)
        # Floats have room for outliers to spare: the largest value may lie far beyond the range.
        steps = [top * 2.0 ** (k / 4) for k in range(-12, 17)]

        def error(step: float) -> float:
            return (round_to_format(values / step, chosen) * step - values).square_().mean().item()

        return min(steps, key=error)

    def _error(self, values: Tensor, factors: tuple[float, float], bits: int) -> float:
        grid = _grid(self.low * factors[0], self.high * factors[1], bits)
        return (grid(values) - values).square_().mean().item()


def _grid(low: float, high: float, bits: int) -> ActivationGrid:
    top = activation_range(bits)[1]
    step = max((high - low) / top, _SMALLEST)
    return ActivationGrid(step, min(top, max(0, round(-low / step))), bits)


def _check(method: str) -> None:
    if method not in METHODS:
        raise InputError(f"range method {method!r} is none of {', '.join(METHODS)}")
