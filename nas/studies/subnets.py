"""Which subnets a study compares: spread over MACs, and over bits or parameters inside."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nas.strategies.genes import sample_spread
from search_spaces.bits import set_bits
from search_spaces.errors import InputError
from search_spaces.planned import PlannedSpace
from search_spaces.seeds import derive_rng
from search_spaces.space import Arch

_POOL = 4000


@dataclass(frozen=True)
class Stratified:
    """Subnets of a study.

    Attributes:
        archs: the subnets.
        macs_bin: the bin of similar MACs that each belongs to, from 0.
    """

    archs: tuple[Arch, ...]
    macs_bin: tuple[int, ...]


def stratified_subnets(
    space: PlannedSpace, count: int, *, seed: int, bits: tuple[int, int] | None = None
) -> Stratified:
    """Draw ``count`` subnets spread evenly over the space's costs.

    The range of log-MACs that a broad sample covers is cut into about ``sqrt(count)`` bins of
    equal width; inside a bin the sample is ordered by bit operations per MAC (the mean product
    of bits), or by parameters where bits are fixed, and one subnet drawn from each of as many
    equal parts as the bin gives subnets.

    Args:
        space: where subnets come from.
        count: at least 4.
        seed: of the draw.
        bits: of weights and activations in every searched layer; None mixes them freely.

    Raises:
        InputError: the space does not offer the bits, or has too few architectures.
    """
    if count < 4:
        raise InputError(f"{count} subnets cannot be ranked; take at least 4")
    rng = derive_rng(seed, "study subnets", *(bits or ("mixed",)))
    genes = sample_spread(space, rng, _POOL)
    if bits is not None:
        genes = set_bits(space, genes, *bits)
    genes = np.unique(genes, axis=0)
    if len(genes) < count:
        raise InputError(f"the space {space.name!r} has only {len(genes)} such architectures")
    costs = space.costs(genes)
    log_macs = np.log(costs["macs"])
    inner = costs["bops"] / costs["macs"] if bits is None else costs["parameters"]
    bins = round(math.sqrt(count))
    # The outermost hundredths hold few architectures and would make bins of very unlike nets.
    low, high = np.quantile(log_macs, [0.01, 0.99])
    edges = np.linspace(low, high, bins + 1)
    member = np.clip(np.digitize(log_macs, edges[1:-1]), 0, bins - 1)
    chosen: list[int] = []
    labels: list[int] = []
    for bin_number, wanted in enumerate(_shares(count, np.bincount(member, minlength=bins))):
        rows = np.flatnonzero(member == bin_number)
        rows = rows[np.argsort(inner[rows], kind="stable")]
        for part in np.array_split(rows, wanted) if wanted else ():
            chosen.append(int(rng.choice(part)))
            labels.append(bin_number)
    return Stratified(tuple(space.decode(genes[chosen])), tuple(labels))


def _shares(count: int, available: np.ndarray) -> list[int]:
    """Divide ``count`` as evenly as the bins allow."""
    shares = np.zeros(len(available), dtype=int)
    for _ in range(count):
        open_bins = np.flatnonzero(shares < available)
        shares[open_bins[np.argmin(shares[open_bins])]] += 1
    return shares.tolist()
