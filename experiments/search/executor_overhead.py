"""What an evaluation costs beyond its own work, by executor and number of workers.

Each item is a fixed amount of work that needs no processor (sleeping), so that workers do not
compete for cores and the wall time of perfect scaling is known: items x duration / workers.
What is above it, per evaluation, is overhead: sending, scheduling, collecting. Starting the
workers is timed apart. Run from the repository::

    python -m experiments.search.executor_overhead
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from experiments.results_index import record_claim
from nas.executors import EXECUTORS, Work
from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parents[1] / "results" / "search"
COMMAND = "python -m experiments.search.executor_overhead"
WORKERS = (1, 2, 4)


def resting(*, threads: int | None = None) -> Callable[[Mapping[str, Any]], int]:
    """Return work that takes ``ms`` and no processor; the factory that workers build."""

    def rest(item: Mapping[str, Any]) -> int:
        time.sleep(item["ms"] / 1000)
        return int(item["number"])

    return rest


def overhead(name: str, workers: int, *, items: int, ms: float) -> dict[str, Any]:
    """Return start-up seconds, and overhead an evaluation in ms, of an executor."""
    work = Work("experiments.search.executor_overhead:resting")
    options = {} if name == "local" else {"workers": workers}
    start = time.perf_counter()
    with EXECUTORS.get(name)(**options) as executor:
        # As many items as workers, so that each has started.
        list(executor.run(work, [{"number": k, "ms": 50.0} for k in range(workers)]))
        started = time.perf_counter() - start
        start = time.perf_counter()
        found = list(executor.run(work, [{"number": k, "ms": ms} for k in range(items)]))
        seconds = time.perf_counter() - start
    assert sorted(found) == [(k, k) for k in range(items)], "every item once"
    ideal = -(-items // workers) * ms / 1000
    return {
        "executor": name,
        "workers": workers,
        "items": items,
        "item_ms": ms,
        "start_s": round(started, 3),
        "seconds": seconds,
        "ideal_s": ideal,
        "overhead_ms": 1000 * (seconds - ideal) / items,
    }


def main() -> None:
    """Time every executor, write the results and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=80)
    parser.add_argument("--ms", type=float, default=10.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--output", type=Path, default=RESULTS / "executor_overhead.json")
    arguments = parser.parse_args()
    os.environ["PYTHONPATH"] = os.pathsep.join(
        [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
    )
    names = ["local", "processes"]
    if importlib.util.find_spec("ray") is not None:
        names.append("ray")
    runs = []
    for name in names:
        for workers in (1,) if name == "local" else WORKERS:
            for _ in range(arguments.repeats):
                runs.append(overhead(name, workers, items=arguments.items, ms=arguments.ms))
            print(name, workers, f"{runs[-1]['overhead_ms']:.3f} ms", flush=True)
    figures = {
        f"{name} {workers}": round(
            statistics.median(
                r["overhead_ms"] for r in runs if r["executor"] == name and r["workers"] == workers
            ),
            3,
        )
        for name, workers in dict.fromkeys((r["executor"], r["workers"]) for r in runs)
    }
    write_json_atomic(
        arguments.output,
        {
            "command": COMMAND,
            "machine": {
                "processor": platform.processor(),
                "python": platform.python_version(),
                "cores": len(os.sched_getaffinity(0)),
            },
            "versions": {p: version(p) for p in names if p == "ray"},
            "overhead_ms": figures,
            "runs": runs,
        },
    )
    record_claim(
        "search.executor_overhead_ms",
        figures,
        "reported for 1, 2 and 4 workers",
        {f"processes {w}" for w in WORKERS} <= set(figures),
        f"experiments/results/search/{arguments.output.name}",
        COMMAND,
    )


if __name__ == "__main__":
    main()
