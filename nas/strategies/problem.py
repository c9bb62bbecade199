"""What is searched: a space, objectives, constraints, and a surrogate for each metric."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nas.fronts.metrics import Constraint, Goal, infeasible
from nas.strategies.surrogates import Surrogate
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.space import SearchSpace


@dataclass(frozen=True)
class Judged:
    """Gene rows with what the surrogates say about them.

    Attributes:
        genes: (n, choices) int.
        objectives: means, minimised, (n, m).
        std: of the objectives, (n, m).
        constraints: violations, ``<= 0`` feasible, (n, k).
    """

    genes: np.ndarray
    objectives: np.ndarray
    std: np.ndarray
    constraints: np.ndarray

    def take(self, rows: np.ndarray) -> Judged:
        """Return the given rows."""
        return Judged(
            self.genes[rows], self.objectives[rows], self.std[rows], self.constraints[rows]
        )


def join(parts: list[Judged]) -> Judged:
    """Return the rows of all parts, in order."""
    return Judged(
        np.vstack([p.genes for p in parts]),
        np.vstack([p.objectives for p in parts]),
        np.vstack([p.std for p in parts]),
        np.vstack([p.constraints for p in parts]),
    )


class Problem:
    """A search problem in the order every ``tell`` uses.

    Args:
        space: the architectures.
        goals: objectives; column i of ``objectives`` in ``tell`` is
            ``goals[i].sign * value``.
        constraints: column j of ``constraints`` in ``tell`` is
            ``constraints[j].violation(value)``.
        surrogates: by ``str(metric)``; a metric that is both objective and constraint has
            one. ``random`` and ``evolution`` use those that are there to keep to the
            feasible region, ``predictor`` needs one for every metric.

    Raises:
        InputError: no objective, one twice, two constraints of one name, or a surrogate
            for a metric that is neither objective nor constraint.
    """

    def __init__(
        self,
        space: SearchSpace,
        goals: Sequence[Goal],
        constraints: Sequence[Constraint] = (),
        surrogates: Mapping[str, Surrogate] | None = None,
    ) -> None:
        self.space = space
        self.goals = tuple(goals)
        self.constraints = tuple(constraints)
        self.surrogates = dict(surrogates or {})
        if not self.goals:
            raise InputError("a search needs at least one objective")
        for what, names in (
            ("objective", [str(g.metric) for g in self.goals]),
            ("constraint", [c.name for c in self.constraints]),
        ):
            twice = {name for name in names if names.count(name) > 1}
            if twice:
                raise InputError(f"{what} {min(twice)!r} is given more than once")
        used = self.metrics
        for name in self.surrogates:
            if name not in used:
                raise InputError(
                    f"a surrogate is given for {name!r}, which is neither objective nor "
                    f"constraint (these are: {', '.join(used)})"
                )

    @property
    def metrics(self) -> tuple[str, ...]:
        """Names of the metrics of goals and constraints, each once."""
        names = [str(g.metric) for g in self.goals] + [str(c.metric) for c in self.constraints]
        return tuple(dict.fromkeys(names))

    def judge(self, genes: np.ndarray) -> Judged:
        """Ask the surrogates about gene rows; each metric is predicted once.

        Raises:
            InputError: a metric has no surrogate.
        """
        predicted = self._predict(genes, self.metrics)
        goals = [(g.sign, *predicted[str(g.metric)]) for g in self.goals]
        return Judged(
            genes=genes,
            objectives=np.column_stack([sign * mean for sign, mean, _ in goals]),
            std=np.column_stack([std for _, _, std in goals]),
            constraints=self._violations(predicted, self.constraints, len(genes)),
        )

    def known_objectives(self, genes: np.ndarray, columns: Sequence[int]) -> np.ndarray:
        """Return the predicted objectives of gene rows: (n, m), NaN but in ``columns``."""
        predicted = self._predict(genes, dict.fromkeys(str(self.goals[c].metric) for c in columns))
        found = np.full((len(genes), len(self.goals)), np.nan)
        for column in columns:
            goal = self.goals[column]
            found[:, column] = goal.sign * predicted[str(goal.metric)][0]
        return found

    def screened(self, *, exact_only: bool = False, learned: bool = False) -> tuple[int, ...]:
        """Return the constraints that can be judged before evaluating anything.

        Args:
            exact_only: leave out predictions.
            learned: include surrogates that the strategy fits itself (they must be fitted).
        """
        out = []
        for i, constraint in enumerate(self.constraints):
            surrogate = self.surrogates.get(str(constraint.metric))
            if surrogate is None:
                continue
            if surrogate.exact or (not exact_only and (learned or not hasattr(surrogate, "fit"))):
                out.append(i)
        return tuple(out)

    def screen(self, genes: np.ndarray, which: Sequence[int]) -> np.ndarray:
        """Return violations of the constraints ``which`` by surrogate: (n, len(which))."""
        chosen = [self.constraints[i] for i in which]
        predicted = self._predict(genes, dict.fromkeys(str(c.metric) for c in chosen))
        return self._violations(predicted, chosen, len(genes))

    def infeasible(self, row: np.ndarray, which: Sequence[int]) -> InfeasibleError:
        """Return the error that names gene row ``row`` (choices,) as the closest found."""
        chosen = [self.constraints[i] for i in which]
        predicted = self._predict(row[None], dict.fromkeys(str(c.metric) for c in chosen))
        values = [float(predicted[str(c.metric)][0][0]) for c in chosen]
        return infeasible(chosen, values, str(self.space.decode(row[None])[0]))

    def values(self, metric: str, objectives: np.ndarray, constraints: np.ndarray) -> np.ndarray:
        """Recover a metric's values from what was told: (n, m), (n, k) -> (n,)."""
        for i, goal in enumerate(self.goals):
            if str(goal.metric) == metric:
                return goal.sign * objectives[:, i]
        for j, constraint in enumerate(self.constraints):
            if str(constraint.metric) == metric:
                return constraint.value(constraints[:, j])
        raise InputError(f"{metric!r} is neither objective nor constraint")

    def _predict(
        self, genes: np.ndarray, metrics: Sequence[str] | Mapping[str, None]
    ) -> dict[str, tuple[np.ndarray, np.ndarray]]:
        missing = [name for name in metrics if name not in self.surrogates]
        if missing:
            raise InputError(f"no surrogate is given for {', '.join(missing)}")
        predicted = {name: self.surrogates[name].predict(genes) for name in metrics}
        for name, (mean, std) in predicted.items():
            # NaN would win or lose every comparison silently.
            if not (np.isfinite(mean).all() and np.isfinite(std).all()):
                raise InputError(f"the surrogate of {name} returned a value that is not finite")
        return predicted

    @staticmethod
    def _violations(
        predicted: Mapping[str, tuple[np.ndarray, np.ndarray]],
        constraints: Sequence[Constraint],
        n: int,
    ) -> np.ndarray:
        out = np.empty((n, len(constraints)))
        for j, constraint in enumerate(constraints):
            out[:, j] = constraint.violation(*predicted[str(constraint.metric)])
        return out
