"""Networks with faults in the memory of their weights, or in what passes between layers.

Bit flips and cells stuck at a value concern the packed codes as they lie in memory: each of the
``bits`` of a code by itself (as in Stutz et al., Bit error robustness for energy-efficient DNN
accelerators, MLSys 2021, section 3). Variation concerns the values, as conductances of analogue
memory vary (multiplicative and normal; Joshi et al., Nature Communications 2020). Every draw
follows from a seed and the layer's name, so that a fault is the same whatever else is faulty.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from search_spaces.errors import InputError
from search_spaces.plan import FLOAT_BITS
from search_spaces.seeds import derive_rng
from supernet.plain import PlainLayer, PlainNetwork, Source
from supernet.quantizers.formats import EncodedWeights

KINDS = ("flips", "stuck", "variation", "activations")
"""``flips``: bits of weights' codes turn over. ``stuck``: bits of weights' codes are stuck at 0 or
1, as likely each. ``variation``: weights are multiplied by normal factors around 1.
``activations``: bits of the codes of layers' inputs turn over, anew for each batch; inputs that a
layer takes as they are, quantised or float, have none."""


@dataclass(frozen=True)
class Faults:
    """What goes wrong, and how often.

    Attributes:
        kind: of :data:`KINDS`.
        rate: probability that a bit is faulty, 0 to 1; of ``variation`` the standard deviation of
            the factors.
        seed: of the draw.

    Raises:
        InputError: an unknown kind, or a rate that makes no sense.
    """

    kind: str = "flips"
    rate: float = 0.01
    seed: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise InputError(f"no kind of fault {self.kind!r}; there are {', '.join(KINDS)}")
        if not self.rate >= 0 or (self.rate > 1 and self.kind != "variation"):
            raise InputError(
                f"a rate of {self.rate:g} faults a bit; give a share from 0 to 1"
                if self.kind != "variation"
                else f"a deviation of {self.rate:g} is below 0"
            )


@torch.no_grad()
def with_faults(
    network: PlainNetwork,
    faults: Faults,
    *,
    layers: Collection[str] | None = None,
    protected: Collection[str] = (),
) -> PlainNetwork:
    """Return a copy of ``network`` with faults; float layers have none.

    Args:
        network: quantised; left as it is.
        faults: what goes wrong.
        layers: names of the only layers that are faulty; by default all.
        protected: names of layers that are not.

    Raises:
        InputError: there is no such layer, or no layer that could be faulty.
    """
    found = copy.deepcopy(network)
    names = [layer.layer.name for layer in found.plain_layers()]
    for name in sorted({*(layers or ()), *protected} - set(names)):
        raise InputError(f"the network has no layer {name!r}; it has {', '.join(names)}")
    held = faultless(found)
    if len(held) == len(names):
        raise InputError("every weight of the network is float; faults concern codes of few bits")
    for layer in found.plain_layers():
        name = layer.layer.name
        if name in protected or (layers is not None and name not in layers) or name in held:
            continue
        if faults.kind == "activations":
            layer.source = FaultySource(layer.source, faults, name)
        else:
            _spoil(layer, faults)
    return found


def faultless(network: PlainNetwork) -> list[str]:
    """Return the layers without codes, whose weights are float."""
    return [
        layer.layer.name
        for layer in network.plain_layers()
        if layer.weight_step is None and layer.encoded is None
    ]


def stored_bits(network: PlainNetwork) -> dict[str, int]:
    """Return the bits that the weights' codes of each layer take, by name; 0 for float ones."""
    held = set(faultless(network))
    return {
        layer.layer.name: 0
        if layer.layer.name in held
        else layer.op.weight.numel() * layer.layer.weight_bits
        for layer in network.plain_layers()
    }


def _spoil(layer: PlainLayer, faults: Faults) -> None:
    rng = derive_rng(faults.seed, "faults", faults.kind, layer.layer.name)
    weight = layer.op.weight
    if faults.kind == "variation":
        factors = rng.normal(1.0, faults.rate, tuple(weight.shape)).astype(np.float32)
        weight.copy_(weight * torch.from_numpy(factors).to(weight.device))
        return
    if layer.encoded is not None:
        old = layer.encoded
        codes = faulty_codes(old.codes, old.chosen.bits, faults, rng)
        known = np.stack([old.chosen.values(i) for i in range(old.chosen.variants)])
        # A code that means no number reads as nothing.
        codes[~np.isfinite(known[old.spread(old.tables), codes])] = 0
        layer.encoded = EncodedWeights(
            old.chosen, codes, old.scales, old.tables, old.group, old.shared
        )
        weight.copy_(torch.from_numpy(layer.encoded.decoded()).to(weight.device))
        return
    assert layer.weight_step is not None
    step = layer.weight_step.view(-1, *[1] * (weight.dim() - 1))
    codes = (weight / step).round().cpu().numpy().astype(np.int64)
    if layer.chosen is not None:
        # Whole numbers of a unit that stand for the codes of a format.
        codes = _through_format(codes, layer, faults, rng)
    else:
        codes = _through_integers(codes, layer, faults, rng)
    weight.copy_(torch.from_numpy(codes.astype(np.float32)).to(weight.device) * step)


def code_distance(low: int, high: int, bits: int) -> int:
    """Return how far apart the codes from ``low`` to ``high`` lie that fill ``bits``.

    Codes of every second number, such as -3, -1, 1, 3, take as many bits as others.
    """
    return max(1, -(-(high - low) // (2**bits - 1)))


def _through_integers(
    codes: np.ndarray, layer: PlainLayer, faults: Faults, rng: np.random.Generator
) -> np.ndarray:
    """As packed files have them: fields from 0 up, the smallest code first."""
    low, high = layer.code_range
    bits = layer.layer.weight_bits
    apart = code_distance(low, high, bits)
    fields = (codes - low) // apart
    spoilt = faulty_codes(fields, bits, faults, rng).astype(np.int64) * apart + low
    # A field that stands for no code (three values in two bits) reads as the largest.
    return np.clip(spoilt, low, high)


def _through_format(
    codes: np.ndarray, layer: PlainLayer, faults: Faults, rng: np.random.Generator
) -> np.ndarray:
    assert layer.chosen is not None
    unit, _ = layer.chosen.whole_codes
    found = codes.copy()
    # Each channel took the table that holds all of its values.
    for row, values in enumerate(codes):
        variant = next(
            i
            for i in range(layer.chosen.variants)
            if np.isin(values * unit, layer.chosen.values(i)).all()
        )
        fields = layer.chosen.encode(values * unit, variant)
        spoilt = layer.chosen.decode(faulty_codes(fields, layer.chosen.bits, faults, rng), variant)
        found[row] = np.rint(np.nan_to_num(spoilt, nan=0.0) / unit)
    return found


def faulty_codes(
    codes: np.ndarray, bits: int, faults: Faults, rng: np.random.Generator
) -> np.ndarray:
    """Return unsigned codes of ``bits``, of any shape, with flipped or stuck bits."""
    kind: Any = np.uint16 if bits > 8 else np.uint8
    hit: np.ndarray = np.zeros(codes.shape, kind)
    ones: np.ndarray = np.zeros(codes.shape, kind)
    for bit in range(bits):
        chosen = rng.random(codes.shape) < faults.rate
        hit |= np.left_shift(chosen.astype(kind), bit)
        if faults.kind == "stuck":
            high = rng.random(codes.shape) < 0.5
            ones |= np.left_shift(high.astype(kind), bit)
    found: np.ndarray = codes.astype(kind)
    if faults.kind == "stuck":
        return (found & ~hit) | (ones & hit)
    return found ^ hit


class FaultySource(Source):
    """A layer's input whose codes have flipped bits, other ones for each tensor it sees.

    Args:
        source: the input without faults. What passes as it is, being quantised before it came,
            has none.
        faults: how often.
        name: of the layer.
    """

    def __init__(self, source: Source, faults: Faults, name: str) -> None:
        super().__init__(
            source.source,
            bits=source.bits,
            step=source.step,
            zero_point=source.zero_point,
            before=source.before,
            chosen=source.chosen,
        )
        self.faults, self.name, self.seen = faults, name, 0

    def forward(self, x: Tensor) -> Tensor:
        """Activate, fake-quantise and spoil ``x`` of any shape."""
        y = super().forward(x).detach()
        if self.bits >= FLOAT_BITS or not self.faults.rate:
            return y
        rng = derive_rng(self.faults.seed, "activations", self.name, self.seen)
        self.seen += 1
        if self.chosen is not None:
            fields = self.chosen.encode((y / self.step).cpu().numpy())
            values = self.chosen.decode(faulty_codes(fields, self.bits, self.faults, rng))
            found = np.nan_to_num(values, nan=0.0) * np.float32(self.step)
        else:
            fields = (y / self.step).round().cpu().numpy().astype(np.int64) + self.zero_point
            spoilt = faulty_codes(fields, self.bits, self.faults, rng).astype(np.float32)
            found = (spoilt - self.zero_point) * np.float32(self.step)
        return torch.from_numpy(found).to(y.device)
