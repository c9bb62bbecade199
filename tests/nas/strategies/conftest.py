"""A conditional space with a front that is known by enumeration or by construction."""

import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import Exact, Learned, Problem
from nas.strategies.genes import enumerate_genes
from search_spaces.space import Choice, Condition, SearchSpace

ACCURACY, WEIGHTS = Metric("accuracy"), Metric("weights_kib")


def make_space(stages=2, depth=3):
    choices = []
    for s in range(stages):
        choices.append(Choice(f"s{s}.depth", tuple(range(1, depth + 1))))
        for b in range(depth):
            when = ()
            if b:
                when = (Condition(f"s{s}.depth", frozenset(range(b + 1, depth + 1))),)
            choices.append(Choice(f"s{s}.{b}.kernel", (3, 5, 7), when))
            choices.append(Choice(f"s{s}.{b}.weight_bits", (2, 3, 4, 8), when))
    return SearchSpace("synthetic", choices)


def accuracy(space, genes):
    """More layers, larger kernels and more bits are better, with diminishing returns."""
    total = np.zeros(len(genes))
    active = space.active(genes)
    for j, choice in enumerate(space.choices):
        if choice.name.endswith("kernel"):
            bits = np.array(space.choices[j + 1].options)[genes[:, j + 1]]
            gain = np.array([1.0, 1.3, 1.4])[genes[:, j]] * (1 - 2.0 ** (1.2 - bits))
            total += active[:, j] * gain * (1 + 0.3 * (j % 5))
    return 1 - np.exp(-0.35 * total)


def weights_kib(space, genes):
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

    def __init__(self, problem):
        self.problem = problem

    def __call__(self, archs):
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


@pytest.fixture
def build():
    """``build(stages, depth, budget) -> (problem, evaluate)``."""

    def make(stages=2, depth=3, budget=None, goals=(ACCURACY, WEIGHTS), minimum=None):
        from predictors.accuracy import AccuracyPredictor

        space = make_space(stages, depth)
        constraints = [] if budget is None else [Constraint(WEIGHTS, budget)]
        if minimum is not None:
            constraints.append(Constraint(ACCURACY, minimum, upper=False))
        used = {str(m) for m in goals} | {str(c.metric) for c in constraints}
        surrogates = {
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

    return make


@pytest.fixture
def use_up():
    """Ask a strategy until its feasible region is used up; every batch before that is full."""

    def run(strategy, evaluate, batch=15):
        problem = strategy.problem
        genes = enumerate_genes(problem.space)
        region = int((problem.screen(genes, problem.screened()) <= 0).sum())
        found = 0
        while archs := strategy.ask(batch):
            found += len(archs)
            # Short only at the end: all but a few of the region has been met by then.
            assert len(archs) == batch or found > 0.95 * region
            strategy.tell(archs, *evaluate(archs))
        assert 0.95 * region < found <= region

    return run
