"""Weights and inputs of layers in number formats that are no integers.

A learned step as LSQ has it (Esser et al., ICLR 2020), but the codes stand for the values of a
:class:`~search_spaces.number_formats.NumberFormat`: values are ``step * value(code)``. Gradients
pass straight through the rounding, and the step's is LSQ's equation 3 times the step, which holds
for any grid: what rounding adds inside the range, the value itself beyond it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.number_formats import NUMBER_FORMATS, NumberFormat, number_format
from supernet.quantizers.lsq import SMALLEST_STEP, WeightQuantizer

_STEPWISE = 7
"""Values beside the smallest up to which they are taken one after another: two to seven times
faster then than a search for each number."""


@lru_cache(maxsize=64)
def _ladder(name: str, variant: int) -> tuple[Tensor, Tensor, Tensor]:
    codes, values, middles = number_format(name).ladder(variant)
    return (
        torch.from_numpy(codes.astype(np.int64)),
        torch.from_numpy(values.copy()),
        torch.from_numpy(middles.astype(np.float32)),
    )


def round_to_format(x: Tensor, chosen: NumberFormat, variant: int = 0) -> Tensor:
    """Return the value of ``chosen`` nearest to each of ``x``, of any shape, without gradients.

    As :meth:`NumberFormat.encode` and ``decode`` do it.
    """
    x = x.detach()
    codes, values, middles = (part.to(x.device) for part in _ladder(chosen.name, variant))
    size = (x.abs() if chosen.signed_magnitude else x).contiguous()
    if len(middles) <= _STEPWISE:
        found = torch.full_like(size, float(values[0]))
        for i, middle in enumerate(middles.tolist()):
            # Half way between two, the even code counts, where there are signs.
            odd = chosen.signed_magnitude and bool(codes[i] % 2)
            found.masked_fill_(size >= middle if odd else size > middle, float(values[i + 1]))
        return torch.copysign(found, x) if chosen.signed_magnitude else found
    below = torch.searchsorted(middles, size)
    if not chosen.signed_magnitude:
        return values[below]
    above = torch.searchsorted(middles, size, right=True)
    nearest = torch.where(codes[below] % 2 == 0, below, above)
    return torch.copysign(values[nearest], x)


class _FormatFakeQuantize(torch.autograd.Function):
    """``step * value`` with LSQ's gradients; one step, or one for each output channel."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        log_step: Tensor,
        sign: Tensor | None,
        chosen: NumberFormat,
        gradient_scale: float,
    ) -> Tensor:
        """Return ``x`` rounded to the format; a step is ``exp(log_step) * sign``."""
        step = log_step.exp().view(-1, *[1] * (x.dim() - 1))
        if sign is not None:
            step = step * sign.view(-1, *[1] * (x.dim() - 1))
        y = round_to_format(x / step, chosen)
        values = chosen.values()
        low, high = float(np.nanmin(values)), float(np.nanmax(values))
        inside = (x / step >= low) & (x / step <= high)
        y = y * step
        ctx.save_for_backward(x, y, inside)
        ctx.scale, ctx.each = gradient_scale, log_step.numel() > 1
        return y

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        """Return the gradients of ``x`` and of the steps' logarithms."""
        (gradient,) = gradients
        x, y, inside = ctx.saved_tensors
        grad_x = gradient * inside
        contribution = gradient * y - grad_x * x
        grad_step = contribution.flatten(1).sum(1) if ctx.each else contribution.sum().view(1)
        return grad_x, grad_step * ctx.scale, None, None, None


class FormatWeightQuantizer(WeightQuantizer):
    """Weights in a number format, with a learned step.

    Args:
        chosen: the format, with one table.
        others: as :class:`~supernet.quantizers.lsq.WeightFakeQuantizer` has them.
    """

    def __init__(
        self,
        bits: Sequence[int],
        kernels: Sequence[int],
        *,
        channels: int | None,
        count: int,
        chosen: NumberFormat,
    ) -> None:
        super().__init__(bits, kernels, channels=channels, count=count)
        self.chosen = chosen

    def number_format(self, bits: int) -> NumberFormat | None:
        """Return the format of ``bits``, None for float."""
        return self.chosen if bits in self.bits else None

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return the smallest and largest whole number that a value is of :meth:`step`."""
        top = self.chosen.whole_codes[1]
        return -top, top

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,).

        Of a format of whole numbers the step of one of them, otherwise that of the values.
        """
        step = super().step(kernel, bits, channels, full=full)
        unit = self.chosen.whole_codes[0]
        return step * unit if unit else step

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        scale = 1.0 / math.sqrt(self.count * self.chosen.largest())
        log_step = self._log_step(k, b, w.shape[0])
        return _FormatFakeQuantize.apply(w, log_step, sign, self.chosen, scale)

    @torch.no_grad()
    def _initialize(self, k: int, b: int, w: Tensor, bits: int) -> None:
        rows = w.flatten(1) if self.per_channel else w.reshape(1, -1)
        step = least_error_steps(rows, self.chosen, clip=0.25)[0]
        self._store(k, b, step)


def weight_quantizer(chosen: NumberFormat) -> Callable[..., FormatWeightQuantizer]:
    """Return what makes a quantiser of weights in ``chosen``."""
    return partial(FormatWeightQuantizer, chosen=chosen)


@torch.no_grad()
def least_error_steps(
    rows: Tensor,
    chosen: NumberFormat,
    *,
    clip: float = 0.3,
    tries: int = 40,
    counted: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return the step and the table of the least squared error of each row.

    Args:
        rows: (rows, values).
        chosen: the format; each of its tables is tried.
        clip: smallest share of a row's largest size that is tried as the largest value.
        tries: shares tried between ``clip`` and 1; 1 tries the largest size alone.
        counted: (rows, values), 0 for what only fills up a row; by default all count.

    Returns:
        Steps, float32 (rows,), and tables, int64 (rows,).
    """
    best = torch.full((len(rows),), torch.inf, device=rows.device)
    steps, tables = torch.ones_like(best), torch.zeros_like(best, dtype=torch.int64)
    shares = torch.linspace(clip, 1.0, tries).tolist() if tries > 1 else [1.0]
    for variant in range(chosen.variants):
        values = chosen.values(variant)
        # The largest value of either sign that a row needs.
        low, high = -float(np.nanmin(values)), float(np.nanmax(values))
        top = torch.maximum(rows.amax(1) / high, -rows.amin(1) / low).clamp(min=SMALLEST_STEP)
        for share in shares:
            step = top * share
            found = round_to_format(rows / step[:, None], chosen, variant) * step[:, None]
            error = (found - rows).square()
            error = (error if counted is None else error * counted).sum(1)
            better = error < best
            best = torch.where(better, error, best)
            steps = torch.where(better, step, steps)
            tables = torch.where(better, torch.full_like(tables, variant), tables)
    return steps, tables


@dataclass(frozen=True)
class EncodedWeights:
    """Weights of a layer as codes of a number format.

    Attributes:
        chosen: the format.
        codes: uint8, in the weights' shape (out, ...).
        scales: float32 (out, groups): a weight is its scale times the value of its code.
        tables: uint8 (out, groups), which of the format's tables a group has.
        group: weights of a channel, flattened, that share a scale; 0 for all of them.
        shared: all scales are one number.
    """

    chosen: NumberFormat
    codes: np.ndarray
    scales: np.ndarray
    tables: np.ndarray
    group: int = 0
    shared: bool = False

    def __post_init__(self) -> None:
        count = self.codes[0].size if len(self.codes) else 0
        wanted = (len(self.codes), -(-count // self.group) if self.group else 1)
        for name in ("scales", "tables"):
            if getattr(self, name).shape != wanted:
                raise InputError(
                    f"{name} of weights {self.codes.shape} in groups of {self.group or 'all'} have "
                    f"shape {getattr(self, name).shape}, not {wanted}"
                )

    @property
    def nbytes(self) -> int:
        """Bytes of packed codes, float32 scales, and two bits for each choice of a table."""
        scales = 1 if self.shared else self.scales.size
        choices = self.tables.size * math.ceil(math.log2(self.chosen.variants))
        return (self.codes.size * self.chosen.bits + 7) // 8 + 4 * scales + (choices + 7) // 8

    def spread(self, numbers: np.ndarray) -> np.ndarray:
        """Return numbers of groups (out, groups) for each weight, in the weights' shape."""
        count = self.codes[0].size
        wide = np.repeat(numbers, self.group or count, axis=1)[:, :count]
        return wide.reshape(self.codes.shape)

    def decoded(self) -> np.ndarray:
        """Return the weights, float32 in their shape."""
        every = np.stack([self.chosen.values(i) for i in range(self.chosen.variants)])
        values = every[self.spread(self.tables), self.codes]
        return (values * self.spread(self.scales)).astype(np.float32)


@torch.no_grad()
def encode_weights(
    weight: Tensor,
    chosen: NumberFormat,
    *,
    scales: str | int = "channel",
    method: str = "mse",
    steps: Tensor | None = None,
) -> EncodedWeights:
    """Return weights in a number format.

    Args:
        weight: float (out, ...).
        chosen: the format.
        scales: ``tensor``, ``channel`` (of the outputs), or how many weights of a channel,
            flattened, share one; the last group of a channel may be shorter.
        method: ``max`` covers every weight; ``mse`` minimises the squared error.
        steps: the scales themselves, (out,), in place of a search, of either sign.

    Raises:
        InputError: no such ``scales``.
    """
    group = _group(scales)
    flat = weight.detach().float().flatten(1).cpu()
    outputs, count = flat.shape
    if steps is not None:
        per_row, tables, group = steps.detach().cpu().reshape(-1, 1), None, 0
    elif scales == "tensor":
        step, table = least_error_steps(flat.reshape(1, -1), chosen, tries=_tries(method))
        per_row, tables = step.expand(outputs)[:, None], table.expand(outputs)[:, None]
    else:
        width = group or count
        padded, counted = (
            torch.nn.functional.pad(x, (0, -count % width)).reshape(-1, width)
            for x in (flat, torch.ones_like(flat))
        )
        step, table = least_error_steps(padded, chosen, tries=_tries(method), counted=counted)
        per_row, tables = step.reshape(outputs, -1), table.reshape(outputs, -1)
    tables = torch.zeros_like(per_row, dtype=torch.int64) if tables is None else tables
    encoded = EncodedWeights(
        chosen,
        np.zeros(tuple(weight.shape), np.uint8),
        np.ascontiguousarray(per_row.numpy(), np.float32),
        np.ascontiguousarray(tables.numpy(), np.uint8),
        group,
        shared=scales == "tensor" and steps is None,
    )
    scaled = (flat.numpy() / encoded.spread(encoded.scales).reshape(outputs, -1)).reshape(
        encoded.codes.shape
    )
    own = encoded.spread(encoded.tables)
    for variant in range(chosen.variants):
        codes = chosen.encode(scaled, variant)
        encoded.codes[own == variant] = codes[own == variant]
    return encoded


def _group(scales: str | int) -> int:
    if isinstance(scales, int) and scales > 0:
        return scales
    if scales in ("tensor", "channel"):
        return 0
    raise InputError(
        f"scales are {scales!r}; use 'tensor', 'channel', or a number of weights that share one"
    )


def _tries(method: str) -> int:
    if method not in ("max", "mse"):
        raise InputError(f"range method {method!r} is none of max, mse")
    return 40 if method == "mse" else 1


def trainable_formats() -> list[str]:
    """Return the formats that a supernet can train: those of one table."""
    return [name for name in NUMBER_FORMATS if NUMBER_FORMATS.get(name).variants == 1]
