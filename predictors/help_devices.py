"""What HELP knows of a device: its reference architectures, and targets scaled by them."""

from __future__ import annotations

import numpy as np

from predictors.baselines import Ridge
from search_spaces.errors import InputError
from search_spaces.tables.table import LatencyTable

REFERENCES = 10
"""Architectures in the hardware embedding."""


def choose_references(table: LatencyTable, allowed: np.ndarray | None = None) -> np.ndarray:
    """Return rows of ten reference architectures: (10,) int.

    Evenly spaced in mean latency rank over the known devices, away from the extremes. Rows
    measured on every device come first; where there are not ten of them, those measured on most.

    Args:
        table: known devices.
        allowed: (n,) bool, rows that may be chosen; default: all.

    Raises:
        InputError: fewer than ten different architectures may be chosen.
    """
    if not table.devices:
        raise InputError("HELP needs at least one meta-training device")
    measured = np.isfinite(table.values).sum(axis=1)
    _, first = np.unique(table.genes, axis=0, return_index=True)
    usable = np.zeros(len(table), dtype=bool)
    usable[first] = True
    usable &= measured > 0
    if allowed is not None:
        usable &= allowed
    if usable.sum() < REFERENCES:
        raise InputError(
            f"HELP needs {REFERENCES} reference architectures that are measured on a meta-training "
            f"device and can be measured on every new one; the pool has {int(usable.sum())}"
        )
    least = np.sort(measured[usable])[-REFERENCES]
    rows = np.flatnonzero(usable & (measured >= least))
    order = rows[np.argsort(_mean_rank(table.values)[rows], kind="stable")]
    at = np.linspace(0.03, 0.97, REFERENCES) * (len(order) - 1)
    return order[_distinct(np.round(at).astype(int), len(order))]


def _mean_rank(values: np.ndarray) -> np.ndarray:
    """Mean over devices of the rank (0..1) of each row among the measured: (n,)."""
    ranks = np.full(values.shape, np.nan)
    for j, column in enumerate(values.T):
        rows = np.flatnonzero(np.isfinite(column))
        ranks[rows[np.argsort(column[rows], kind="stable")], j] = np.linspace(0, 1, len(rows))
    known = np.isfinite(ranks)
    return np.where(known, ranks, 0.0).sum(axis=1) / np.maximum(known.sum(axis=1), 1)


def _distinct(at: np.ndarray, size: int) -> np.ndarray:
    """Push equal places of an increasing list apart, within 0..size-1."""
    at = np.maximum.accumulate(at - np.arange(len(at))) + np.arange(len(at))
    return np.minimum(at, size - len(at) + np.arange(len(at)))


class KnownDevice:
    """Targets of one known device, scaled and trimmed as HELP does."""

    def __init__(self, table: LatencyTable, name: str, references: np.ndarray) -> None:
        self.name = name
        values = table.column(name)
        finite = np.flatnonzero(np.isfinite(values))
        order = finite[np.argsort(values[finite], kind="stable")]
        # The outer tenth at each end is left out of training, as in the release.
        self.trimmed = order[int(0.1 * len(order)) : int(0.9 * len(order))]
        if len(self.trimmed) < 20:
            raise InputError(
                f"device {name!r} has {len(finite)} measurements: meta-training HELP takes at "
                "least 25; leave the device out"
            )
        self.low, self.high = values[self.trimmed].min(), values[self.trimmed].max()
        span = max(self.high - self.low, 1e-9)
        self.scaled = (values - self.low) / span * 0.9 + 0.05
        genes = np.ascontiguousarray(table.genes)
        place = {genes[i].tobytes(): values[i] for i in finite[::-1]}
        rows = np.ascontiguousarray(references.astype(table.genes.dtype))
        self.reference = np.array([place.get(row.tobytes(), np.nan) for row in rows])
        gaps = ~np.isfinite(self.reference)
        if gaps.any():
            known = Ridge(table.space).fit_mean(table.genes[finite], values[finite])
            filled = known(references[gaps])
            self.reference[gaps] = np.clip(filled, values[finite].min(), values[finite].max())
        self.embedding = unit(self.reference)

    def reference_range(self) -> tuple[float, float]:
        """Offset and span of the trimmed pool, in units of the references' range."""
        low, high = self.reference.min(), self.reference.max()
        span = max(high - low, 1e-9)
        return (self.low - low) / span, (self.high - self.low) / span


def check_count(measurements: int, references: int) -> None:
    """Raise :class:`InputError` where measurements do not go beyond the references."""
    if measurements <= references:
        raise InputError(
            f"HELP measures {references} reference architectures before it fine-tunes: "
            f"it needs more than {references} measurements, not {measurements}"
        )


def unit(values: np.ndarray) -> np.ndarray:
    """Return values moved and scaled to 0..1."""
    span = max(values.max() - values.min(), 1e-9)
    return (values - values.min()) / span
