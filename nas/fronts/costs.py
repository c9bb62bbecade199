"""What follows from an architecture alone: the costs of its space, and registered metrics.

Another package registers a metric under the entry point ``nas.metrics`` with a function of
the space and the genes; from then on a job may name it as an objective or a constraint, and
the search knows it exactly, as it knows MACs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import partial

import numpy as np

from nas.fronts.metrics import METRICS, TRAINING_MEMORY
from search_spaces.planned import COST_NAMES, PlannedSpace
from search_spaces.training.memory import training_memory_kib
from search_spaces.training.update import Update


def exact_names(names: Iterable[str]) -> list[str]:
    """Return which of ``names`` follow from the architecture alone, the space's own first."""
    wanted = set(names)
    others = sorted(wanted - set(COST_NAMES))
    return [name for name in COST_NAMES if name in wanted] + [
        name for name in others if name in METRICS and METRICS.get(name).cost is not None
    ]


def exact_costs(
    space: PlannedSpace, names: Iterable[str] = (), *, training: Update | None = None
) -> Callable[[np.ndarray], Mapping[str, np.ndarray]]:
    """Return a function from gene rows (n, choices) to exact costs, each (n,) float64.

    Args:
        space: of the genes.
        names: metrics that are wanted beside the space's own; those that need an evaluation
            or a device are left out.
        training: whose memory ``training_memory_kib`` is; by default that of the last layer.
    """
    own = {
        name: cost
        for name in exact_names(names)
        if name not in COST_NAMES and (cost := METRICS.get(name).cost) is not None
    }

    if TRAINING_MEMORY in own and training is not None:
        own[TRAINING_MEMORY] = partial(training_memory_kib, update=training)

    def costs(genes: np.ndarray) -> dict[str, np.ndarray]:
        found = space.costs(genes)
        for name, cost in own.items():
            found[name] = np.asarray(cost(space, genes), dtype=np.float64)
        return found

    return costs
