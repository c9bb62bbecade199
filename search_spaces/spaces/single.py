"""The space of one architecture: what a network of its own, trained alone, is built from."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from search_spaces.planned import BlockColumn, PlannedSpace
from search_spaces.space import Arch, Choice


class SingleSpace(PlannedSpace):
    """A space that holds ``arch`` of ``base`` and nothing else.

    Its network has the layers of ``arch`` at their own sizes: no weight of another
    architecture, no transform of a larger kernel, no step of another bit-width.

    Args:
        base: the space of the architecture.
        arch: the architecture.
    """

    def __init__(self, base: PlannedSpace, arch: Arch) -> None:
        super().__init__(
            base.name,
            # An architecture has at least one choice; this one decides nothing.
            [Choice("network", (arch.id,))],
            input_channels=base.input_channels,
            outputs=base.outputs,
        )
        self.base = base
        self.dataflows = base.dataflows
        self._row = base.genes([arch])

    def resolution_column(self, genes: np.ndarray) -> np.ndarray:
        """Width of the input for gene rows, (n,) int64; the side, where it is square."""
        return np.repeat(self.base.resolution_column(self._row), len(genes))

    def height_column(self, genes: np.ndarray) -> np.ndarray:
        """Rows of the input for gene rows, (n,) int64."""
        return np.repeat(self.base.height_column(self._row), len(genes))

    def block_columns(self, genes: np.ndarray) -> list[BlockColumn]:
        """Describe the blocks of the architecture for gene rows (n, 1)."""
        row = np.repeat(self._row, len(genes), axis=0)
        return [
            replace(
                block,
                layers=tuple(c for c in block.layers if c.active.all()),
                operators=tuple(c for c in block.operators if c.active.all()),
                points=tuple(p for p in block.points if block.point_rows(p[0]).all()),
            )
            for block in self.base.block_columns(row)
            if block.active.all()
        ]
