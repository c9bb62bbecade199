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
from nas.bits.allocation import BitTable, allocate
from nas.fronts.metrics import Constraint, Goal, Metric
from nas.strategies import Exact, Problem
from nas.strategies.genes import sample_spread, unique_rows
from nas.strategies.inner import EXCHANGE_EVERY, evolve
from nas.strategies.problem import Judged
from search_spaces.atomic import write_json_atomic
from search_spaces.space import Choice, SearchSpace
from search_spaces.spaces.registry import build_space

RESULTS = Path(__file__).parents[1] / "results" / "search"
COMMAND = "python -m experiments.search.evolution_vs_optimum"
BITS = (2, 3, 4, 8)
SHARES = (0.35, 0.5, 0.7)
GAP = 0.005
EXCHANGES = 4
SETTINGS = ("candidates", "population", "exchanges")


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
    table: BitTable,
    budgets: dict[str, float],
    *,
    seed: int,
    candidates: int,
    population: int,
    exchanges: int,
) -> tuple[float, float, list[tuple[int, float, float]]]:
    """Return the best total within the budgets, seconds, and how it came to be.

    The last is a list of (candidates, seconds, best so far).
    """
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
    spent = 0

    def judge(genes: np.ndarray) -> Judged:
        nonlocal spent
        spent += len(genes)
        return problem.judge(genes)

    rng = np.random.default_rng(seed)
    rows = sample_spread(space, rng, population)
    current = judge(rows[unique_rows(rows)])
    history = []
    while spent < candidates:
        current, _ = evolve(
            space,
            judge,
            current,
            rng,
            population=population,
            generations=EXCHANGE_EVERY,
            exchanges=exchanges,
        )
        within = (current.constraints <= 0).all(axis=1)
        best = float(current.objectives[within].min()) if within.any() else np.inf
        history.append((spent, time.perf_counter() - start, best))
    return best, time.perf_counter() - start, history


def main() -> None:
    """Run every problem, write the results and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--candidates", type=int, default=100_000)
    parser.add_argument("--population", type=int, default=200)
    parser.add_argument("--exchanges", type=int, default=EXCHANGES, help="per tenth generation")
    parser.add_argument("--output", type=Path, default=RESULTS / "evolution_vs_optimum.json")
    arguments = parser.parse_args()
    settings = {name: getattr(arguments, name) for name in SETTINGS}
    done: list[dict[str, Any]] = []
    if arguments.output.exists():
        before = json.loads(arguments.output.read_text(encoding="utf-8"))
        if {name: before.get(name) for name in SETTINGS} == settings:
            done = before["runs"]
    known = {(r["seed"], r["share"]) for r in done}
    for seed in range(arguments.seeds):
        for share in SHARES:
            if (seed, share) in known:
                continue
            run = _problem(seed, share, settings)
            done.append(run)
            print(
                f"{seed} {share}: gap {run['gap']:.3%} ({run['gap_without_exchanges']:.3%} without "
                f"exchanges), {run['programme_s']:.3f} s and {run['evolution_s']:.1f} s"
            )
            _write(arguments.output, settings, done)
    gaps = [r["gap"] for r in done]
    record_claim(
        "search.evolution_vs_optimum",
        {
            "median_gap": float(np.median(gaps)),
            "largest_gap": max(gaps),
            "within_half_a_percent": sum(g <= GAP for g in gaps) / len(gaps),
            "programme_s": float(np.median([r["programme_s"] for r in done])),
            "evolution_s": float(np.median([r["evolution_s"] for r in done])),
            "evolution_s_to_half_a_percent": float(
                np.median([r["evolution_s_to_half_a_percent"] or np.inf for r in done])
            ),
            "within_half_a_percent_without_exchanges": sum(
                r["gap_without_exchanges"] <= GAP for r in done
            )
            / len(gaps),
            "problems": len(gaps),
        },
        GAP,
        max(gaps) <= GAP and all(r["proven"] for r in done) and arguments.seeds >= 10,
        f"experiments/results/search/{arguments.output.name}",
        COMMAND,
    )


def _problem(seed: int, share: float, settings: dict[str, int]) -> dict[str, Any]:
    """Solve one problem both ways."""
    table = table_of(seed)
    budgets = {name: share * table.range(name)[1] for name in ("weights_kib", "bops")}
    optimum = allocate(table, budgets)
    found, seconds, history = evolution(table, budgets, seed=seed, **settings)
    plain, _, _ = evolution(table, budgets, seed=seed, **{**settings, "exchanges": 0})
    reached = [
        (spent, after) for spent, after, best in history if best <= (1 + GAP) * optimum.sensitivity
    ]
    spent, after = reached[0] if reached else (None, None)
    return {
        "seed": seed,
        "share": share,
        "layers": len(table.layers),
        "optimum": optimum.sensitivity,
        "proven": optimum.optimal,
        "programme_s": optimum.seconds,
        "evolution": found,
        "gap": found / optimum.sensitivity - 1.0,
        "gap_without_exchanges": plain / optimum.sensitivity - 1.0,
        "evolution_s": seconds,
        "evolution_s_to_half_a_percent": after,
        "candidates_to_half_a_percent": spent,
    }


def _write(output: Path, settings: dict[str, int], runs: list[dict[str, Any]]) -> None:
    write_json_atomic(
        output,
        {
            "command": COMMAND,
            "machine": {"processor": platform.processor(), "python": platform.python_version()},
            "versions": {p: version(p) for p in ("numpy", "scipy")},
            **settings,
            "budgets": "share of the largest size and of the most bit operations",
            "runs": runs,
        },
    )


if __name__ == "__main__":
    main()
