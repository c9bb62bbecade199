"""The front of sub-adapters: quality against operations, by any strategy of a job."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from nas.fronts.metrics import Goal, Metric
from nas.strategies import STRATEGIES, Exact, Problem
from search_spaces.errors import InputError
from search_spaces.space import Arch
from search_spaces.spaces.adapters import AdapterSpace


@dataclass(frozen=True)
class SubAdapter:
    """One that was evaluated.

    Attributes:
        arch: ranks and channels.
        quality: what ``evaluate`` gave.
        macs: multiply-accumulates of linear layers for one token.
        parameters: of the adapters.
    """

    arch: Arch
    quality: float
    macs: float
    parameters: float


def search_adapters(
    space: AdapterSpace,
    evaluate: Callable[[Arch], float],
    *,
    metric: str = "bits_per_byte",
    evaluations: int = 24,
    batch: int = 8,
    strategy: str = "evolution",
    seed: int = 0,
) -> list[SubAdapter]:
    """Evaluate sub-adapters that trade quality off against operations.

    The largest and the smallest are evaluated first.

    Args:
        space: of sub-adapters.
        evaluate: gives the metric of one.
        metric: registered name of what ``evaluate`` gives, whose direction is known.
        evaluations: in all, from 2.
        batch: asked for at once.
        strategy: registered name.
        seed: of every random draw.

    Raises:
        InputError: an unknown metric or strategy, or too few evaluations.
    """
    import nas.tasks  # noqa: F401  (registers the metrics of tasks)

    if evaluations < 2:
        raise InputError(f"evaluations={evaluations}: the largest and the smallest are two")
    goals = [Goal(Metric(metric)), Goal(Metric("macs"))]
    macs = Exact(lambda genes: space.costs(genes)["macs"])
    searcher = STRATEGIES.get(strategy)(Problem(space, goals, (), {"macs": macs}), seed=seed)
    found: list[SubAdapter] = []

    def judge(archs: list[Arch]) -> None:
        costs = space.costs(space.genes(archs))
        rows = [
            SubAdapter(arch, evaluate(arch), float(costs["macs"][i]), float(costs["parameters"][i]))
            for i, arch in enumerate(archs)
        ]
        told = [[goals[0].sign * row.quality, row.macs] for row in rows]
        searcher.tell(archs, np.array(told))
        found.extend(rows)

    judge([space.largest(), space.smallest()])
    while len(found) < evaluations:
        archs = searcher.ask(min(batch, evaluations - len(found)))
        if not archs:
            break
        judge(archs)
    return found
