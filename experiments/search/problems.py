"""Tabular search problems that can be enumerated, each with its true front.

- ``nasbench201-DEVICE``: all 15,625 cells of NAS-Bench-201. Latency is the published
  measurement of the device. No table of accuracies comes with the latencies, so the second
  objective is *not* a trained accuracy but the analytic score of :func:`cell_score`, fitted to
  the published CIFAR-100 accuracies of 500 cells.
- ``supernet-COST``: the table that ``experiments.search.supernet_table`` writes.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from experiments.search.family import mobilenet_family
from nas.fronts.metrics import Goal, Metric
from nas.fronts.pareto import hypervolume, nondominated, reference_point
from nas.strategies import Exact, Learned, Problem
from nas.strategies.surrogates import Surrogate
from search_spaces.space import Arch, SearchSpace
from search_spaces.spaces.nasbench201 import PATHS, NasBench201
from search_spaces.spaces.registry import build_space
from search_spaces.tables.table import read_table

STRENGTHS = np.array([0.0, 0.33, 0.36, 0.53, 0.19])
"""Strength of none, skip, 1x1 convolution, 3x3 convolution and pooling in :func:`cell_score`."""

DEPTH_GAIN = np.array([0.0, 0.0, 0.015, 0.05, 0.0])
"""Gain of a path for each edge of an operation."""

RATE, HIGHEST = 3.2, 73.6


@dataclass(frozen=True)
class TabularProblem:
    """A problem whose every architecture is known.

    Attributes:
        name: for results.
        space: its architectures.
        genes: (n, choices), one row an architecture of the table.
        objectives: (n, 2), minimised: first the negative accuracy, then the cost.
        goals: of the two.
        cost: genes -> cost in closed form; None where it is known by evaluation only.
        about: what the objectives are, for results.
    """

    name: str
    space: SearchSpace
    genes: np.ndarray
    objectives: np.ndarray
    goals: tuple[Goal, Goal]
    cost: Callable[[np.ndarray], np.ndarray] | None
    about: str

    def __post_init__(self) -> None:
        index = {row.tobytes(): i for i, row in enumerate(self.genes.astype(np.int64))}
        object.__setattr__(self, "_index", index)

    @property
    def reference(self) -> np.ndarray:
        """Reference point of the hypervolume: worst of the table plus a tenth of the range."""
        return reference_point(self.objectives)

    @property
    def front(self) -> np.ndarray:
        """The true front, (k, 2)."""
        return np.unique(self.objectives[nondominated(self.objectives)], axis=0)

    def rows(self, genes: np.ndarray) -> np.ndarray:
        """Return the objectives of gene rows: (n, choices) -> (n, 2)."""
        index = self._index  # type: ignore[attr-defined]
        return self.objectives[[index[row.tobytes()] for row in np.asarray(genes, np.int64)]]

    def evaluate(self, archs: Sequence[Arch]) -> np.ndarray:
        """Return the objectives of architectures: (n, 2)."""
        return self.rows(self.space.genes(archs))

    def volume(self, objectives: np.ndarray) -> float:
        """Return hypervolume as a share of the true front's."""
        reference = self.reference
        return hypervolume(objectives, reference) / hypervolume(self.front, reference)

    def problem(self, *, seed: int = 0) -> Problem:
        """Return the problem as the library's strategies see it."""
        from predictors.accuracy import AccuracyPredictor

        first, second = (str(goal.metric) for goal in self.goals)
        surrogates: dict[str, Surrogate] = {
            first: Learned(AccuracyPredictor(self.space, seed=seed)),
            second: (
                Exact(self.cost)
                if self.cost is not None
                # Costs are sums over layers, which normal scores would bend.
                else Learned(AccuracyPredictor(self.space, seed=seed + 1), warp=False)
            ),
        }
        return Problem(self.space, self.goals, surrogates=surrogates)


def cell_score(genes: np.ndarray) -> np.ndarray:
    """Return an analytic score of NAS-Bench-201 cells: (n, 6) -> (n,), 0 to 73.6.

    A path from input to output carries the geometric mean of its edges' strengths times a
    gain for its convolutions; paths add up with diminishing returns; a cell without a path
    scores 0. The constants are a least-squares fit to the published CIFAR-100 accuracies of
    the 500 cells in ``nasbench201_cifar100_candidates.csv`` (Spearman correlation with them
    0.65). It is a stand-in with interactions between edges, not an accuracy.
    """
    genes = np.asarray(genes)
    total = np.zeros(len(genes))
    for path in PATHS:
        edges = genes[:, path]
        strength = STRENGTHS[edges].prod(axis=1) ** (1 / len(path))
        total += strength * (1 + DEPTH_GAIN[edges].sum(axis=1))
    return HIGHEST * (1 - np.exp(-RATE * total))


def nasbench201(table: Path, device: str) -> TabularProblem:
    """Return all of NAS-Bench-201: the analytic score against the latency of ``device``."""
    data = read_table(table, NasBench201())
    return TabularProblem(
        name=f"nasbench201-{device}",
        space=data.space,
        genes=data.genes,
        objectives=np.column_stack([-cell_score(data.genes) / 100, data.column(device)]),
        goals=(Goal(Metric("accuracy")), Goal(Metric("latency_ms", device))),
        cost=None,
        about=f"analytic score of the cell (no accuracy); published latency of {device}",
    )


def supernet(table: Path, cost: str, *, black_box: bool = False) -> TabularProblem:
    """Return the evaluated family of a run's supernet.

    Args:
        table: written by :mod:`experiments.search.supernet_table`.
        cost: ``weights_kib`` or ``bops``.
        black_box: hide that the cost has a closed form, so that it has to be learned like
            a measured one.
    """
    full = build_space("mobilenet", preset="28x28")
    space = mobilenet_family(full)  # type: ignore[arg-type]
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    genes = space.genes(space.parse(row["arch"]) for row in rows)
    objectives = np.array([[-float(row["accuracy"]), float(row[cost])] for row in rows])
    return TabularProblem(
        name=f"supernet-{cost}" + ("-black-box" if black_box else ""),
        space=space,
        genes=genes,
        objectives=objectives,
        goals=(Goal(Metric("accuracy")), Goal(Metric(cost))),
        cost=None if black_box else lambda g: full.costs(space.full_genes(g))[cost],
        about=f"validation accuracy of inherited weights; {cost} of the plan",
    )
