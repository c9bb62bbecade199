"""Where the search takes a metric of an unevaluated architecture from.

A surrogate maps gene rows to a mean and a standard deviation. There are three kinds:

- :class:`Exact`: a closed form (packed KiB, mean bits, MACs). Candidates that miss a bound
  on it are never proposed.
- :class:`Supplied`: somebody else's prediction (latency on a device), refitted by its
  owner between rounds; the search only reads it.
- :class:`Learned`: refitted by the search itself from what it is told (accuracy).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping
from typing import Protocol, runtime_checkable

import numpy as np

from nas.strategies.warping import NormalScores


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

    def fit(self, genes: np.ndarray, values: np.ndarray) -> object:
        """Learn from genes (n, choices) and finite values (n,)."""
        ...

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the mean and the standard deviation, (n,) each, of genes (n, choices)."""
        ...


class Exact:
    """A metric in closed form. ``function``: (n, choices) int -> (n,) float."""

    exact = True

    def __init__(self, function: Callable[[np.ndarray], np.ndarray]) -> None:
        self._function = function

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return the values (n,) of genes (n, choices), and deviations of 0."""
        values = np.asarray(self._function(genes), dtype=float)
        return values, np.zeros(len(values))


class Supplied:
    """A prediction owned by the caller. ``function``: genes -> (mean (n,), std (n,))."""

    exact = False

    def __init__(self, function: Callable[[np.ndarray], tuple[np.ndarray, np.ndarray]]) -> None:
        self._function = function

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, (n,) each, of genes (n, choices)."""
        mean, std = self._function(genes)
        return np.asarray(mean, dtype=float), np.asarray(std, dtype=float)


class Learned:
    """A model that the strategy refits after each round. Undefined values are left out.

    Args:
        model: of the metric.
        warp: fit a model to normal scores (:mod:`nas.strategies.warping`) and translate its
            predictions back: the mean that comes back is the median of the prediction, the
            standard deviation half the distance between its 16th and 84th percentile. None
            decides by itself: scores where they order left-out values clearly better
            than the raw values do. Needs a model that says what it would have predicted for each
            evaluation without it (``left_out``); one that does not gets raw values. The
            choice is made again whenever a quarter more evaluations are there.
    """

    exact = False

    def __init__(self, model: Model, *, warp: bool | None = None) -> None:
        self._raw = model
        self._on_scores = copy.deepcopy(model) if warp is None else model
        self._warp = warp
        self._use_scores = bool(warp)
        self._decided_at = 0
        self._scores: NormalScores | None = None
        self._fitted = np.empty(0)

    @property
    def model(self) -> Model:
        """The model that predicts, fitted to values or to their normal scores."""
        return self._raw if self._scores is None else self._on_scores

    def fit(self, genes: np.ndarray, values: np.ndarray) -> None:
        """Fit the model to genes (n, choices) and values (n,), some of which may be undefined."""
        known = np.isfinite(values)
        genes, values = genes[known], values[known]
        # Equal values have one score, which a model cannot learn either.
        scores = NormalScores(values) if len(np.unique(values)) > 1 else None
        decide = (
            self._warp is None
            and hasattr(type(self._raw), "left_out")
            and scores is not None
            and len(values) >= _DECIDE_AGAIN * self._decided_at
        )
        if decide or not self._use_scores or scores is None:
            self._raw.fit(genes, values)
        if scores is not None and (decide or self._use_scores):
            self._on_scores.fit(genes, scores.scores(values))
        if decide:
            self._decided_at = len(values)
            gain = _order(self._on_scores, values) - _order(self._raw, values)
            self._use_scores = gain > _CLEARLY
        self._scores = scores if self._use_scores else None
        self._fitted = values

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation, (n,) each, in the unit of the values."""
        mean, std = self.model.predict(genes)
        if self._scores is None:
            return mean, std
        high, low = self._scores.values(mean + std), self._scores.values(mean - std)
        return self._scores.values(mean), (high - low) / 2

    def left_out(self) -> tuple[np.ndarray, np.ndarray] | None:
        """Return fitted values and what they were predicted as without them, (n,) each.

        None before the first fit, and where the model does not say.
        """
        predicted = getattr(self.model, "left_out", None) if len(self._fitted) else None
        if predicted is None:
            return None
        return self._fitted, predicted if self._scores is None else self._scores.values(predicted)


_DECIDE_AGAIN = 1.25
"""Growth of the number of evaluations after which values and scores are compared again."""

_CLEARLY = 0.05
"""Kendall correlation by which scores must be better than values: about the noise of its
estimate from a few dozen evaluations."""


def _order(model: Model, values: np.ndarray) -> float:
    """Return how well left-out predictions order the values (Kendall's tau)."""
    from scipy.stats import kendalltau

    from predictors.rank_correlation import rank_correlation

    tau = rank_correlation(kendalltau, model.left_out, values)  # type: ignore[attr-defined]
    return -1.0 if tau is None else tau


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
