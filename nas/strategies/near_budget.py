"""Candidates that use a budget well: within it, not far below, and good by the predictor."""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from nas.strategies.feasible import find_feasible
from nas.strategies.problem import Problem
from search_spaces.errors import InfeasibleError
from search_spaces.space import Arch

_LOOKED_AT = 500
"""Architectures from which those that the predictor likes are taken."""

_OPTIMISM = 0.5
"""Standard deviations by which a predicted value is bettered, as in the search itself."""


def near_budget(
    problem: Problem, count: int, rng: np.random.Generator, *, exclude: Collection[Arch] = ()
) -> list[Arch]:
    """Return up to ``count`` architectures that keep the constraints of ``problem``.

    Of those found, the best by the problem's first goal. None where nothing keeps the constraints.

    Args:
        problem: its constraints bound what is used of a budget from both sides; its surrogates
            are fitted.
        count: wanted.
        rng: of every draw.
        exclude: that are known already.
    """
    try:
        genes = find_feasible(problem, _LOOKED_AT, rng)
    except InfeasibleError:
        return []
    judged = problem.judge(genes)
    order = np.argsort(judged.objectives[:, 0] - _OPTIMISM * judged.std[:, 0], kind="stable")
    known = set(exclude)
    return [arch for arch in problem.space.decode(genes[order]) if arch not in known][:count]
