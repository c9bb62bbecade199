"""A job's supernet and training schedule, built from its ``supernet`` section."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from nas.job import SupernetConfig
from search_spaces.planned import PlannedSpace

if TYPE_CHECKING:
    from supernet.network import Supernet
    from supernet.quantizer_registry import QuantizerScheme
    from supernet.subnets import BitsStage, StagedSchedule


def quantizer_scheme(config: SupernetConfig) -> QuantizerScheme:
    """Return the quantisers that a job asks for.

    Raises:
        InputError: one that is unknown, serves other tensors or cannot have the bits given.
    """
    from supernet.quantizer_registry import QuantizerScheme

    asked = config.quantizers
    return QuantizerScheme(asked.weights, asked.activations, asked.per_channel)


def make_supernet(space: PlannedSpace, config: SupernetConfig) -> Supernet:
    """Return a fresh supernet of ``space`` with the job's quantisers.

    Raises:
        InputError: no quantiser serves a bit-width of the space.
    """
    from supernet.network import Supernet

    return Supernet(space, quantizers=quantizer_scheme(config))


def make_schedule(
    supernet: Supernet, config: SupernetConfig, stages: Sequence[BitsStage], *, seed: int
) -> StagedSchedule:
    """Return the job's training schedule over the bit-widths of ``stages``."""
    from supernet.schedules import SCHEDULES

    return SCHEDULES.get(config.schedule)(
        supernet.space,
        supernet.ranges,
        stages=stages,
        random_subnets=config.random_subnets,
        seed=seed,
    )
