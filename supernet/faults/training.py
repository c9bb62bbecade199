"""Training a network whose codes will have flipped bits, with bits flipped while it learns.

Random bit error training (Stutz et al., MLSys 2021, algorithm 1): the gradient is taken where
some bits of the quantised weights are flipped, other ones in each step, and passes straight
through to the weights that are kept. There every step sees both; here a step is faulty or is not,
which costs no more than training without.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS, LayerPlan, NetworkPlan
from supernet.elastic import ElasticLayer
from supernet.faults.injection import Faults, code_distance
from supernet.network import Supernet
from supernet.quantizers.lsq import SMALLEST_STEP
from supernet.training.finetune import FixedSubnets

_RANGES = [share / 20 for share in range(1, 21)]
"""Of the largest weight, what the largest code may stand for."""


class BitErrors:
    """Flips bits of quantised weights while ``active``.

    Args:
        faults: of the kind ``flips``, or ``variation``; their seed is that of all draws.
        every: of so many steps the last is faulty; 1 makes all of them so.
    """

    def __init__(self, faults: Faults, *, every: int = 2) -> None:
        self.faults, self.every = faults, every
        self.active = False
        self.generator = torch.Generator().manual_seed(faults.seed)

    def begin(self, step: int) -> None:
        """Set the draws of a training step, so that one that is resumed has the same."""
        self.active = step % self.every == self.every - 1
        self.generator.manual_seed(self.faults.seed + 7919 * step)

    def __call__(self, w: Tensor, layer: LayerPlan, elastic: ElasticLayer) -> Tensor:
        """Return fake-quantised weights (out, ...) with faults, and their gradient untouched."""
        if not self.active or layer.weight_bits >= FLOAT_BITS:
            return w
        with torch.no_grad():
            if self.faults.kind == "variation":
                noise = torch.randn(w.shape, generator=self.generator).to(w.device)
                spoilt = w * (1 + self.faults.rate * noise)
            else:
                spoilt = self._flipped(w, layer, elastic)
        return w + (spoilt - w).detach()

    def _flipped(self, w: Tensor, layer: LayerPlan, elastic: ElasticLayer) -> Tensor:
        if elastic.weight_quantizer.number_format(layer.weight_bits) is not None:
            raise InputError(
                f"{layer.name}: training with flipped bits knows codes of integers, and these are "
                f"of {layer.weight_bits} bits in a number format; train with kind: variation"
            )
        step = elastic.weight_step(layer).view(-1, *[1] * (w.dim() - 1))
        low, high = elastic.weight_quantizer.code_range(layer.weight_bits)
        bits = layer.weight_bits
        apart = code_distance(low, high, bits)
        fields = ((w.detach() / step).round().long() - low) // apart
        mask = torch.zeros_like(fields)
        for bit in range(bits):
            hit = torch.rand(w.shape, generator=self.generator).to(w.device) < self.faults.rate
            mask |= hit.long() << bit
        return ((fields ^ mask) * apart + low).clamp(low, high) * step


@torch.no_grad()
def narrow_steps(supernet: Supernet, plan: NetworkPlan, rate: float) -> list[str]:
    """Set the steps of weights to where flipped bits and rounding do the least harm together.

    A flipped bit moves a weight by a power of two of steps, so that a range as wide as the largest
    weight, or wider, makes faults large beside most weights: clipping weights is what helps most
    against bit errors (Stutz et al., MLSys 2021, section 4.2). Of ``bits`` bits that are flipped
    with probability p each, the expected square is ``p (4**bits - 1) / 3`` squared steps; the step
    of least sum of that and of the error of rounding and clipping is taken.

    Args:
        supernet: changed in place, for the layers of ``plan`` at their bits.
        plan: the architecture.
        rate: probability that a bit is flipped.

    Returns:
        The layers whose steps were set; those of other formats and of float keep theirs, and so do
        those whose steps follow from the weights.
    """
    changed = []
    for layer in plan.layers():
        elastic = supernet.layer(layer.name)
        quantizer, bits = elastic.weight_quantizer, layer.weight_bits
        if bits >= FLOAT_BITS or quantizer.number_format(bits) is not None:
            continue
        if layer.out_parts and len(elastic.weight) > layer.out_channels:
            continue  # Its channels are not the first, whose steps can be set.
        elastic.quantized_weight(layer)  # steps that were never met begin here
        _, high = quantizer.code_range(bits)
        rows = elastic.slice_of(layer).flatten(1)
        rows = rows if quantizer.per_channel else rows.reshape(1, -1)
        widest = rows.abs().amax(1, keepdim=True).clamp(min=SMALLEST_STEP) / high
        least = torch.full_like(widest, torch.inf)
        best = widest.clone()
        for share in _RANGES:
            step = share * widest
            kept = (rows / step).round().clamp(-high - 1, high) * step
            flipped = rate * (4.0**bits - 1) / 3 * step.square()
            error = (rows - kept).square().mean(1, keepdim=True) + flipped
            better = error < least
            least, best = torch.where(better, error, least), torch.where(better, step, best)
        if quantizer.set_step(layer.kernel, bits, best.flatten()):
            changed.append(layer.name)
    return changed


class FaultySubnets(FixedSubnets):
    """The same subnets in every step, with faults in every other one.

    Args:
        subnets: as of :class:`supernet.training.finetune.FixedSubnets`.
        errors: told each step.
    """

    def __init__(self, *subnets: NetworkPlan, errors: BitErrors) -> None:
        super().__init__(*subnets)
        self.errors = errors

    def plans(self, step: int, progress: float) -> list[NetworkPlan]:
        """Return the subnets, and begin the faults of the step."""
        self.errors.begin(step)
        return super().plans(step, progress)


@contextmanager
def disturbed(supernet: Supernet, errors: BitErrors) -> Iterator[None]:
    """Let ``errors`` spoil the quantised weights of every layer, and stop at the end."""
    layers = [m for m in supernet.modules() if isinstance(m, ElasticLayer)]
    for layer in layers:
        layer.disturb = errors
    try:
        yield
    finally:
        for layer in layers:
            layer.disturb = None
