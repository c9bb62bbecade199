"""Costs that a table declares for its architectures (MACs, parameters): exact, one a row.

They are known before anything is measured, so they may be used for every architecture that the
table names, also for those that are predicted. An architecture without any gets an estimate
from its features.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from predictors.ridge import RidgeFit, fit_ridge
from search_spaces.tables.table import LatencyTable

_LARGEST_LOG = 50.0
_NO_FEATURES = ("declared", "log_declared", "more_costs", "devices", "log_devices")


class DeclaredCosts:
    """Logarithms of declared costs by architecture.

    Args:
        names: of the costs, sorted.
        genes: (n, choices) architectures, all different.
        values: (n, costs) costs above zero.
    """

    def __init__(self, names: Sequence[str], genes: np.ndarray, values: np.ndarray) -> None:
        self.names = tuple(names)
        self._genes = np.asarray(genes, dtype=np.int64)
        self._values = np.asarray(values, dtype=np.float64)
        self._place = {key: i for i, key in enumerate(gene_keys(self._genes))}
        self._estimates: list[RidgeFit] | None = None
        # Centre and spread of the features: logarithms first, then the costs themselves.
        self._scale = (np.zeros(2 * len(self.names)), np.ones(2 * len(self.names)))

    @classmethod
    def none(cls, choices: int) -> DeclaredCosts:
        """No cost of any architecture of a space with so many choices."""
        return cls((), np.zeros((0, choices)), np.zeros((0, 0)))

    @property
    def centre(self) -> np.ndarray:
        """Mean of the logarithms over the declared architectures: (costs,)."""
        return np.log(self._values).mean(axis=0)

    @property
    def spread(self) -> np.ndarray:
        """Standard deviation of the logarithms: (costs,)."""
        return np.maximum(np.log(self._values).std(axis=0), 1e-9)

    @classmethod
    def of(cls, table: LatencyTable, names: Sequence[str] | None = None) -> DeclaredCosts:
        """Take the costs of a table whose rows have all of them, above zero.

        A cost that is missing or zero for more than half of the rows, or equal for all, is
        ignored.

        Args:
            names: take these costs whatever their values are; nothing where one is not there.
        """
        columns = {n: np.asarray(v, dtype=np.float64) for n, v in sorted(table.costs.items())}
        kept = {n: v for n, v in columns.items() if _says_something(v)}
        if names is not None:
            kept = {n: columns[n] for n in names if n in columns}
            if len(kept) < len(names):
                return cls.none(table.genes.shape[1])
        matrix = np.column_stack([np.zeros((len(table), 0)), *kept.values()])
        with np.errstate(invalid="ignore"):
            whole = np.flatnonzero((np.isfinite(matrix) & (matrix > 0)).all(axis=1))
        genes = table.genes[whole]
        if not len(genes):
            return cls.none(table.genes.shape[1])
        # Declared several times, the last counts.
        _, after = np.unique(genes[::-1], axis=0, return_index=True)
        last = len(genes) - 1 - after
        return cls(tuple(kept), genes[last], matrix[whole][last])

    def __bool__(self) -> bool:
        return bool(self.names) and len(self._genes) > 0

    def and_those_of(self, other: DeclaredCosts) -> DeclaredCosts:
        """Return these with what ``other`` declares; where both do, ``other`` counts."""
        if not self or self.names != other.names:
            return self
        old = [i for i, key in enumerate(gene_keys(self._genes)) if key not in other._place]
        both = np.concatenate([self._genes[old], other._genes])
        merged = DeclaredCosts(self.names, both, np.concatenate([self._values[old], other._values]))
        merged._estimates, merged._scale = self._estimates, self._scale
        return merged

    def learn(self, blocks: Mapping[str, np.ndarray], genes: np.ndarray) -> None:
        """Learn the scale of the features, and estimates for architectures without a declaration.

        Args:
            blocks: scaled features of ``genes`` (n, choices), as for :meth:`logarithms`.
        """
        known = self._look_up(genes)
        rows = np.flatnonzero(np.isfinite(known).all(axis=1))
        x = _columns(blocks)[rows]
        self._estimates = [fit_ridge(x, y) for y in known[rows].T] if len(rows) > 2 else []
        logs = self.logarithms(genes, blocks)
        centre, spread = logs.mean(axis=0), np.maximum(logs.std(axis=0), 1e-9)
        costs = np.exp(np.minimum(logs - centre, _LARGEST_LOG))
        self._scale = (
            np.concatenate([centre, costs.mean(axis=0)]),
            np.concatenate([spread, np.maximum(costs.std(axis=0), 1e-9)]),
        )

    def features(
        self, genes: np.ndarray, blocks: Mapping[str, np.ndarray]
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return costs and log costs of gene rows, scaled: two (n, costs) arrays.

        Each column has mean 0 and mean square 1 over the architectures of :meth:`learn`.
        """
        logs = self.logarithms(genes, blocks)
        count = logs.shape[1]
        centre, spread = self._scale
        costs = np.exp(np.minimum(logs - centre[:count], _LARGEST_LOG))
        both = np.concatenate([logs, costs], axis=1)
        scaled = (both - centre) / spread
        return scaled[:, count:], scaled[:, :count]

    def logarithms(self, genes: np.ndarray, blocks: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return log costs of gene rows: (n, costs); estimated where none is declared."""
        found = self._look_up(genes)
        unknown = np.flatnonzero(~np.isfinite(found).all(axis=1))
        if unknown.size:
            x = _columns(blocks)[unknown]
            usual = np.log(self._values).mean(axis=0)
            for k in range(found.shape[1]):
                found[unknown, k] = self._estimates[k](x) if self._estimates else usual[k]
        return found

    def lacking(self, genes: np.ndarray) -> int:
        """Return how many of the gene rows have no declaration."""
        return int((~np.isfinite(self._look_up(genes)).all(axis=1)).sum())

    def arrays(self) -> dict[str, np.ndarray]:
        """Return the state, for a file."""
        out = {"genes": self._genes, "values": self._values, "scale": np.stack(self._scale)}
        for k, fit in enumerate(self._estimates or []):
            out |= {f"centre{k}": fit.centre, f"weights{k}": fit.weights}
            out[f"offset{k}"] = np.array([fit.offset])
        return out

    @classmethod
    def from_arrays(cls, names: Sequence[str], arrays: Mapping[str, np.ndarray]) -> DeclaredCosts:
        """Rebuild from what :meth:`arrays` returned."""
        costs = cls(names, arrays["genes"], arrays["values"])
        costs._scale = (arrays["scale"][0], arrays["scale"][1])
        costs._estimates = [
            RidgeFit(
                arrays[f"centre{k}"],
                arrays[f"weights{k}"],
                float(arrays[f"offset{k}"][0]),
                np.empty(0),
            )
            for k in range(len(costs.names))
            if f"centre{k}" in arrays
        ]
        return costs

    def _look_up(self, genes: np.ndarray) -> np.ndarray:
        at = np.array([self._place.get(key, -1) for key in gene_keys(genes)], dtype=np.int64)
        out = np.full((len(at), len(self.names)), np.nan)
        out[at >= 0] = np.log(self._values[at[at >= 0]])
        return out


def gene_keys(genes: np.ndarray) -> list[bytes]:
    """Return a key of each gene row, equal for equal architectures."""
    rows = np.ascontiguousarray(genes, dtype=np.int64)
    return [row.tobytes() for row in rows]


def _columns(blocks: Mapping[str, np.ndarray]) -> np.ndarray:
    names = [n for n in sorted(blocks) if n not in _NO_FEATURES]
    return np.concatenate([blocks[n] for n in names], axis=1)


def _says_something(values: np.ndarray) -> bool:
    finite = values[np.isfinite(values)]
    positive = finite[finite > 0]
    return len(positive) > len(values) / 2 and float(np.ptp(positive)) > 0
