"""What polishing by integer programme adds to the predictor in the loop.

The networks and their tables are those of :mod:`experiments.search.evolution_vs_optimum`, but
here the search sees no sensitivities: it evaluates one allocation at a time and learns from what
comes back, as in a job. Accuracy stands in closed form for a trained network's,
``TOP * exp(-c * total sensitivity)``, with ``c`` such that 2 bits everywhere halve it; bit
operations are exact. The true front comes from one integer programme for each of many budgets.
The same seeds are run with and without ``polish``, with and without ``exchanges``. Run from the
repository::

    python -m experiments.search.polish_gain
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.search.evolution_vs_optimum import BITS, RESULTS, table_of
from nas.bits.allocation import BitTable, allocate
from nas.fronts.metrics import Goal, Metric
from nas.fronts.pareto import hypervolume
from nas.strategies import STRATEGIES, Exact, Learned, Problem
from predictors.accuracy import AccuracyPredictor
from search_spaces.atomic import write_json_atomic
from search_spaces.space import Choice, SearchSpace

COMMAND = "python -m experiments.search.polish_gain"
TOP = 0.92
EVALUATIONS = 120
AT = (24, 50, 80, 120)
FIRST, BATCH = 24, 8
LEVELS = 60
"""Budgets of the true front."""
VARIANTS: dict[str, dict[str, int]] = {
    "neither": {},
    "polish": {"polish": 8},
    "exchanges": {"exchanges": 4},
    "both": {"polish": 8, "exchanges": 4},
}


class Allocations:
    """Bit-widths of every layer of one table, against accuracy and bit operations."""

    def __init__(self, table: BitTable) -> None:
        self.table = table
        layers = len(table.layers)
        self.space = SearchSpace(
            "bits",
            [
                Choice(f"layer{k}.{of}_bits", BITS)
                for k in range(layers)
                for of in ("weight", "activation")
            ],
        )
        self._hurt = np.array(table.sensitivity)
        self._bops = np.array(table.costs["bops"])
        self._layer = np.arange(layers)
        self._rate = np.log(2.0) / self._hurt.max(axis=1).sum()

    def _total(self, values: np.ndarray, genes: np.ndarray) -> np.ndarray:
        return values[self._layer, len(BITS) * genes[:, 0::2] + genes[:, 1::2]].sum(axis=1)

    def accuracy(self, genes: np.ndarray) -> np.ndarray:
        """Return the stand-in of accuracy: (n, choices) -> (n,)."""
        return TOP * np.exp(-self._rate * self._total(self._hurt, genes))

    def bops(self, genes: np.ndarray) -> np.ndarray:
        """Return bit operations: (n, choices) -> (n,)."""
        return self._total(self._bops, genes)

    def front(self) -> tuple[np.ndarray, bool]:
        """Return points of the true front, (<= LEVELS, 2), and whether each is proven."""
        least, most = self.table.range("bops")
        points, proven = [], True
        for level in np.geomspace(least * 1.0001, most, LEVELS):
            best = allocate(self.table, {"bops": float(level)})
            proven = proven and best.optimal
            accuracy = TOP * np.exp(-self._rate * best.sensitivity)
            points.append((-accuracy, best.costs["bops"]))
        return np.array(points), proven

    def reference(self) -> np.ndarray:
        """Return the reference point: accuracy 0 and a tenth more than the most operations."""
        return np.array([0.0, 1.1 * self.table.range("bops")[1]])

    def search(self, seed: int, options: dict[str, int]) -> np.ndarray:
        """Return the objectives of EVALUATIONS allocations in their order, (n, 2)."""
        goals = (Goal(Metric("accuracy")), Goal(Metric("bops")))
        problem = Problem(
            self.space,
            goals,
            surrogates={
                "accuracy": Learned(AccuracyPredictor(self.space, seed=seed)),
                "bops": Exact(self.bops),
            },
        )
        strategy = STRATEGIES.get("predictor")(problem, seed=seed, **options)
        found = np.empty((0, 2))
        while len(found) < EVALUATIONS:
            archs = strategy.ask(FIRST if not len(found) else min(BATCH, EVALUATIONS - len(found)))
            genes = self.space.genes(archs)
            objectives = np.column_stack([-self.accuracy(genes), self.bops(genes)])
            strategy.tell(archs, objectives)
            found = np.vstack([found, objectives])
        return found


def run(seed: int, variant: str) -> dict[str, Any]:
    """Return one search's hypervolume, as a share of the true front's."""
    problem = Allocations(table_of(seed))
    front, proven = problem.front()
    reference = problem.reference()
    full = hypervolume(front, reference)
    start = time.process_time()
    found = problem.search(seed, VARIANTS[variant])
    seconds = time.process_time() - start
    return {
        "seed": seed,
        "variant": variant,
        "layers": len(problem.table.layers),
        "front_proven": proven,
        "cpu_s": round(seconds, 1),
        "share": {str(n): round(hypervolume(found[:n], reference) / full, 5) for n in AT},
    }


def main() -> None:
    """Run what the results do not hold yet and summarise."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--output", type=Path, default=RESULTS / "polish_gain.json")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    if arguments.output.exists():
        runs = json.loads(arguments.output.read_text(encoding="utf-8"))["runs"]
    done = {(r["seed"], r["variant"]) for r in runs}
    for seed in range(arguments.seeds):
        for variant in VARIANTS:
            if (seed, variant) in done:
                continue
            runs.append(run(seed, variant))
            print(runs[-1], flush=True)
            _write(arguments.output, runs)


def _write(output: Path, runs: list[dict[str, Any]]) -> None:
    by = {v: [r for r in runs if r["variant"] == v] for v in VARIANTS}
    write_json_atomic(
        output,
        {
            "command": COMMAND,
            "machine": {"processor": platform.processor(), "python": platform.python_version()},
            "versions": {p: version(p) for p in ("numpy", "scipy", "scikit-learn")},
            "evaluations": EVALUATIONS,
            "first": FIRST,
            "batch": BATCH,
            "variants": VARIANTS,
            "mean_share_of_the_true_fronts_hypervolume": {
                v: {str(n): round(float(np.mean([r["share"][str(n)] for r in of])), 4) for n in AT}
                for v, of in by.items()
                if of
            },
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
