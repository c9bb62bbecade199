"""Accumulators of a task's metrics over batches."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from statistics import NormalDist
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from nas.tasks.base import Task


class Score(ABC):
    """Adds batches up and gives the metrics over all of them."""

    @abstractmethod
    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Add a batch. outputs: (batch, units); targets: (batch, ...)."""

    @abstractmethod
    def values(self) -> dict[str, float]:
        """Return the task's metric and its further metrics by name.

        Raises:
            ValueError: nothing was added.
        """

    def by_class(self) -> list[float] | None:
        """Return the metric of each class, label or output, NaN without examples; None for none."""
        return None

    def limit(self, total: int, risk: float) -> float | None:
        """Return the best value of the metric on ``total`` examples that is still plausible.

        Args:
            total: examples altogether, of which those added are a random sample.
            risk: probability, in (0, 1), that the true value is better than the limit.

        Returns:
            None for a metric of which a part of the examples says nothing certain.
        """
        return None


class MeanScore(Score):
    """A metric that is a function of the mean of one term an example.

    Args:
        task: gives ``metric`` (or ``terms``), ``finish``, and ``per_class`` where it has classes.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self.total = self.weight = 0.0
        self._squares: float | None = 0.0
        self._classes: tuple[Tensor, Tensor] | None = None

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        part, weight = self.task.metric(outputs, targets)
        self.total, self.weight = self.total + part, self.weight + weight
        if self.task.has_classes:
            right, count = self.task.per_class(outputs, targets)
            before = self._classes or (0.0, 0.0)
            self._classes = (before[0] + right, before[1] + count)
        else:
            self._add_squares(outputs, targets)

    def values(self) -> dict[str, float]:
        """See :meth:`Score.values`."""
        if self.weight == 0:
            raise ValueError("there is nothing to evaluate: the batches are empty")
        return {self.task.metric_name: self.task.finish(self.total / self.weight)}

    def by_class(self) -> list[float] | None:
        """See :meth:`Score.by_class`."""
        if self._classes is None:
            return None
        right, count = self._classes
        return [
            r / n if n else math.nan for r, n in zip(right.tolist(), count.tolist(), strict=True)
        ]

    def limit(self, total: int, risk: float) -> float | None:
        """See :meth:`Score.limit`: exact for right answers, else normal, of a finite set."""
        if self._classes is not None:
            from nas.stages.early_stopping import accuracy_upper_limit

            return accuracy_upper_limit(round(self.total), round(self.weight), total, risk=risk)
        if self._squares is None or self.weight < 2:
            return None
        mean = self.total / self.weight
        variance = max(0.0, self._squares / self.weight - mean**2) * self.weight / (self.weight - 1)
        left = max(0.0, (total - self.weight) / max(1, total - 1))
        margin = NormalDist().inv_cdf(1 - risk) * math.sqrt(variance / self.weight * left)
        ends = [self.task.finish(mean - margin), self.task.finish(mean + margin)]
        return max(ends) if self.task.higher_is_better else min(ends)

    def _add_squares(self, outputs: Tensor, targets: Tensor) -> None:
        if self._squares is None:
            return
        try:
            terms = self.task.terms(outputs, targets)
        except NotImplementedError:
            # A plug-in that gives sums alone says nothing of their spread.
            self._squares = None
            return
        self._squares += float((terms.double() ** 2).sum())


class WholeScore(Score):
    """Metrics that need all outputs at once, such as rank statistics.

    Args:
        metrics: gives every metric by name from outputs (n, units) and targets (n, ...).
        by_class: gives the metric of each class, if there are any.
    """

    def __init__(
        self,
        metrics: Callable[[np.ndarray, np.ndarray], dict[str, float]],
        *,
        by_class: Callable[[np.ndarray, np.ndarray], list[float]] | None = None,
    ) -> None:
        self._metrics, self._by_class = metrics, by_class
        self._outputs: list[np.ndarray] = []
        self._targets: list[np.ndarray] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        self._outputs.append(outputs.detach().float().cpu().numpy())
        self._targets.append(targets.detach().cpu().numpy())

    def values(self) -> dict[str, float]:
        """See :meth:`Score.values`."""
        return self._metrics(*self._whole())

    def by_class(self) -> list[float] | None:
        """See :meth:`Score.by_class`."""
        return None if self._by_class is None else self._by_class(*self._whole())

    def _whole(self) -> tuple[np.ndarray, np.ndarray]:
        if not self._outputs:
            raise ValueError("there is nothing to evaluate: the batches are empty")
        return np.concatenate(self._outputs), np.concatenate(self._targets)
