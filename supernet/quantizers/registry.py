"""Which quantiser serves which tensors: the registry, and the choice of one job.

Other packages add quantisers through the entry-point group ``nas.quantizers``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from search_spaces.errors import InputError
from search_spaces.number_formats import NumberFormat, number_format
from search_spaces.plan import FLOAT_BITS
from search_spaces.registry import Registry
from supernet.quantizers.formats import trainable_formats, weight_quantizer
from supernet.quantizers.kinds import (
    BinaryWeightQuantizer,
    DorefaActivationQuantizer,
    DorefaWeightQuantizer,
    FixedPointActivationQuantizer,
    FixedPointWeightQuantizer,
    PactActivationQuantizer,
    SymmetricActivationQuantizer,
    TernaryWeightQuantizer,
    TrainedTernaryWeightQuantizer,
)
from supernet.quantizers.lsq import (
    ActivationFakeQuantizer,
    ActivationQuantizer,
    WeightFakeQuantizer,
    WeightQuantizer,
)
from supernet.quantizers.mixture import AttentionWeightQuantizer

DEFAULT = "default"
"""Key of the quantiser for the bit-widths that have none of their own."""

PER_CHANNEL = ("depthwise", "always", "never")


@dataclass(frozen=True)
class QuantizerKind:
    """A registered quantiser.

    Attributes:
        source: where it comes from.
        weights: class for weights, if it serves them: (bits, kernels, *, channels, count).
        activations: class for activations, if it serves them: (bits, *, signed).
        weight_bits: smallest and largest bits of weights.
        activation_bits: the same of activations.
    """

    source: str
    weights: Callable[..., WeightFakeQuantizer] | None = None
    activations: Callable[..., ActivationFakeQuantizer] | None = None
    weight_bits: tuple[int, int] = (2, 16)
    activation_bits: tuple[int, int] = (1, 16)


QUANTIZERS: Registry[QuantizerKind] = Registry("quantiser", group="nas.quantizers")

for _name, _kind in {
    "lsq": QuantizerKind(
        "LSQ, Esser et al., ICLR 2020", WeightQuantizer, SymmetricActivationQuantizer
    ),
    "lsq+": QuantizerKind("LSQ+, Bhalgat et al., CVPRW 2020", WeightQuantizer, ActivationQuantizer),
    "pact": QuantizerKind("PACT, Choi et al., 2018", None, PactActivationQuantizer),
    "dorefa": QuantizerKind(
        "DoReFa-Net, Zhou et al., 2016",
        DorefaWeightQuantizer,
        DorefaActivationQuantizer,
        weight_bits=(1, 8),
    ),
    "fixed_point": QuantizerKind(
        "TQT, Jain et al., MLSys 2020", FixedPointWeightQuantizer, FixedPointActivationQuantizer
    ),
    "twn": QuantizerKind(
        "Ternary Weight Networks, Li et al., 2016", TernaryWeightQuantizer, weight_bits=(2, 2)
    ),
    "ttq": QuantizerKind(
        "Trained Ternary Quantization, Zhu et al., ICLR 2017",
        TrainedTernaryWeightQuantizer,
        weight_bits=(2, 2),
    ),
    "binary": QuantizerKind(
        "XNOR-Net, Rastegari et al., ECCV 2016", BinaryWeightQuantizer, weight_bits=(1, 1)
    ),
    "attention": QuantizerKind("DQA, Hacene et al., 2021", AttentionWeightQuantizer),
}.items():
    QUANTIZERS.register(_name)(_kind)

for _name in trainable_formats():
    _chosen = number_format(_name)
    QUANTIZERS.register(_name)(
        QuantizerKind(
            f"{_chosen.source}; a learned step",
            weight_quantizer(_chosen),
            weight_bits=(_chosen.bits, _chosen.bits),
        )
    )


@dataclass(frozen=True)
class QuantizerScheme:
    """The quantisers of one supernet.

    Attributes:
        weights: name for weights, or bits -> name with ``default`` for the rest, such as
            ``{"default": "lsq", 2: "twn", 1: "binary"}``.
        activations: the same for the inputs of layers. Tensors between blocks are always LSQ+.
        per_channel: which layers have a weight step for each output channel: ``depthwise`` ones,
            ``always`` or ``never``.
    """

    weights: str | Mapping[Any, str] = "lsq"
    activations: str | Mapping[Any, str] = "lsq+"
    per_channel: str = "depthwise"
    _names: dict[str, dict[Any, str]] = field(default_factory=dict, init=False, compare=False)

    def __post_init__(self) -> None:
        if self.per_channel not in PER_CHANNEL:
            raise InputError(
                f"per_channel is {self.per_channel!r}; use one of {', '.join(PER_CHANNEL)}"
            )
        for part in ("weights", "activations"):
            value = getattr(self, part)
            names = {DEFAULT: value} if isinstance(value, str) else dict(value)
            for key, name in names.items():
                if getattr(QUANTIZERS.get(name), part) is None:
                    raise InputError(f"the quantiser {name!r} does not serve {part}")
                if key != DEFAULT:
                    _check_bits(part, int(key), name)
            # JSON and YAML have text as keys.
            self._names[part] = {k if k == DEFAULT else int(k): v for k, v in names.items()}

    def name(self, part: str, bits: int) -> str:
        """Return the quantiser of ``part`` (``weights`` or ``activations``) at ``bits``.

        Raises:
            InputError: none serves them; the message says what to write.
        """
        names = self._names[part]
        name = names.get(bits, names.get(DEFAULT))
        if name is None:
            raise InputError(f"no quantiser serves {part} of {bits} bits; name a default")
        _check_bits(part, bits, name)
        return name

    def check(self, part: str, bits: Iterable[int]) -> None:
        """Raise InputError if no quantiser serves one of ``bits``."""
        for width in bits:
            if width < FLOAT_BITS:
                self.name(part, width)

    def weight_quantizer(
        self,
        bits: Sequence[int],
        kernels: Sequence[int],
        *,
        channels: int,
        depthwise: bool,
        count: int,
    ) -> WeightFakeQuantizer:
        """Return the quantiser of a layer's weights, see :class:`WeightFakeQuantizer`.

        Args:
            bits: the bit-widths the layer can have.
            kernels: the kernel sides it can have.
            channels: its output channels at most.
            depthwise: whether it is a depthwise convolution.
            count: its weights at most.
        """
        each = self.per_channel == "always" or (self.per_channel == "depthwise" and depthwise)
        options: dict[str, Any] = {"channels": channels if each else None, "count": count}
        groups = self._groups("weights", bits)
        parts = {
            name: QUANTIZERS.get(name).weights(widths, kernels, **options)  # type: ignore[misc]
            for name, widths in groups.items()
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        return WeightQuantizersByBits(parts, kernels, **options)

    def activation_quantizer(self, bits: Sequence[int], *, signed: bool) -> ActivationFakeQuantizer:
        """Return the quantiser of a layer's input, see :class:`ActivationFakeQuantizer`."""
        groups = self._groups("activations", bits)
        parts = {
            name: QUANTIZERS.get(name).activations(widths, signed=signed)  # type: ignore[misc]
            for name, widths in groups.items()
        }
        if len(parts) == 1:
            return next(iter(parts.values()))
        return ActivationQuantizersByBits(parts, signed=signed)

    def _groups(self, part: str, bits: Sequence[int]) -> dict[str, list[int]]:
        groups: dict[str, list[int]] = {}
        for width in sorted({b for b in bits if b < FLOAT_BITS}):
            groups.setdefault(self.name(part, width), []).append(width)
        return groups or {
            self._names[part].get(DEFAULT, next(iter(self._names[part].values()))): []
        }


class WeightQuantizersByBits(WeightFakeQuantizer):
    """Several weight quantisers, each for bit-widths of its own."""

    def __init__(
        self,
        parts: Mapping[str, WeightFakeQuantizer],
        kernels: Sequence[int],
        *,
        channels: int | None,
        count: int,
    ) -> None:
        super().__init__([], kernels, channels=channels, count=count)
        self.parts = nn.ModuleDict(parts)
        self.bits = tuple(sorted(b for part in parts.values() for b in part.bits))

    def forward(
        self, w: Tensor, bits: int, *, sign: Tensor | None = None, full: Tensor | None = None
    ) -> Tensor:
        """Fake-quantise by the quantiser of ``bits``."""
        return w if bits >= FLOAT_BITS else self.part(bits)(w, bits, sign=sign, full=full)

    def part(self, bits: int) -> WeightFakeQuantizer:
        """Return the quantiser of ``bits``."""
        return _part(self.parts, bits, self.bits)  # type: ignore[return-value]

    def wants_full(self, kernel: int, bits: int) -> bool:
        """Whether the next call needs the widest weights."""
        return bits < FLOAT_BITS and self.part(bits).wants_full(kernel, bits)

    def code_range(self, bits: int) -> tuple[int, int]:
        """Return the smallest and largest code of ``bits``."""
        return self.part(bits).code_range(bits)

    def number_format(self, bits: int) -> NumberFormat | None:
        """Return what the codes of ``bits`` stand for, None for integers."""
        return None if bits >= FLOAT_BITS else self.part(bits).number_format(bits)

    def step(self, kernel: int, bits: int, channels: int, *, full: Tensor | None = None) -> Tensor:
        """Return the step, (channels,) where it is per channel, else (1,)."""
        return self.part(bits).step(kernel, bits, channels, full=full)

    def set_step(self, kernel: int, bits: int, step: Tensor) -> bool:
        """Set the step of the quantiser of ``bits``, where that can be."""
        return self.part(bits).set_step(kernel, bits, step)

    def _quantize(
        self, k: int, b: int, w: Tensor, full: Tensor, bits: int, sign: Tensor | None
    ) -> Tensor:
        raise AssertionError("forward hands everything to the quantiser of the bits")

    def _initialize(self, k: int, b: int, w: Tensor, bits: int) -> None:
        raise AssertionError("each quantiser has its own entries")


class ActivationQuantizersByBits(ActivationFakeQuantizer):
    """Several activation quantisers, each for bit-widths of its own."""

    def __init__(self, parts: Mapping[str, ActivationFakeQuantizer], *, signed: bool) -> None:
        super().__init__([], signed=signed)
        self.parts = nn.ModuleDict(parts)
        self.bits = tuple(sorted(b for part in parts.values() for b in part.bits))

    def mark_unused(self, bits: Sequence[int]) -> None:
        """Mark the entries of ``bits`` as ready: they are never asked for."""
        for width in bits:
            _part(self.parts, width, self.bits).mark_unused([width])  # type: ignore[operator]

    def forward(self, x: Tensor, bits: int) -> Tensor:
        """Fake-quantise by the quantiser of ``bits``."""
        return x if bits >= FLOAT_BITS else _part(self.parts, bits, self.bits)(x, bits)

    def constants(self, bits: int) -> tuple[float, int]:
        """Return ``(step, zero point)`` for ``bits``."""
        return _part(self.parts, bits, self.bits).constants(bits)  # type: ignore[operator]

    def _quantize(self, i: int, x: Tensor, bits: int) -> Tensor:
        raise AssertionError("forward hands everything to the quantiser of the bits")

    def _initialize(self, i: int, x: Tensor, bits: int) -> None:
        raise AssertionError("each quantiser has its own entries")


def _part(parts: nn.ModuleDict, bits: int, known: tuple[int, ...]) -> torch.nn.Module:
    for part in parts.values():
        if bits in part.bits:  # type: ignore[operator]
            return part
    raise InputError(f"no quantiser was trained for {bits} bits (trained: {known})")


def _check_bits(part: str, bits: int, name: str) -> None:
    kind = QUANTIZERS.get(name)
    low, high = kind.weight_bits if part == "weights" else kind.activation_bits
    if low <= bits <= high or bits >= FLOAT_BITS:
        return
    others = [
        other
        for other in QUANTIZERS
        if getattr(QUANTIZERS.get(other), part) is not None
        and _serves(QUANTIZERS.get(other), part, bits)
    ]
    raise InputError(
        f"the quantiser {name!r} does not serve {part} of {bits} bits; name another for them, as "
        f"in {part}: {{default: {'lsq' if part == 'weights' else 'lsq+'}, {bits}: "
        f"{others[0] if others else '...'}}}"
    )


def _serves(kind: QuantizerKind, part: str, bits: int) -> bool:
    low, high = kind.weight_bits if part == "weights" else kind.activation_bits
    return low <= bits <= high
