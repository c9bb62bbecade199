"""A soft start for low bits: an attention-weighted mixture of bit-widths.

DNN Quantization with Attention (DQA, Hacene et al., 2021, arXiv 2103.13322): a low-bit tensor
starts as a learned mixture of high, medium and low bits, and a falling temperature leaves one.
There a penalty leads to the low bits; here the bits are the architecture's, so the width that
was asked for has an advantage which the attention, being bounded, cannot outvote.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from supernet.quantizers.lsq import WeightQuantizer

_FIRST, _LAST = 1.0, 0.02
_ADVANTAGE = 1.1
"""Attention lies within -0.5 and 0.5."""


class AttentionWeightQuantizer(WeightQuantizer):
    """LSQ weights which, while training is young, are mixed with those of more bits.

    The mixture is of the width asked for, the next one and the highest. Without gradients, and
    at the end of training, it is the width asked for alone, so extraction sees plain LSQ.
    """

    def __init__(
        self, bits: Sequence[int], kernels: Sequence[int], *, channels: int | None, count: int
    ) -> None:
        super().__init__(bits, kernels, channels=channels, count=count)
        shape = (len(self.kernels), len(self.bits), len(self.bits))
        self.attention = nn.Parameter(torch.zeros(shape))
        self.progress = 0.0

    def set_progress(self, progress: float) -> None:
        """Set the share of training that is done, from 0 to 1, which the temperature follows."""
        self.progress = progress

    @property
    def temperature(self) -> float:
        """Of the softmax: falls geometrically from 1."""
        return _FIRST * (_LAST / _FIRST) ** min(1.0, self.progress)

    def shares(self, k: int, b: int) -> tuple[list[int], Tensor]:
        """Return which entries are mixed for (k, b), and their shares, which add up to 1."""
        last = len(self.bits) - 1
        entries = sorted({b, min(b + 1, last), last})
        logits = 0.5 * torch.tanh(self.attention[k, b, entries])
        bonus = torch.tensor([_ADVANTAGE * (e == b) for e in entries], device=logits.device)
        return entries, torch.softmax((logits + bonus) / self.temperature, 0)

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        if not torch.is_grad_enabled() or self.progress >= 1:
            return super()._quantize(k, b, w, full, bits, sign)
        entries, shares = self.shares(k, b)
        mixed = torch.zeros_like(w)
        for entry, share in zip(entries, shares, strict=True):
            if not self.initialized[k, entry]:
                self._initialize(k, entry, full.detach(), self.bits[entry])
            mixed = mixed + share * super()._quantize(k, entry, w, full, self.bits[entry], sign)
        return mixed

    def wants_full(self, kernel: int, bits: int) -> bool:
        """Whether the next call needs the widest weights: while any entry is new."""
        return bits < 32 and not bool(self.initialized[self.kernels.index(kernel)].all())


def set_progress(module: nn.Module, progress: float) -> None:
    """Tell every quantiser of ``module`` with a schedule how far training is, from 0 to 1."""
    for child in module.modules():
        if isinstance(child, AttentionWeightQuantizer):
            child.set_progress(progress)
