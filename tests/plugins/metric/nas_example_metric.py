"""A metric of another package: how many layers a network has, which some runtimes pay for."""

import numpy as np

from nas.fronts.metrics import MetricKind
from search_spaces.planned import PlannedSpace


def layers(space: PlannedSpace, genes: np.ndarray) -> np.ndarray:
    """Return the layers of each gene row (n, choices): (n,)."""
    total = np.zeros(len(genes))
    for block in space.block_columns(genes):
        for column in block.layers:
            total += column.active
    return total


LAYERS = MetricKind("layers", cost=layers)
