"""Learned-step fake quantisers for a network whose widths, kernels and bits are elastic.

LSQ (Esser et al., ICLR 2020) for weights, LSQ+ (Bhalgat et al., CVPRW 2020) for
activations. Steps are learned as logarithms (as in TQT, Jain et al., MLSys 2020,
section 3.2), so that an update is relative to the step and the step stays positive.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.number_formats import NumberFormat
from search_spaces.plan import FLOAT_BITS

SMALLEST_STEP = 1e-8


def weight_range(bits: int) -> tuple[int, int]:
    """Return the smallest and largest signed code of a weight: two's complement."""
    return -(2 ** (bits - 1)), 2 ** (bits - 1) - 1


def activation_range(bits: int) -> tuple[int, int]:
    """Return the smallest and largest unsigned code of an activation."""
    return 0, 2**bits - 1


def quantize_dequantize(x: Tensor, step: float, zero_point: int, low: int, high: int) -> Tensor:
    """Round ``x`` to the grid ``step * (code - zero_point)``, ``low <= code <= high``.

    Rounds half to even before the zero point is added, as ONNX QuantizeLinear does.
    ``x``: any shape; the result has the same shape.
    """
    y = x.clamp((low - zero_point) * step, (high - zero_point) * step)
    return y.div_(step).round_().mul_(step)


class _ActivationFakeQuantize(torch.autograd.Function):
    """Per-tensor fake quantisation with gradients for the step and the zero point."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        log_step: Tensor,
        offset: Tensor | None,
        bits: int,
        gradient_scale: float,
        step: float,
        zero_point: int,
    ) -> Tensor:
        """Return ``x`` on the grid; ``step`` is the number behind ``log_step``."""
        low, high = activation_range(bits)
        y = quantize_dequantize(x, step, zero_point, low, high)
        ctx.save_for_backward(x, y)
        ctx.limits = (low - zero_point) * step, (high - zero_point) * step
        ctx.step, ctx.scale, ctx.high = step, gradient_scale, high
        ctx.learn_offset = offset is not None
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``x``, of the step's logarithm and of the zero point."""
        x, y = ctx.saved_tensors
        # Inner products below run over memory, so all must lie there in one order. What a mean over
        # places hands back, for instance, does not lie as the map that it was taken of.
        gradient, x = _laid_out_like(gradient, y), _laid_out_like(x, y)
        grad_x = torch.ops.aten.hardtanh_backward(gradient, x, *ctx.limits)
        # d y / d log(step) is y - x inside the range and y outside (LSQ equation 3 times the
        # step), so the sum over elements is two inner products.
        flat_gradient, flat_x, flat_y, flat_grad_x = map(_flat, (gradient, x, y, grad_x))
        grad_step = torch.dot(flat_gradient, flat_y) - torch.dot(flat_grad_x, flat_x)
        grad_offset = None
        if ctx.learn_offset:
            # Only clipped elements move with the zero point (LSQ+ equation 6).
            clipped = flat_gradient.sum() - flat_grad_x.sum()
            grad_offset = clipped * (-ctx.step * ctx.high * ctx.scale)
        return grad_x, grad_step * ctx.scale, grad_offset, None, None, None, None


class _WeightFakeQuantize(torch.autograd.Function):
    """Fake quantisation of weights with a signed step for each output channel or the tensor."""

    @staticmethod
    def forward(
        ctx: Any,
        w: Tensor,
        log_step: Tensor,
        sign: Tensor | None,
        bits: int,
        gradient_scale: float,
        step: Tensor,
    ) -> Tensor:
        """Return ``w`` on the grid; ``step`` are the numbers behind ``log_step``."""
        low, high = weight_range(bits)
        step = step.view(-1, *[1] * (w.dim() - 1))
        if sign is not None:
            step = step * sign.view(-1, *[1] * (w.dim() - 1))
        codes = w / step
        inside = (codes >= low) & (codes <= high)
        y = codes.round_().clamp_(low, high).mul_(step)
        ctx.save_for_backward(w, y, inside)
        ctx.scale, ctx.per_channel = gradient_scale, log_step.numel() > 1
        return y

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of ``w`` and of the steps' logarithms."""
        w, y, inside = ctx.saved_tensors
        grad_w = gradient * inside
        contribution = gradient * y - grad_w * w
        if ctx.per_channel:
            grad_step = contribution.flatten(1).sum(1)
        else:
            grad_step = contribution.sum().view(1)
        return grad_w, grad_step * ctx.scale, None, None, None, None


class ActivationFakeQuantizer(nn.Module):
    """What every quantiser of a layer's input can do.

    Args:
        bits: the bit-widths it serves; :data:`FLOAT_BITS` needs no entry.
        signed: inputs may be negative; otherwise values below zero are clipped, which makes the
            quantiser a ReLU as well.

    The flags of initialised entries are buffers, so a loaded quantiser never starts anew.
    """

    initialized: Tensor

    def __init__(self, bits: Sequence[int], *, signed: bool) -> None:
        super().__init__()
        self.bits = tuple(sorted({b for b in bits if b < FLOAT_BITS}))
        self.signed = signed
        self.register_buffer("initialized", torch.zeros(len(self.bits), dtype=torch.bool))

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Fake-quantise ``x`` (batch, ...) to ``bits``; float passes unchanged.

        Raises:
            InputError: the quantiser has no step for ``bits``.
        """
        if bits >= FLOAT_BITS:
            return x
        i = self._entry(bits)
        if not self.initialized[i]:
            self._initialize(i, x.detach(), bits)
        return self._quantize(i, x, bits)

    def mark_unused(self, bits: Sequence[int]) -> None:
        """Mark the entries of ``bits`` as ready: they are never asked for."""
        for width in bits:
            self.initialized[self._entry(width)] = True

    @abstractmethod
    def constants(self, bits: int) -> tuple[float, int]:
        """Return ``(step, zero point)`` for ``bits``: values are step * (code - zero point)."""

    @abstractmethod
    def _quantize(self, i: int, x: Tensor, bits: int) -> Tensor:
        """Return ``x`` on the grid of :meth:`constants`, with the method's gradients."""

    @abstractmethod
    def _initialize(self, i: int, x: Tensor, bits: int) -> None:
        """Set the entry ``i`` from the first ``x`` it sees, and its flag."""

    def _entry(self, bits: int) -> int:
        if bits not in self.bits:
            raise InputError(f"no quantiser was trained for {bits} bits (trained: {self.bits})")
        return self.bits.index(bits)


class ActivationQuantizer(ActivationFakeQuantizer):
    """LSQ+ for the input of one layer: a step, and where needed an offset, for each bit-width.

    Args:
        bits: the bit-widths it serves; :data:`FLOAT_BITS` needs no entry.
        signed: learn a zero point; otherwise values below zero are clipped, which makes the
            quantiser a ReLU as well.

    The flags of initialised entries are buffers, so a loaded quantiser never starts anew.
    """

    log_step: Tensor
    offset: Tensor | None

    def __init__(self, bits: Sequence[int], *, signed: bool) -> None:
        super().__init__(bits, signed=signed)
        self.log_step = nn.Parameter(torch.zeros(len(self.bits)))
        # The zero point in units of the largest code, so that all bit-widths learn alike.
        self.offset = nn.Parameter(torch.zeros(len(self.bits))) if signed else None

    def constants(self, bits: int) -> tuple[float, int]:
        """Return ``(step, zero point)`` for ``bits``."""
        i = self._entry(bits)
        return self._step(i), self._zero_point(i, bits)

    def _quantize(self, i: int, x: Tensor, bits: int) -> Tensor:
        # LSQ section 2.2: 1 / sqrt(N * Q), N counted for one sample.
        scale = 1.0 / math.sqrt(max(1, x[0].numel()) * activation_range(bits)[1])
        return _ActivationFakeQuantize.apply(
            x,
            self.log_step[i],
            None if self.offset is None else self.offset[i],
            bits,
            scale,
            self._step(i),
            self._zero_point(i, bits),
        )

    def _step(self, i: int) -> float:
        return math.exp(self.log_step[i].item())

    def _zero_point(self, i: int, bits: int) -> int:
        return 0 if self.offset is None else _zero_point(self.offset[i], bits)

    @torch.no_grad()
    def _initialize(self, i: int, x: Tensor, bits: int) -> None:
        high = activation_range(bits)[1]
        # What a max pool is padded with becomes the least code, whatever the range is.
        x = x if bool(x.isfinite().all()) else x[x.isfinite()]
        if self.offset is None:
            # LSQ section 2.1: 2 <|x|> / sqrt(Q), over the values that survive the ReLU.
            mean = x.clamp(min=0).mean() * 2
            step = 2 * mean / math.sqrt(high)
        else:
            # LSQ+ section 3.3: the range mean +- 3 sigma, within what occurs.
            deviation, mean = torch.std_mean(x)
            top = torch.minimum(x.max(), mean + 3 * deviation).clamp(min=0)
            bottom = torch.maximum(x.min(), mean - 3 * deviation).clamp(max=0)
            step = (top - bottom) / high
            self.offset[i] = (-bottom / step.clamp(min=SMALLEST_STEP) / high).clamp(0, 1)
        self.log_step[i] = step.clamp(min=SMALLEST_STEP).log()
        self.initialized[i] = True


class WeightFakeQuantizer(nn.Module):
    """What every quantiser of a layer's weights can do.

    Quantisation is element by element with steps that do not depend on the slice, so the
    codes of a narrow layer are a prefix of the wide layer's.

    Args:
        bits: the bit-widths it serves.
        kernels: the kernel sides it serves.
        channels: output channels of the widest layer, for a step per output channel;
            ``None`` for one step for the tensor.
        count: number of weights of the largest layer, for the gradient scale.
    """

    initialized: Tensor

    def __init__(
        self, bits: Sequence[int], kernels: Sequence[int], *, channels: int | None, count: int
    ) -> None:
        super().__init__()
        self.bits = tuple(sorted({b for b in bits if b < FLOAT_BITS}))
        self.kernels = tuple(sorted(set(kernels)))
        self.per_channel = channels is not None
        self.count = count
        shape = (len(self.kernels), len(self.bits))
        self.register_buffer("initialized", torch.zeros(shape, dtype=torch.bool))

    def forward(
        self, w: Tensor, bits: int, *, sign: Tensor | None = None, full: Tensor | None = None
    ) -> Tensor:
        """Fake-quantise ``w`` (out, in, k, k) to ``bits``; float passes unchanged.

        Args:
            w: the slice of the layer's weights that the architecture uses.
            bits: bit-width of the codes.
            sign: (out,) +1 or -1, the direction in which the codes count, see
                :class:`supernet.elastic.ElasticLayer`.
            full: the widest weights of this kernel size, from which steps are made.

        Raises:
            InputError: the quantiser has no step for ``bits`` or the kernel size.
        """
        if bits >= FLOAT_BITS:
            return w
        k, b = self._entry(w.shape[-1], bits)
        full = w if full is None else full
        if not self.initialized[k, b]:
            self._initialize(k, b, full.detach(), bits)
        return self._quantize(k, b, w, full, bits, sign)

    def wants_full(self, kernel: int, bits: int) -> bool:
        """Whether the next call needs the widest weights: before a step is initialised."""
        return bits < FLOAT_BITS and not bool(self.initialized[self._entry(kernel, bits)])

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return the smallest and largest code of ``bits``."""
        return weight_range(bits)

    def number_format(self, bits: int) -> NumberFormat | None:
        """Return what the codes of ``bits`` stand for, None for integers."""
        return None

    def set_step(self, kernel: int, bits: int, step: Tensor) -> bool:
        """Set the step; False where it cannot be set, since it follows from the weights.

        Args:
            kernel: side of the kernel.
            bits: of the codes.
            step: (channels,) of the first channels where it is per channel, else (1,).

        Raises:
            InputError: the quantiser has no step for ``bits`` or the kernel size.
        """
        return False

    @abstractmethod
    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,).

        ``full``: the widest weights of this kernel size, for quantisers whose step follows them.
        """

    @abstractmethod
    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        """Return whole codes times :meth:`step` (times ``sign``), with the method's gradients."""

    @abstractmethod
    def _initialize(self, k: int, b: int, w: Tensor, bits: int) -> None:
        """Set the entry (k, b) from the widest weights, and its flag."""

    def _entry(self, kernel: int, bits: int) -> tuple[int, int]:
        if bits not in self.bits or kernel not in self.kernels:
            raise InputError(
                f"no weight quantiser was trained for {bits} bits and kernel {kernel} "
                f"(trained: bits {self.bits}, kernels {self.kernels})"
            )
        return self.kernels.index(kernel), self.bits.index(bits)


class WeightQuantizer(WeightFakeQuantizer):
    """LSQ for one layer's weights: a step for each kernel size and bit-width.

    See :class:`WeightFakeQuantizer` for the arguments.
    """

    log_step: Tensor

    def __init__(
        self, bits: Sequence[int], kernels: Sequence[int], *, channels: int | None, count: int
    ) -> None:
        super().__init__(bits, kernels, channels=channels, count=count)
        self.log_step = nn.Parameter(torch.zeros(*self.initialized.shape, channels or 1))

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,)."""
        k, b = self._entry(kernel, bits)
        return self._exact_step(self._log_step(k, b, channels).detach())

    @torch.no_grad()
    def set_step(self, kernel: int, bits: int, step: Tensor) -> bool:
        """Set the learned step; True."""
        self._store(*self._entry(kernel, bits), step)
        return True

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        scale = 1.0 / math.sqrt(self.count * weight_range(bits)[1])
        log_step = self._log_step(k, b, w.shape[0])
        step = self._exact_step(log_step.detach())
        return _WeightFakeQuantize.apply(w, log_step, sign, bits, scale, step)

    def _log_step(self, k: int, b: int, channels: int) -> Tensor:
        return self.log_step[k, b, :channels] if self.per_channel else self.log_step[k, b]

    def _exact_step(self, log_step: Tensor) -> Tensor:
        return log_step.exp()

    @torch.no_grad()
    def _initialize(self, k: int, b: int, w: Tensor, bits: int) -> None:
        # LSQ section 2.1: 2 <|w|> / sqrt(Q).
        size = w.abs()
        mean = size.flatten(1).mean(1) if self.per_channel else size.mean().view(1)
        self._store(k, b, 2 * mean / math.sqrt(weight_range(bits)[1]))

    def _store(self, k: int, b: int, step: Tensor) -> None:
        # A copy that is cut to one architecture has fewer channels than there are steps.
        self.log_step[k, b, : len(step)] = step.clamp(min=SMALLEST_STEP).log()
        self.initialized[k, b] = True


def _zero_point(offset: Tensor, bits: int) -> int:
    high = activation_range(bits)[1]
    return min(high, max(0, round(offset.item() * high)))


def _laid_out_like(x: Tensor, y: Tensor) -> Tensor:
    """Return ``x`` with the strides of ``y``, of the same shape and without gaps in memory."""
    return x if x.stride() == y.stride() else torch.empty_like(y).copy_(x)


def _flat(x: Tensor) -> Tensor:
    """Return the elements of ``x`` in the order of its memory, in which there are no gaps."""
    return x.as_strided((x.numel(),), (1,))
