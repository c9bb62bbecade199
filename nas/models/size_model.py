"""The bytes of a model file before it is written.

A file holds the packed weights and, for each layer, a description whose length hardly depends
on the layer. So its size is a line in both, fitted to the files that were written.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from search_spaces.planned import PlannedSpace
from search_spaces.space import Arch


class FileSizes:
    """Predicts ``size_kib`` of architectures from files already exported.

    Args:
        space: of the architectures.
    """

    def __init__(self, space: PlannedSpace) -> None:
        self._space = space
        self._weights = np.zeros(3)
        self._std = 0.0

    def fit(self, sizes_kib: Mapping[Arch, float]) -> None:
        """Learn from the sizes of files, in KiB; at least one."""
        archs = list(sizes_kib)
        features = self._features(self._space.genes(archs))
        values = np.array([sizes_kib[arch] for arch in archs])
        # Ridge towards "the packed weights and nothing else": few files leave directions open.
        prior = np.array([1.0, 0.0, 0.0])
        scale = np.maximum(np.abs(features).max(axis=0), 1e-9)
        scaled = features / scale
        gram = scaled.T @ scaled + 1e-6 * np.eye(3)
        self._weights = (
            prior + np.linalg.solve(gram, scaled.T @ (values - features @ prior)) / scale
        )
        residuals = values - features @ self._weights
        freedom = max(1, len(values) - 3)
        self._std = float(np.sqrt((residuals**2).sum() / freedom))

    def predict(self, genes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and standard deviation in KiB for gene rows: (n, choices) -> 2 x (n,)."""
        mean = self._features(genes) @ self._weights
        return mean, np.full(len(mean), self._std)

    def _features(self, genes: np.ndarray) -> np.ndarray:
        layers = np.zeros(len(genes))
        for block in self._space.block_columns(genes):
            for column in block.layers:
                layers += column.active
        packed = np.asarray(self._space.costs(genes)["weights_kib"], dtype=float)
        return np.column_stack([packed, layers, np.ones(len(genes))])
