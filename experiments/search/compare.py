"""Hypervolume against real evaluations: the default strategy and other libraries' optimisers.

Every strategy searches problems whose true front is known (see ``problems``), 250 different
architectures a seed. Finished (problem, strategy, seed) runs are kept in a JSON Lines file
and not repeated. Run from the repository::

    python -m experiments.search.compare --nasbench201 TABLE.csv

The table is ``data/nasbench201/latency`` of github.com/HayeonLee/HELP (MIT), as one CSV.
"""

from __future__ import annotations

import argparse
import json
import platform
import shlex
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from experiments.results_index import record_claim
from experiments.search.comparators import RUNNERS
from experiments.search.problems import TabularProblem, nasbench201, supernet
from experiments.search.supernet_table import RESULTS, TABLE
from nas.fronts.pareto import hypervolume
from search_spaces.atomic import write_json_atomic

DEVICES = ("raspi4", "gold_6226")
BUDGET = 250
AT = (50, 100, 200, 250)
PROBLEMS = (
    *(f"nasbench201-{device}" for device in DEVICES),
    "supernet-weights_kib",
    "supernet-bops-black-box",
)
"""Names of every problem that the claims rest on."""
NSGA2 = ("pymoo-nsga2", "optuna-nsga2")
DEFAULT = "predictor"
SEEDS = 10
"""Fewer make no claim: what fewer show is recorded, and as missed."""


def curve(problem: TabularProblem, found: np.ndarray) -> list[float]:
    """Return the share of the true front's hypervolume after each evaluation."""
    reference = problem.reference
    full = hypervolume(problem.front, reference)
    kept = np.empty((0, 2))
    volumes: list[float] = []
    last = 0.0
    for point in found:
        if not len(kept) or not (kept <= point).all(axis=1).any():
            kept = np.vstack([kept[~(point <= kept).all(axis=1)], point])
            last = hypervolume(kept, reference) / full
        volumes.append(round(last, 6))
    # An optimiser that stopped early keeps what it has.
    return volumes + [volumes[-1]] * (BUDGET - len(volumes))


def run_all(problems: list[TabularProblem], names: list[str], seeds: int, log: Path) -> list[dict]:
    """Run what ``log`` does not hold; return every record of these problems."""
    records = []
    if log.exists():
        records = [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]
    done = {(r["problem"], r["strategy"], r["seed"]) for r in records}
    log.parent.mkdir(parents=True, exist_ok=True)
    with open(log, "a", encoding="utf-8") as file:
        for seed in range(seeds):
            for problem in problems:
                for name in names:
                    if (problem.name, name, seed) in done:
                        continue
                    start = time.process_time()
                    found = RUNNERS[name](problem, BUDGET, seed)
                    record = {
                        "problem": problem.name,
                        "strategy": name,
                        "seed": seed,
                        "evaluations": len(found),
                        "cpu_s": round(time.process_time() - start, 2),
                        "volume": curve(problem, found),
                    }
                    file.write(json.dumps(record) + "\n")
                    file.flush()
                    records.append(record)
                    print(problem.name, name, seed, *(record["volume"][n - 1] for n in AT))
    return records


def summary(problem: TabularProblem, records: list[dict]) -> dict[str, Any]:
    """Return figures of one problem: hypervolume shares and evaluations to NSGA-II's."""
    curves = {
        name: np.array([r["volume"] for r in records if r["strategy"] == name])
        for name in dict.fromkeys(r["strategy"] for r in records)
    }
    goal = max(float(curves[name][:, BUDGET - 1].mean()) for name in NSGA2 if name in curves)
    default = curves[DEFAULT]
    reached = np.flatnonzero(default.mean(axis=0) >= goal)
    seeds = {name: len(values) for name, values in curves.items()}
    return {
        "about": problem.about,
        "architectures": len(problem.genes),
        "front": len(problem.front),
        "reference": problem.reference.tolist(),
        "seeds": seeds,
        "hypervolume_share": {
            name: {
                str(n): {
                    "mean": round(float(values[:, n - 1].mean()), 5),
                    "std": round(float(values[:, n - 1].std(ddof=min(1, len(values) - 1))), 5),
                    "least": round(float(values[:, n - 1].min()), 5),
                }
                for n in AT
            }
            for name, values in curves.items()
        },
        "nsga2_250": round(goal, 5),
        "evaluations_to_nsga2_250": int(reached[0]) + 1 if reached.size else None,
        "seeds_within_100": int((default[:, 99] >= goal).sum()),
        "cpu_s_per_run": {
            name: round(float(np.mean([r["cpu_s"] for r in records if r["strategy"] == name])), 2)
            for name in curves
        },
    }


def main() -> None:
    """Run every problem and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nasbench201", type=Path, help="latency table of NAS-Bench-201")
    parser.add_argument("--supernet", type=Path, default=TABLE, help="from supernet_table")
    parser.add_argument("--strategies", nargs="+", default=list(RUNNERS), choices=list(RUNNERS))
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--log", type=Path, default=RESULTS / "compare.jsonl")
    arguments = parser.parse_args()
    problems: list[TabularProblem] = []
    if arguments.nasbench201 is not None:
        problems += [nasbench201(arguments.nasbench201, device) for device in DEVICES]
    if arguments.supernet.exists():
        problems += [
            supernet(arguments.supernet, "weights_kib"),
            supernet(arguments.supernet, "bops", black_box=True),
        ]
    records = run_all(problems, arguments.strategies, arguments.seeds, arguments.log)
    wanted = [p for p in problems if _has(records, p.name, (DEFAULT, *NSGA2))]
    if not wanted:
        print("no summary: the default strategy and NSGA-II must be run on a problem first")
        return
    summaries = {p.name: summary(p, [r for r in records if r["problem"] == p.name]) for p in wanted}
    write_json_atomic(RESULTS / "compare.json", result_of(summaries))
    record_claims(summaries)


def _has(records: list[dict], problem: str, names: tuple[str, ...]) -> bool:
    found = {r["strategy"] for r in records if r["problem"] == problem}
    return set(names) <= found


def result_of(summaries: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """Return the content of the results file; ``missing`` names what has too few seeds."""
    missing = {
        problem: short
        for problem, s in summaries.items()
        if (
            short := {
                name: s["seeds"].get(name, 0) for name in RUNNERS if s["seeds"].get(name, 0) < SEEDS
            }
        )
    }
    absent = [problem for problem in PROBLEMS if problem not in summaries]
    return {
        "command": command(),
        "machine": {"processor": platform.processor(), "python": platform.python_version()},
        "versions": {p: version(p) for p in ("numpy", "optuna", "pymoo", "moocore")},
        "budget": BUDGET,
        "complete": not missing and not absent,
        "seeds_wanted": SEEDS,
        "fewer_seeds": missing,
        "problems_missing": absent,
        "problems": summaries,
    }


def record_claims(summaries: dict[str, dict[str, Any]]) -> None:
    """Record both claims; met only with every problem, and enough seeds of what they rest on."""
    file = "experiments/results/search/compare.json"
    seeds = min(s["seeds"][name] for s in summaries.values() for name in (DEFAULT, *NSGA2))
    whole = seeds >= SEEDS and set(summaries) == set(PROBLEMS)
    needed = {n: s["evaluations_to_nsga2_250"] for n, s in summaries.items()}
    record_claim(
        "search.evaluations_to_nsga2_250",
        {**needed, "seeds": seeds},
        100,
        whole and all(n is not None and n <= 100 for n in needed.values()),
        file,
        command(),
    )
    shares = {n: s["hypervolume_share"][DEFAULT]["200"]["mean"] for n, s in summaries.items()}
    record_claim(
        "search.hypervolume_200_fraction",
        {**shares, "seeds": seeds},
        0.99,
        whole and all(v >= 0.99 for v in shares.values()),
        file,
        command(),
    )


def command() -> str:
    """Return how this program was called, the table by its name only."""
    words = ["python", "-m", "experiments.search.compare"]
    for word in sys.argv[1:]:
        words.append(Path(word).name if "/" in word else word)
    return shlex.join(words)


if __name__ == "__main__":
    main()
