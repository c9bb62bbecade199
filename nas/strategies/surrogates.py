"""Where the search takes a metric of an unevaluated architecture from.

A surrogate maps gene rows to a mean and a standard deviation. There are three kinds:

- :class:`Exact`: a closed form (packed KiB, mean bits, MACs). Candidates that miss a bound
  on it are never proposed.
- :class:`Supplied`: somebody else's prediction (latency on a device), refitted by its
  owner between rounds; the search only reads it.
- :class:`Learned`: refitted by the search itself from what it is told (accuracy).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np


class Surrogate(Protocol):
    """Predicts one metric.

    ``exact`` says whether the mean is the truth.
    """

    exact: bool

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation in the metric's unit.

        Args:
            genes: canonical rows, (n, choices) int.

        Returns:
            two float arrays (n,); the second is zero where the surrogate is exact.
        """
        ...


@runtime_checkable
class Refitted(Protocol):
    """A surrogate that the strategy refits from the real evaluations it is told."""

    def fit(self, genes: np.ndarray, values: np.ndarray) -> None:
        """Learn from all evaluations so far: (n, choices) int, (n,) float."""
        ...


class Model(Protocol):
    """What :class:`Learned` needs: ``predictors.accuracy.AccuracyPredictor`` is one."""

    def fit(self, genes: np.ndarray, values: np.ndarray) -> object: ...

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]: ...


class Exact:
    """A metric in closed form. ``function``: (n, choices) int -> (n,) float."""

    exact = True

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function = function

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        values = np.asarray(self._function(genes), dtype=float)
        return values, np.zeros(len(values))


class Supplied:
    """A prediction owned by the caller. ``function``: genes -> (mean (n,), std (n,))."""

    exact = False

    def __init__(self, function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
        self._function = function

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean, std = self._function(genes)
        return np.asarray(mean, dtype=float), np.asarray(std, dtype=float)


class Learned:
    """A model that the strategy refits after each round. Undefined values are left out."""

    exact = False

    def __init__(self, model: Model) -> None:
        self.model = model

    def fit(self, genes: np.ndarray, values: np.ndarray) -> None:
        known = np.isfinite(values)
        self.model.fit(genes[known], values[known])

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return self.model.predict(genes)


def cost_surrogates(
    costs: Callable[[np.ndarray], Mapping[str, np.ndarray]], metrics: Iterable[str]
) -> dict[str, Exact]:
    """Return an exact surrogate for each metric that one function works out together.

    Args:
        costs: genes (n, choices) -> metric name -> (n,), for instance
            ``PlannedSpace.costs``. It is called once for each matrix, not once a metric.
        metrics: the names wanted.
    """
    last: list[tuple[np.ndarray, Mapping[str, np.ndarray]]] = []

    def lookup(name: str) -> Callable[[np.ndarray], np.ndarray]:
        def of(genes: np.ndarray) -> np.ndarray:
            # The very same array object: a judged matrix is never changed in place.
            if not last or last[0][0] is not genes:
                last[:] = [(genes, costs(genes))]
            return last[0][1][name]

        return of

    return {name: Exact(lookup(name)) for name in metrics}
