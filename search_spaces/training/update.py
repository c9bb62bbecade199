"""Which layers and channels a device trains on, and how: a sparse update.

Lin et al., *On-Device Training Under 256KB Memory*, NeurIPS 2022, section 3.2: weights of some
layers, and of those only of some input channels, and biases; what lies before the first of them
needs no backward pass, and of activations only what the gradients of the chosen weights read is
kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from search_spaces.errors import InputError

OPTIMIZERS = {"sgd": 0, "momentum": 1, "adam": 2}
"""Numbers that an optimiser keeps for each weight that it updates."""


@dataclass(frozen=True)
class Update:
    """A sparse update.

    Attributes:
        last: of so many last layers the weights are updated; None for those of all. Where
            ``shares`` are given, they say it instead.
        share: of the input channels of each of them, above 0, to 1; rounded up to whole channels,
            the first ones.
        shares: of layers by name, in place of ``last`` and ``share``; layers that are not named
            have none, and of 0 its bias alone.
        biases: update the biases of these layers too.
        optimizer: of :data:`OPTIMIZERS`.
        batch: examples of a step whose activations are kept at once.
        gradient_bits: of gradients of activations and weights, and of the optimiser's numbers.

    Raises:
        InputError: a part that makes no sense.
    """

    last: int | None = 1
    share: float = 1.0
    shares: Mapping[str, float] = field(default_factory=dict)
    biases: bool = True
    optimizer: str = "sgd"
    batch: int = 1
    gradient_bits: int = 32

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise InputError(
                f"no optimizer {self.optimizer!r} for training on a device; there are "
                f"{', '.join(OPTIMIZERS)}"
            )
        if self.last is not None and self.last < 1:
            raise InputError(f"{self.last} layers are none to train; give at least 1")
        if not 0 < self.share <= 1:
            raise InputError(f"{self.share:g} of the channels; give a share above 0, to 1")
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise InputError(f"{name}: {share:g} of its channels; give a share from 0 to 1")
        if self.batch < 1:
            raise InputError(f"a batch of {self.batch}; give at least 1")
        if self.gradient_bits not in (8, 16, 32):
            raise InputError(f"gradients of {self.gradient_bits} bits; there are 8, 16 and 32")

    @property
    def states(self) -> int:
        """Numbers that the optimiser keeps for each weight."""
        return OPTIMIZERS[self.optimizer]
