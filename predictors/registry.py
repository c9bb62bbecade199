"""What a latency predictor is, and the registry of all of them."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from search_spaces.errors import InputError
from search_spaces.registry import Registry
from search_spaces.space import Arch, SearchSpace
from search_spaces.tables.table import LARGEST, LatencyTable


class Adapted(ABC):
    """A latency predictor that knows one device.

    Subclasses give a location and a scale; immutable, safe to share between threads.

    Attributes:
        space: the space of the architectures.
    """

    space: SearchSpace

    def declare(self, table: LatencyTable) -> None:
        """See :meth:`LatencyPredictor.declare`."""
        return None

    @abstractmethod
    def predict_genes(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation in ms of gene rows (n, choices): two (n,) arrays."""

    @abstractmethod
    def interval_genes(self, genes: np.ndarray, coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Return the central interval in ms that holds ``coverage`` (0..1) of new measurements."""

    @abstractmethod
    def probability_within_genes(self, genes: np.ndarray, budget_ms: float) -> np.ndarray:
        """Return P(latency <= ``budget_ms``) of gene rows: (n,) in 0..1."""

    def predict(self, archs: Sequence[Arch]) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation of the latency in ms: two (n,) arrays."""
        return self.predict_genes(self.space.genes(archs))

    def interval(self, archs: Sequence[Arch], coverage: float) -> tuple[np.ndarray, np.ndarray]:
        """Return low and high ends in ms of the interval of the given coverage (0..1)."""
        return self.interval_genes(self.space.genes(archs), coverage)

    def probability_within(self, archs: Sequence[Arch], budget_ms: float) -> np.ndarray:
        """Return the probability that each latency is at most ``budget_ms``: (n,)."""
        return self.probability_within_genes(self.space.genes(archs), budget_ms)


class LatencyPredictor(ABC):
    """Learns from known devices, then adapts to a new one from a few measurements.

    Args:
        space: the space of the architectures.
        seed: of everything random in :meth:`meta_fit` and the defaults of :meth:`suggest`.
    """

    name: ClassVar[str]

    def __init__(self, space: SearchSpace, *, seed: int = 0) -> None:
        self.space = space
        self.seed = seed

    @abstractmethod
    def meta_fit(
        self, table: LatencyTable, *, valid: LatencyTable | None = None
    ) -> LatencyPredictor:
        """Learn from the devices of ``table``, which may have no column; return self.

        Args:
            table: known devices; its rows are all the architectures that may be learned from.
            valid: devices to choose hyperparameters or a checkpoint by, never to learn from.
        """

    def declare(self, table: LatencyTable) -> None:
        """Learn what ``table`` declares of its architectures (MACs), whatever was measured.

        A predictor that has no use for it does nothing.
        """
        return None

    def check_use(self, table: LatencyTable, measurements: int) -> None:
        """Refuse what the predictor cannot work with, before anything takes long.

        Args:
            table: as for :meth:`meta_fit`.
            measurements: how many there will be of a new device.

        Raises:
            InputError: too little is known, or too little will be measured.
        """
        return None

    def required_genes(self) -> np.ndarray:
        """Return the architectures that every new device must measure: (n, choices), n >= 0."""
        return np.empty((0, len(self.space.choices)), dtype=np.int64)

    @abstractmethod
    def adapt_genes(self, genes: np.ndarray, latencies_ms: np.ndarray) -> Adapted:
        """Adapt to the device on which gene rows (n, choices) took ``latencies_ms`` (n,)."""

    def adapt(self, archs: Sequence[Arch], latencies_ms: Sequence[float]) -> Adapted:
        """Adapt to the device on which ``archs`` took ``latencies_ms``.

        Raises:
            InputError: no measurement, lengths that differ, or a value that is no cost.
        """
        latencies = check_measurements(len(archs), latencies_ms)
        return self.adapt_genes(self.space.genes(archs), latencies)

    def suggest_genes(self, genes: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        """Return the indices of the ``n`` pool rows to measure on a new device: (n,) int."""
        check_pool(len(genes), n)
        return rng.choice(len(genes), size=n, replace=False)

    def suggest(
        self, pool: Sequence[Arch], n: int, rng: np.random.Generator | None = None
    ) -> list[Arch]:
        """Return the ``n`` architectures of ``pool`` whose measurement teaches most.

        Raises:
            InputError: ``n`` is below 1 or above the size of the pool.
        """
        rng = np.random.default_rng(self.seed) if rng is None else rng
        return [pool[i] for i in self.suggest_genes(self.space.genes(pool), n, rng)]


class SavedPredictor(LatencyPredictor):
    """A predictor whose learned state is arrays and JSON values, as a file can hold them."""

    @abstractmethod
    def state(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """Return arrays and JSON-ready settings that :meth:`restore` takes."""

    @abstractmethod
    def restore(self, arrays: dict[str, np.ndarray], settings: dict[str, Any]) -> None:
        """Take over a state."""


LATENCY_PREDICTORS: Registry[type[LatencyPredictor]] = Registry(
    "latency predictor",
    group="nas.predictors",
    modules=(
        "predictors.transfer_gp.predictor",
        "predictors.baselines",
        "predictors.simple_baselines",
        "predictors.help",
    ),
)


def check_measurements(count: int, latencies_ms: Sequence[float] | np.ndarray) -> np.ndarray:
    """Return the latencies as float64 (n,).

    Raises:
        InputError: none, another number than architectures, or a value below 0 or not finite.
    """
    latencies = np.asarray(latencies_ms, dtype=np.float64)
    if latencies.shape != (count,):
        raise InputError(f"{count} architectures but latencies of shape {latencies.shape}")
    if count == 0:
        raise InputError("at least one measurement is needed to adapt to a device")
    bad = ~np.isfinite(latencies) | (latencies < 0) | (latencies > LARGEST)
    if bad.any():
        at = int(np.flatnonzero(bad)[0])
        raise InputError(
            f"measurement {at} is {latencies[at]}, not a latency in ms (0 to {LARGEST:g})"
        )
    return latencies


def check_coverage(coverage: float) -> None:
    """Raise InputError unless an interval can hold this share of new measurements."""
    if not 0 < coverage < 1:
        raise InputError(f"coverage {coverage} is not between 0 and 1")


def check_budget(budget_ms: float) -> None:
    """Raise InputError unless a latency can be asked to stay within the budget."""
    if not (math.isfinite(budget_ms) and budget_ms > 0):
        raise InputError(f"the budget {budget_ms} is not a cost above zero")


def check_pool(size: int, n: int) -> None:
    """Raise InputError unless ``n`` of ``size`` architectures can be chosen."""
    if not 1 <= n <= size:
        raise InputError(f"cannot choose {n} of {size} architectures to measure")


def part_of(arrays: Mapping[str, np.ndarray], prefix: str) -> dict[str, np.ndarray]:
    """Return the arrays whose names begin with ``prefix``, under the rest of their names."""
    return {k[len(prefix) :]: v for k, v in arrays.items() if k.startswith(prefix)}
