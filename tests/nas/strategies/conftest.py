"""A conditional space with a front that is known by enumeration or by construction."""

import pytest

from nas.strategies.genes import enumerate_genes
from nas.testing.problem import make_problem


@pytest.fixture
def build():
    """``build(stages, depth, budget) -> (problem, evaluate)``."""
    return make_problem


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
