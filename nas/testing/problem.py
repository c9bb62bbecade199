"""A conditional space whose accuracy and size are formulas: a search in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import Exact, Learned, Problem
from nas.strategies.surrogates import Surrogate
from search_spaces.space import Arch, Choice, Condition, SearchSpace

ACCURACY, WEIGHTS = Metric("accuracy"), Metric("weights_kib")


def make_space(stages: int = 2, depth: int = 3) -> SearchSpace:
    """Return a space of stages with up to ``depth`` blocks, each with a kernel and bits."""
    choices = []
    for s in range(stages):
        choices.append(Choice(f"s{s}.depth", tuple(range(1, depth + 1))))
        for b in range(depth):
            when: tuple[Condition, ...] = ()
            if b:
                when = (Condition(f"s{s}.depth", frozenset(range(b + 1, depth + 1))),)
            choices.append(Choice(f"s{s}.{b}.kernel", (3, 5, 7), when))
            choices.append(Choice(f"s{s}.{b}.weight_bits", (2, 3, 4, 8), when))
    return SearchSpace("synthetic", choices)


def accuracy(space: SearchSpace, genes: np.ndarray) -> np.ndarray:
    """Return (n,) accuracies: more layers, larger kernels and more bits are better."""
    total = np.zeros(len(genes))
    active = space.active(genes)
    for j, choice in enumerate(space.choices):
        if choice.name.endswith("kernel"):
            bits = np.array(space.choices[j + 1].options)[genes[:, j + 1]]
            gain = np.array([1.0, 1.3, 1.4])[genes[:, j]] * (1 - 2.0 ** (1.2 - bits))
            total += active[:, j] * gain * (1 + 0.3 * (j % 5))
    return 1 - np.exp(-0.35 * total)


def weights_kib(space: SearchSpace, genes: np.ndarray) -> np.ndarray:
    """Return (n,) sizes, which grow with layers, kernels and bits."""
    total = np.zeros(len(genes))
    active = space.active(genes)
    for j, choice in enumerate(space.choices):
        if choice.name.endswith("kernel"):
            kernel = np.array(choice.options)[genes[:, j]]
            bits = np.array(space.choices[j + 1].options)[genes[:, j + 1]]
            total += active[:, j] * bits * (16 + kernel**2) / 32
    return total


class Evaluator:
    """Evaluates architectures as ``tell`` wants them."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem

    def __call__(self, archs: Sequence[Arch]) -> tuple[np.ndarray, np.ndarray]:
        """Return minimised objectives (n, goals) and violations (n, constraints)."""
        space = self.problem.space
        genes = space.genes(archs)
        metrics = {
            "accuracy": accuracy(space, genes),
            "weights_kib": weights_kib(space, genes),
        }
        objectives = np.column_stack([g.sign * metrics[str(g.metric)] for g in self.problem.goals])
        constraints = np.empty((len(archs), len(self.problem.constraints)))
        for j, c in enumerate(self.problem.constraints):
            constraints[:, j] = c.violation(metrics[str(c.metric)])
        return objectives, constraints


def make_problem(
    stages: int = 2,
    depth: int = 3,
    budget: float | None = None,
    goals: Sequence[Metric] = (ACCURACY, WEIGHTS),
    minimum: float | None = None,
) -> tuple[Problem, Evaluator]:
    """Return a problem and what evaluates its architectures.

    Args:
        stages, depth: of the space.
        budget: KiB of weights at most.
        goals: metrics to trade off.
        minimum: accuracy at least.
    """
    from predictors.accuracy import AccuracyPredictor

    space = make_space(stages, depth)
    constraints = [] if budget is None else [Constraint(WEIGHTS, budget)]
    if minimum is not None:
        constraints.append(Constraint(ACCURACY, minimum, upper=False))
    used = {str(m) for m in goals} | {str(c.metric) for c in constraints}
    surrogates: dict[str, Surrogate] = {
        "weights_kib": Exact(lambda genes: weights_kib(space, genes)),
        "accuracy": Learned(AccuracyPredictor(space, trees=10)),
    }
    problem = Problem(
        space,
        [Goal(m) for m in goals],
        constraints,
        {name: s for name, s in surrogates.items() if name in used},
    )
    return problem, Evaluator(problem)
