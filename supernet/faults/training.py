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
from supernet.training.finetune import FixedSubnets


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
