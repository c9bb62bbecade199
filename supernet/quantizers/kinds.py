"""Quantisers beside LSQ: PACT, DoReFa, power-of-two steps, ternary and binary weights.

Every one gives whole codes times a step, so extraction, export and packing need not know which
it was. Their gradients are those of the papers, spelt with the straight-through trick
``value + (path - path.detach())``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from supernet.quantizers.lsq import (
    SMALLEST_STEP,
    ActivationFakeQuantizer,
    ActivationQuantizer,
    WeightFakeQuantizer,
    WeightQuantizer,
    activation_range,
    quantize_dequantize,
)

_LOG_2 = math.log(2.0)


def with_gradient_of(value: Tensor, path: Tensor) -> Tensor:
    """Return ``value`` with the gradient of ``path``, both of any one shape."""
    return value.detach() + (path - path.detach())


class SymmetricActivationQuantizer(ActivationQuantizer):
    """LSQ (Esser et al., ICLR 2020) for inputs; zero of signed ones is the middle code."""

    def __init__(self, bits: Sequence[int], *, signed: bool) -> None:
        super().__init__(bits, signed=False)
        self.signed = signed

    def _zero_point(self, i: int, bits: int) -> int:
        return 2 ** (bits - 1) if self.signed else 0

    @torch.no_grad()
    def _initialize(self, i: int, x: Tensor, bits: int) -> None:
        size = x.abs() if self.signed else x.clamp(min=0)
        high = activation_range(bits)[1] - self._zero_point(i, bits)
        step = 2 * size.mean() / math.sqrt(max(1, high))
        self.log_step[i] = step.clamp(min=SMALLEST_STEP).log()
        self.initialized[i] = True


class FixedPointActivationQuantizer(SymmetricActivationQuantizer):
    """Power-of-two steps with a learned binary point (TQT, Jain et al., MLSys 2020, section 3).

    Signed inputs are two's complement: the zero point is the middle code.
    """

    def _step(self, i: int) -> float:
        return 2.0 ** round(self.log_step[i].item() / _LOG_2)


class FixedPointWeightQuantizer(WeightQuantizer):
    """Power-of-two steps with a learned binary point (TQT, Jain et al., MLSys 2020, section 3).

    The logarithm of the step is learned; its rounding passes gradients straight through. On
    export the step of each channel is multiplied by that of its batch norm.
    """

    def _exact_step(self, log_step: Tensor) -> Tensor:
        # Not exp2, which is not exact everywhere.
        return torch.ldexp(torch.ones_like(log_step), (log_step / _LOG_2).round().int())


class PactActivationQuantizer(ActivationFakeQuantizer):
    """PACT (Choi et al., 2018, section 3): the clipping level is learned from what is clipped.

    Inputs that may be negative have a lower level as well, learned the same way. The paper's
    decay of the level is left to the optimiser, which here decays no quantiser.
    """

    def __init__(self, bits: Sequence[int], *, signed: bool) -> None:
        super().__init__(bits, signed=signed)
        self.alpha = nn.Parameter(torch.ones(len(self.bits)))
        self.beta = nn.Parameter(torch.zeros(len(self.bits))) if signed else None

    def constants(self, bits: int) -> tuple[float, int]:
        """Return ``(step, zero point)`` for ``bits``."""
        i = self._entry(bits)
        low, high = self._levels(i)
        top = activation_range(bits)[1]
        step = max(high - low, SMALLEST_STEP) / top
        return step, min(top, max(0, round(-low / step)))

    def _levels(self, i: int) -> tuple[float, float]:
        low = 0.0 if self.beta is None else min(0.0, self.beta[i].item())
        return low, max(self.alpha[i].item(), SMALLEST_STEP)

    def _quantize(self, i: int, x: Tensor, bits: int) -> Tensor:
        step, zero_point = self.constants(bits)
        value = quantize_dequantize(x.detach(), step, zero_point, *activation_range(bits))
        # Equation 1: the gradient of the level is 1 where it clips; equation 3 for the input.
        low, high = self._levels(i)
        path = torch.where(x >= high, self.alpha[i], x)
        path = torch.where(
            x <= low, path.new_zeros(()) if self.beta is None else self.beta[i], path
        )
        return with_gradient_of(value, path)

    @torch.no_grad()
    def _initialize(self, i: int, x: Tensor, bits: int) -> None:
        deviation, mean = torch.std_mean(x if self.signed else x.clamp(min=0))
        top = torch.minimum(x.max(), mean + 3 * deviation)
        self.alpha[i] = top.clamp(min=SMALLEST_STEP)
        if self.beta is not None:
            self.beta[i] = torch.maximum(x.min(), mean - 3 * deviation).clamp(max=0)
        self.initialized[i] = True


class DorefaActivationQuantizer(ActivationFakeQuantizer):
    """DoReFa-Net (Zhou et al., 2016, section 2.4): inputs are cut to 0..1, signed ones to -1..1.

    It has nothing to learn, and suits inputs that a batch norm before has brought to this range.
    """

    def constants(self, bits: int) -> tuple[float, int]:
        """Return ``(step, zero point)`` for ``bits``."""
        self._entry(bits)
        top = activation_range(bits)[1]
        return (2.0 / top, 2 ** (bits - 1)) if self.signed else (1.0 / top, 0)

    def _quantize(self, i: int, x: Tensor, bits: int) -> Tensor:
        step, zero_point = self.constants(bits)
        value = quantize_dequantize(x.detach(), step, zero_point, *activation_range(bits))
        return with_gradient_of(value, x.clamp(-1.0 if self.signed else 0.0, 1.0))

    def _initialize(self, i: int, x: Tensor, bits: int) -> None:
        self.initialized[i] = True


class _FollowsWeights(WeightFakeQuantizer):
    """A quantiser whose step is a function of the widest weights."""

    def wants_full(self, kernel: int, bits: int) -> bool:
        """Whether the next call needs the widest weights: always."""
        return True

    @torch.no_grad()
    def _initialize(self, k: int, b: int, w: Tensor, bits: int) -> None:
        self.initialized[k, b] = True

    def _mean(self, values: Tensor, channels: int) -> Tensor:
        """Return the mean of (out, in, k, k) for each channel, (channels,), or of all, (1,)."""
        if self.per_channel:
            return values.flatten(1).mean(1)[:channels]
        return values.mean().view(1)


class DorefaWeightQuantizer(_FollowsWeights):
    """DoReFa-Net (Zhou et al., 2016, section 2.3).

    ``2 * round((tanh(w) / (2 max|tanh|) + 1/2) * n) / n - 1`` with ``n = 2^bits - 1``: codes are
    odd, with step 1/n, and need one bit more in ONNX but not in a packed file. One bit is the
    sign times the mean size. At 8 bits odd codes need nine bits, so the 255 levels around zero
    are taken instead. The largest |tanh| is that of the widest weights.
    """

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return the smallest and largest code of ``bits``."""
        top = 2 ** (bits - 1) - 1 if bits >= 8 else 2**bits - 1
        return -top, top

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) or (1,) for one bit, else (1,)."""
        self._entry(kernel, bits)
        if bits == 1:
            assert full is not None
            return self._mean(full.detach().abs(), channels).clamp(min=SMALLEST_STEP)
        reference = self.initialized if full is None else full
        top = self.code_range(bits)[1]
        return torch.full((1,), 1.0 / top, device=reference.device)

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        if bits == 1:
            step = _column(self.step(w.shape[-1], bits, w.shape[0], full=full), w)
            # Section 2.2, equation 7: straight through.
            return with_gradient_of(_signs(w) * step, w)
        top = self.code_range(bits)[1]
        largest = torch.tanh(full.detach()).abs().amax().clamp(min=SMALLEST_STEP)
        soft = torch.tanh(w) / largest
        odd = 2 * ((soft / 2 + 0.5) * top).round() - top
        codes = (soft * top).round() if bits >= 8 else odd
        return with_gradient_of(codes * (1.0 / top), soft)


class TernaryWeightQuantizer(_FollowsWeights):
    """Ternary Weight Networks (Li et al., 2016, section 2): -a, 0, a.

    Weights below 0.7 of the mean size are zero; ``a`` is the mean size of the others
    (equations 4 and 6). Gradients pass straight through. Two bits a weight.
    """

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return -1 and 1."""
        return -1, 1

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,)."""
        assert full is not None
        size = full.detach().abs()
        kept = size > _column(self._threshold(full, len(size)), size)
        mean = self._mean(size * kept, channels) / self._mean(kept.float(), channels).clamp(
            min=SMALLEST_STEP
        )
        return mean.clamp(min=SMALLEST_STEP)

    def _threshold(self, full: Tensor, channels: int) -> Tensor:
        return 0.7 * self._mean(full.detach().abs(), channels)

    def _codes(self, w: Tensor, full: Tensor) -> Tensor:
        size = w.detach().abs()
        return w.detach().sign() * (size > _column(self._threshold(full, len(w)), w))

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        step = self.step(w.shape[-1], bits, w.shape[0], full=full)
        return with_gradient_of(self._codes(w, full) * _column(step, w), w)


class TrainedTernaryWeightQuantizer(TernaryWeightQuantizer):
    """Trained Ternary Quantization (Zhu et al., ICLR 2017, section 3) with one learned scale.

    Zero below 0.05 of the largest weight (equation 9); gradients are equations 7 and 8. The paper
    has two scales, for the two signs; a product of whole codes and one step can hold only one.
    """

    def __init__(
        self, bits: Sequence[int], kernels: Sequence[int], *, channels: int | None, count: int
    ) -> None:
        super().__init__(bits, kernels, channels=channels, count=count)
        self.scale = nn.Parameter(torch.ones(*self.initialized.shape, channels or 1))

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,)."""
        return self._scale(*self._entry(kernel, bits), channels).detach()

    def _scale(self, k: int, b: int, channels: int) -> Tensor:
        scale = self.scale[k, b, :channels] if self.per_channel else self.scale[k, b]
        return scale.clamp(min=SMALLEST_STEP)

    def _threshold(self, full: Tensor, channels: int) -> Tensor:
        size = full.detach().abs()
        if self.per_channel:
            return 0.05 * size.flatten(1).amax(1)[:channels]
        return 0.05 * size.amax().view(1)

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        codes = self._codes(w, full)
        scale = _column(self._scale(k, b, w.shape[0]), w)
        path = w * torch.where(codes == 0, torch.ones_like(w), scale.detach())
        return codes * scale + (path - path.detach())

    @torch.no_grad()
    def _initialize(self, k: int, b: int, w: Tensor, bits: int) -> None:
        kernel, channels = self.kernels[k], len(w)
        step = TernaryWeightQuantizer.step(self, kernel, bits, channels, full=w)
        self.scale[k, b, : len(step)] = step
        self.initialized[k, b] = True


class BinaryWeightQuantizer(_FollowsWeights):
    """Binary-Weight-Networks / XNOR-Net (Rastegari et al., ECCV 2016, section 3.1): -a and a.

    ``a`` is the mean size (equation 6), of each output channel where steps are per channel. The
    gradient is the one under equation 6, ``1/n + a`` where ``|w| <= 1``. Activations are quantised
    as the job says; XNOR-Net's input scales, which change with the position, are left out.
    """

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return -1 and 1; there is no zero."""
        return -1, 1

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,)."""
        assert full is not None
        return self._mean(full.detach().abs(), channels).clamp(min=SMALLEST_STEP)

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        step = _column(self.step(w.shape[-1], bits, w.shape[0], full=full), w)
        count = full[0].numel() if self.per_channel else full.numel()
        slope = 1.0 / count + step * (w.detach().abs() <= 1)
        return with_gradient_of(_signs(w) * step, w * slope)


def _signs(w: Tensor) -> Tensor:
    # Zero counts as positive: there is no code for it.
    return 1.0 - 2.0 * (w.detach() < 0)


def _column(values: Tensor, like: Tensor) -> Tensor:
    return values.view(-1, *[1] * (like.dim() - 1))
