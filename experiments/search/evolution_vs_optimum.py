"""Evolution against the integer programme on bit allocation, both on the same tables.

Layers and costs are those of networks of the 28x28 space. A layer's sensitivity is the noise
power of uniform quantisers of its weights and activations (a quarter for each bit more) times
factors drawn by seed, log-normal, so tables are as uneven as measured ones; they are not
measured. The integer programme solves each (network, budget) to a proven optimum; evolution,
the library's own inner loop with one objective and both budgets as constraints, judges as many
candidates as it is told by the same exact table. Run from the repository::

    python -m experiments.search.evolution_vs_optimum
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

from experiments.results_index import record_claim
from nas.allocation import BitTable, allocate
from nas.constraints import Constraint, Goal, Metric
from nas.strategies import Exact, Problem
from nas.strategies.genes import sample_spread, unique_rows
from nas.strategies.inner import evolve
from search_spaces.atomic import write_json_atomic
from search_spaces.space import Choice, SearchSpace
from search_spaces.spaces import build_space

RESULTS = Path(__file__).parents[1] / "results" / "search"
COMMAND = "python -m experiments.search.evolution_vs_optimum"
BITS = (2, 3, 4, 8)
SHARES = (0.35, 0.5, 0.7)
GAP = 0.005


def table_of(seed: int) -> BitTable:
    """Return sensitivities and costs of a random network of the 28x28 space.

    Weights and activations have bits of their own, so a network of L layers has 2 L decisions.
    """
    rng = np.random.default_rng(seed)
    space = build_space("mobilenet", preset="28x28")
    plan = space.plan(space.largest() if seed == 0 else space.sample(rng))
    layers = [layer for layer in plan.layers() if layer.weight_count]
    options = [(w, a) for w in BITS for a in BITS]
    sensitivity, kib, bops = [], [], []
    for layer in layers:
        # Noise power of a uniform quantiser falls fourfold a bit; layers differ in how much
        # of it reaches the output, weights and activations apart.
        weight, activation = np.exp(rng.normal(0.0, 1.2, size=2))
        sensitivity.append([weight * 4.0**-w + activation * 4.0**-a for w, a in options])
        kib.append([layer.weight_count * w / 8192 for w, _ in options])
        bops.append([float(layer.macs) * w * a for w, a in options])
    return BitTable.of(
        [f"layer {k}" for k in range(len(layers))],
        [options] * len(layers),
        sensitivity,
        {"weights_kib": kib, "bops": bops},
    )


def evolution(
    table: BitTable, budgets: dict[str, float], *, seed: int, candidates: int, population: int
) -> tuple[float, float, list[tuple[int, float]]]:
    """Return the best total within the budgets, seconds, and (candidates, best) on the way."""
    start = time.perf_counter()
    layers = len(table.layers)
    # Bits of weights and of activations are choices of their own, as in the spaces.
    space = SearchSpace(
        "bits", [Choice(f"{k}.{of}", BITS) for k in range(layers) for of in ("w", "a")]
    )
    hurt = np.array(table.sensitivity)
    cost = {name: np.array(table.costs[name]) for name in budgets}
    layer = np.arange(layers)

    def total(values: np.ndarray, genes: np.ndarray) -> np.ndarray:
        return values[layer, len(BITS) * genes[:, 0::2] + genes[:, 1::2]].sum(axis=1)

    # Objectives are registered metrics; this one stands for the total sensitivity.
    goal = Metric("parameters")
    surrogates = {name: Exact(lambda g, v=values: total(v, g)) for name, values in cost.items()}
    surrogates[str(goal)] = Exact(lambda g: total(hurt, g))
    constraints = [Constraint(Metric(name), bound) for name, bound in budgets.items()]
    problem = Problem(space, [Goal(goal)], constraints, surrogates)
    rng = np.random.default_rng(seed)
    rows = sample_spread(space, rng, population)
    current = problem.judge(rows[unique_rows(rows)])
    spent, history = len(current.genes), []
    while spent < candidates:
        current, _ = evolve(
            space, problem.judge, current, rng, population=population, generations=10
        )
        spent += 10 * population
        within = (current.constraints <= 0).all(axis=1)
        best = float(current.objectives[within].min()) if within.any() else np.inf
        history.append((spent, best))
    return best, time.perf_counter() - start, history


def main() -> None:
    """Run every problem, write the results and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--population", type=int, default=200)
    parser.add_argument("--output", type=Path, default=RESULTS / "evolution_vs_optimum.json")
    arguments = parser.parse_args()
    done: list[dict[str, Any]] = []
    if arguments.output.exists():
        before = json.loads(arguments.output.read_text(encoding="utf-8"))
        same = before["candidates"] == arguments.candidates
        done = before["runs"] if same and before["population"] == arguments.population else []
    known = {(r["seed"], r["share"]) for r in done}
    for seed in range(arguments.seeds):
        for share in SHARES:
            if (seed, share) in known:
                continue
            table = table_of(seed)
            budgets = {name: share * table.range(name)[1] for name in ("weights_kib", "bops")}
            optimum = allocate(table, budgets)
            found, seconds, history = evolution(
                table,
                budgets,
                seed=seed,
                candidates=arguments.candidates,
                population=arguments.population,
            )
            gap = found / optimum.sensitivity - 1.0
            reached = [n for n, best in history if best <= (1 + GAP) * optimum.sensitivity]
            done.append(
                {
                    "seed": seed,
                    "share": share,
                    "layers": len(table.layers),
                    "optimum": optimum.sensitivity,
                    "proven": optimum.optimal,
                    "programme_s": optimum.seconds,
                    "evolution": found,
                    "gap": gap,
                    "evolution_s": seconds,
                    "candidates_to_half_a_percent": reached[0] if reached else None,
                }
            )
            print(f"{seed} {share}: gap {gap:.3%}, {optimum.seconds:.3f} s and {seconds:.1f} s")
            _write(arguments, done)
    gaps = [r["gap"] for r in done]
    record_claim(
        "search.evolution_vs_optimum",
        {
            "median_gap": float(np.median(gaps)),
            "largest_gap": max(gaps),
            "within_half_a_percent": sum(g <= GAP for g in gaps) / len(gaps),
            "programme_s": float(np.median([r["programme_s"] for r in done])),
            "evolution_s": float(np.median([r["evolution_s"] for r in done])),
            "problems": len(gaps),
        },
        GAP,
        max(gaps) <= GAP and all(r["proven"] for r in done) and arguments.seeds >= 10,
        f"experiments/results/search/{arguments.output.name}",
        COMMAND,
    )


def _write(arguments: argparse.Namespace, runs: list[dict[str, Any]]) -> None:
    write_json_atomic(
        arguments.output,
        {
            "command": COMMAND,
            "machine": {"processor": platform.processor(), "python": platform.python_version()},
            "versions": {p: version(p) for p in ("numpy", "scipy")},
            "candidates": arguments.candidates,
            "population": arguments.population,
            "budgets": "share of the largest size and of the most bit operations",
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
