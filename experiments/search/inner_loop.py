"""Predicted candidates a second: the library's inner loop, Optuna's NSGA-II and pymoo's.

One problem for all: the 28x28 space (51 choices, 10^22 architectures), accuracy by a fitted
accuracy predictor against packed size in closed form. Each optimiser runs NSGA-II with the
same population for about the same time on one thread, and its candidates are judged by the
very same surrogates. ``without surrogates`` is the optimiser's own work: the same loop with
a prediction that costs next to nothing. Run from the repository, on an idle core::

    python -m experiments.search.inner_loop
"""

from __future__ import annotations

import argparse
import os
import platform
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parents[1] / "results" / "search"
COMMAND = "python -m experiments.search.inner_loop"
TARGET = 20_000
FITTED = 120

Judge = Callable[[np.ndarray], np.ndarray]
"""Gene rows (n, choices) -> objectives (n, 2)."""


def problem_of(seed: int, *, free: bool) -> Any:
    """Return the problem; ``free`` replaces the accuracy predictor by a sum of genes."""
    from nas.fronts.metrics import Goal, Metric
    from nas.strategies import Exact, Learned, Problem
    from predictors.accuracy import AccuracyPredictor
    from search_spaces.spaces.registry import build_space

    space = build_space("mobilenet", preset="28x28")
    if free:
        accuracy = Exact(lambda genes: genes.sum(axis=1) / 200.0)
        size = Exact(lambda genes: (genes[:, ::2] ** 2).sum(axis=1) + 1.0)
    else:
        rng = np.random.default_rng(seed)
        genes = space.sample_genes(rng, FITTED)
        costs = space.costs(genes)
        # Any smooth function will do: what is timed does not depend on its values.
        target = np.log(costs["macs"]) / 20 + np.log(costs["weight_bits_mean"]) / 10
        accuracy = Learned(AccuracyPredictor(space, seed=seed))
        accuracy.fit(genes, target + 0.005 * rng.normal(size=FITTED))
        size = Exact(lambda genes: space.costs(genes)["weights_kib"])
    return Problem(
        space,
        [Goal(Metric("accuracy")), Goal(Metric("weights_kib"))],
        surrogates={"accuracy": accuracy, "weights_kib": size},
    )


def ours(problem: Any, population: int, generations: int, seed: int) -> int:
    """Run the library's inner loop; return the number of candidates judged."""
    from nas.strategies.genes import unique_rows
    from nas.strategies.inner import evolve

    judged = 0

    def judge(genes: np.ndarray) -> Any:
        nonlocal judged
        judged += len(genes)
        return problem.judge(genes)

    rng = np.random.default_rng(seed)
    rows = problem.space.sample_genes(rng, population)
    start = judge(rows[unique_rows(rows)])
    evolve(problem.space, judge, start, rng, population=population, generations=generations)
    return judged


def pymoo(problem: Any, population: int, generations: int, seed: int) -> int:
    """Run pymoo's NSGA-II with the operators of the comparison; vectorised like ours."""
    from experiments.search.comparators import pymoo_algorithm

    algorithm = pymoo_algorithm(problem.space, population, seed)
    judged = 0
    for _ in range(generations + 1):
        asked = algorithm.ask()
        genes = asked.get("X").astype(np.int64)
        asked.set("F", problem.judge(genes).objectives)
        judged += len(genes)
        algorithm.tell(infills=asked)
    return judged


def optuna(problem: Any, population: int, generations: int, seed: int) -> int:
    """Run Optuna's NSGA-II, trial by trial, as its interface has it."""
    import optuna as library

    from nas.record.quiet_optuna import quiet_optuna

    space = problem.space
    trials = population * (generations + 1)
    with quiet_optuna():
        sampler = library.samplers.NSGAIISampler(population_size=population, seed=seed)
        study = library.create_study(directions=["minimize"] * 2, sampler=sampler)
        for _ in range(trials):
            trial = study.ask()
            row = np.array(
                [
                    choice.options.index(trial.suggest_categorical(choice.name, choice.options))
                    for choice in space.choices
                ]
            )
            genes = space.canonical(row[None])
            study.tell(trial, problem.judge(genes).objectives[0].tolist())
    return trials


OPTIMISERS: dict[str, tuple[Callable[..., int], int, int]] = {
    "edge-nas": (ours, 500, 40),
    "pymoo NSGA-II": (pymoo, 500, 10),
    "Optuna NSGA-II": (optuna, 50, 3),
}
"""Name -> function, population and generations (fewer where a candidate takes longer)."""


def main() -> None:
    """Time every optimiser, write the results and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument("--slow-seeds", type=int, default=3, help="of the other optimisers")
    parser.add_argument("--output", type=Path, default=RESULTS / "inner_loop.json")
    arguments = parser.parse_args()
    runs: list[dict[str, Any]] = []
    for free in (False, True):
        problem = problem_of(0, free=free)
        for name, (optimiser, population, generations) in OPTIMISERS.items():
            optimiser(problem, population, 1, 99)  # imports and caches
            for seed in range(arguments.seeds if name == "edge-nas" else arguments.slow_seeds):
                start = time.perf_counter()
                judged = optimiser(problem, population, generations, seed)
                seconds = time.perf_counter() - start
                runs.append(
                    {
                        "optimiser": name,
                        "surrogates": not free,
                        "seed": seed,
                        "candidates": judged,
                        "seconds": seconds,
                        "per_second": judged / seconds,
                    }
                )
            print(free, name, f"{runs[-1]['per_second']:.0f} a second", flush=True)

    def median(name: str, surrogates: bool) -> float:
        found = [
            r["per_second"]
            for r in runs
            if r["optimiser"] == name and r["surrogates"] is surrogates
        ]
        return round(float(np.median(found)), 1)

    figures = {
        name: {
            "per_second": median(name, True),
            "per_second_without_surrogates": median(name, False),
        }
        for name in OPTIMISERS
    }
    write_json_atomic(
        arguments.output,
        {
            "command": COMMAND,
            "machine": {
                "processor": platform.processor(),
                "python": platform.python_version(),
                "threads": os.environ.get("OMP_NUM_THREADS"),
            },
            "versions": {p: version(p) for p in ("numpy", "optuna", "pymoo", "moocore")},
            "fitted_evaluations": FITTED,
            "summary": figures,
            "runs": runs,
        },
    )
    record_claim(
        "search.inner_loop_per_second",
        {
            **{name: f["per_second"] for name, f in figures.items()},
            "edge-nas without surrogates": figures["edge-nas"]["per_second_without_surrogates"],
            "seeds": arguments.seeds,
        },
        TARGET,
        figures["edge-nas"]["per_second"] >= TARGET and arguments.seeds >= 10,
        f"experiments/results/search/{arguments.output.name}",
        COMMAND,
    )


if __name__ == "__main__":
    main()
