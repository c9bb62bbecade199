"""Is a front worth its time? Runs and their ``nas study value`` over seeds, and the claims.

For each seed: ``nas run`` of the job, then ``nas study value`` of the run, which trains the
reference family with the processor seconds that the run spent. Everything resumes: finished runs
and trained members are kept in ``--runs``. Each entry of ``--cores`` is a set of cores for one seed
at a time, such as ``0 1`` (two seeds side by side, pinned to a core each) or ``0-1`` (one seed on
both)::

    python -m experiments.value.study fashion experiments/fashion_mnist.yaml --seeds 0 1 2 \\
        --cores 0 1 --sizes 6,11.5,17,33,75

    python -m experiments.value.study digits experiments/digits.yaml --seeds 0 1 2 --cores 0 1
    python -m experiments.value.letters runs/letters
    python -m experiments.value.study folder experiments/value/letters.yaml --seeds 0 1 2 \\
        --cores 0 1
    python -m experiments.value.scenes runs/scenes
    python -m experiments.value.study scenes experiments/value/scenes.yaml --seeds 0 1 \\
        --cores 0 1
    python -m experiments.value.study lowbit experiments/fashion_mnist.yaml --runtime lowbit \\
        --seeds 0 1 2 --cores 0 1

The first argument names the result, ``experiments/results/value/NAME.json``, and the claims that
are recorded of it; ``--only-collect`` writes both again from finished studies.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import queue
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from devices.device import device_fingerprint
from devices.measuring.statistics import student_t
from experiments.results_index import record_claim
from nas.job.check import load_job
from nas.record.spending import spent
from search_spaces.atomic import write_json_atomic, write_text_atomic

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "experiments" / "results" / "value"

CLAIMS: dict[str, dict[str, tuple[str, str, str, float]]] = {
    "fashion": {
        "value.fashion_ahead_int8": ("at_size", "int8", "mean", 0.7),
        "value.fashion_worst_int8": ("at_size", "int8", "worst", 0.0),
        "value.fashion_ahead_qat": ("at_size", "qat", "mean", 0.4),
        "value.fashion_latency_ahead": ("at_latency", "int8", "mean", 0.3),
    },
    "folder": {"value.folder_ahead_int8": ("at_size", "int8", "mean", 0.7)},
    "scenes": {"value.scenes_ahead_int8": ("at_size", "int8", "mean", 0.7)},
    "digits": {"value.digits_ahead_int8": ("at_size", "int8", "mean", 0.0)},
    "lowbit": {"value.lowbit_latency_ahead": ("at_latency", "int8", "mean", 0.3)},
}
"""Name -> key of a claim -> (comparison, kind of family, figure, least value in points)."""

LIMIT_MINUTES = 25


def cores_of(text: str) -> set[int]:
    """Return the cores that ``0``, ``0-1`` or ``0,2`` names."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def job_file(job: Path, runs: Path, runtime: str | None, cpu_minutes: float | None = None) -> Path:
    """Return the job to run: as it is, or written again.

    Args:
        job: the job's file.
        runs: folder of the copy.
        runtime: of every device; None keeps them.
        cpu_minutes: budget of processor time instead of the job's; None keeps that.
    """
    if runtime is None and cpu_minutes is None:
        return job
    # Resolved by the loader, so that paths hold wherever the copy lies.
    values = load_job(job).resolved()
    if runtime is not None:
        for device in values["devices"]:
            device.update(runtime=runtime, options={})
    if cpu_minutes is not None:
        values["budget"] = {**values["budget"], "minutes": None, "cpu_minutes": cpu_minutes}
    path = runs / "job.yaml"
    write_text_atomic(path, yaml.safe_dump(values, sort_keys=False))
    return path


def commands(job: Path, run: Path, seed: int, options: Sequence[str]) -> list[list[str]]:
    """Return what is left to do for one seed."""
    nas = [sys.executable, "-m", "nas"]
    todo = []
    if not (run / "results.json").exists():
        begun = (run / "manifest.json").exists()
        arguments = ["resume", str(run)] if begun else ["run", str(job), "--output", str(run)]
        todo.append([*nas, *arguments, *([] if begun else ["--seed", str(seed)])])
    todo.append([*nas, "study", "value", str(run), *options])
    return todo


def work(job: Path, runs: Path, seeds: Sequence[int], cores: Sequence[str],
         options: Sequence[str]) -> None:  # fmt: skip
    """Do what is left for every seed, as many at a time as there are sets of cores.

    Raises:
        SystemExit: a command failed; the others are done all the same.
    """
    left: queue.Queue[int] = queue.Queue()
    for seed in seeds:
        left.put(seed)
    failures: list[str] = []

    def follow(where: set[int]) -> None:
        environment = os.environ | {
            name: str(len(where)) for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS")
        }
        while True:
            try:
                seed = left.get_nowait()
            except queue.Empty:
                return
            run = runs / f"seed-{seed}"
            for command in commands(job, run, seed, options):
                print(f"seed {seed} on {sorted(where)}: {' '.join(command[2:])}", flush=True)
                with open(runs / f"seed-{seed}.log", "a") as log:
                    done = subprocess.run(
                        ["taskset", "-c", ",".join(map(str, sorted(where))), *command],
                        cwd=ROOT, env=environment, stdout=log, stderr=subprocess.STDOUT,
                    )  # fmt: skip
                if done.returncode:
                    failures.append(f"seed {seed}: exit {done.returncode}, see {log.name}")
                    break

    threads = [threading.Thread(target=follow, args=(cores_of(text),)) for text in cores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise SystemExit("; ".join(failures))


def over_seeds(values: Sequence[float]) -> dict[str, Any]:
    """Return the mean over seeds with a 95 % interval (Student's t; none of one seed)."""
    mean = float(np.mean(values))
    found: dict[str, Any] = {"mean": round(mean, 3), "values": [round(v, 3) for v in values]}
    if len(values) > 1:
        half = student_t(0.975, len(values) - 1) * float(np.std(values, ddof=1))
        half /= math.sqrt(len(values))
        found |= {"low": round(mean - half, 3), "high": round(mean + half, 3)}
    return found


def gather(comparisons: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return one comparison over the runs of several seeds.

    Returns:
        ``rows``: at each budget of the first run the points ahead, over seeds (budgets that
        follow from the members are taken by rank). ``mean`` over budgets and seeds, ``worst``
        the least of the rows' means, and ``missing``: budgets, over all seeds, at which a front
        had no model and its family had one. A budget with such a seed is no row of the means.
    """
    rows = []
    for index in range(min(len(c["rows"]) for c in comparisons)):
        each = [c["rows"][index] for c in comparisons]
        row: dict[str, Any] = {
            "budget": [one["budget"] for one in each],
            "front": [None if o["front"] is None else o["front"]["accuracy"] for o in each],
            "family": [
                None if not o["family"] else float(np.mean([f["accuracy"] for f in o["family"]]))
                for o in each
            ],
        }
        ahead = [one["ahead"] for one in each]
        row["ahead"] = None if None in ahead else over_seeds(ahead)
        rows.append(row)
    whole = [row["ahead"]["mean"] for row in rows if row["ahead"]]
    means = [c["mean"] for c in comparisons]
    return {
        "rows": rows,
        "mean": None if None in means else over_seeds(means),
        "worst": min(whole, default=None),
        "missing": sum(c["missing"] for c in comparisons),
    }


def collect(name: str, runs: Path, seeds: Sequence[int], command: str) -> dict[str, Any]:
    """Return the result of all seeds, with everything needed to repeat it."""
    studies, costs, jobs = [], [], []
    for seed in seeds:
        run = runs / f"seed-{seed}"
        studies.append(json.loads((run / "studies" / "value.json").read_text()))
        cost = spent(run)
        assert cost is not None, f"{run} does not record its cost"
        results = json.loads((run / "results.json").read_text())
        costs.append(
            {
                "seed": seed,
                "cpu_seconds": cost.cpu_seconds,
                "wall_seconds": cost.wall_seconds,
                "sessions": cost.sessions,
                "stages": results["timing"],
                "threads": results["provenance"]["threads"],
                "front_size": len(results["front"]),
            }
        )
        job = json.loads((run / "manifest.json").read_text())["job"]
        if job["data"]["path"] is not None:
            # What it is called is told, not where it lies.
            job["data"]["path"] = Path(job["data"]["path"]).name
        jobs.append(job)
    kinds = studies[0]["at_size"]
    devices = studies[0]["at_latency"]
    return {
        "name": name,
        "command": command,
        "seeds": list(seeds),
        "job": jobs[0],
        "budget": [study["budget"] for study in studies],
        "recipe": studies[0]["recipe"],
        "chosen_by": studies[0]["chosen_by"],
        "test_images": studies[0]["test_images"],
        "cost": costs,
        "at_size": {kind: gather([s["at_size"][kind] for s in studies]) for kind in kinds},
        "at_latency": {
            device: {
                kind: gather([s["at_latency"][device][kind] for s in studies])
                for kind in devices[device]
            }
            for device in devices
        },
        "fronts": [study["front"] for study in studies],
        "members": [study["members"] for study in studies],
        "versions": {p: version(p) for p in ("torch", "numpy", "onnx", "onnxruntime")},
        "hardware": device_fingerprint(),
        "load_average": list(os.getloadavg()),
    }


def record(result: Mapping[str, Any]) -> list[str]:
    """Enter the claims of a result into the index, missed ones too; returns a line for each."""
    name = str(result["name"])
    file = f"experiments/results/value/{name}.json"
    lines = []
    for key, (where, kind, figure, least) in CLAIMS.get(name, {}).items():
        found = result[where]
        if where == "at_latency":
            found = next(iter(found.values()), {})
        comparison = found.get(kind) or {"mean": None, "worst": None, "missing": 0}
        value = comparison[figure]
        value = value["mean"] if isinstance(value, dict) else value
        # Where the front has nothing to offer it is not ahead, whatever the other budgets say.
        met = value is not None and value >= least and not comparison["missing"]
        target = f">= {least:g} points, a model of the front at every budget"
        record_claim(key, value, target, met, file, result["command"])
        lines.append(f"{key}: {value} ({target}){'' if met else ' missed'}")
    if name == "fashion":
        minutes = round(max(cost["wall_seconds"] for cost in result["cost"]) / 60, 2)
        met = minutes <= LIMIT_MINUTES
        target = f"<= {LIMIT_MINUTES} of wall time, the slowest seed"
        record_claim("value.minutes", minutes, target, met, file, result["command"])
        lines.append(f"value.minutes: {minutes} ({target}){'' if met else ' missed'}")
    return lines


def repeatable(arguments: Sequence[str]) -> list[str]:
    """Return the arguments that another machine needs to do the same."""
    told = [argument for argument in arguments if argument != "--only-collect"]
    if "--runs" in told:
        at = told.index("--runs")
        del told[at : at + 2]
    return told


def main() -> None:
    """Run, study, collect, record."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="fashion, folder, digits, lowbit, or one of your own")
    parser.add_argument("job", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--cores", nargs="+", default=["0"], help="a set of cores a process")
    parser.add_argument("--sizes", help="KiB; by default the members' own sizes")
    parser.add_argument("--runs", type=Path, help="folder of the runs; default runs/value/NAME")
    parser.add_argument("--runtime", help="measure on this runtime instead of the job's")
    parser.add_argument("--cpu-minutes", type=float, help="budget instead of the job's")
    parser.add_argument("--no-qat", action="store_true", help="leave out the QAT family")
    parser.add_argument("--only-collect", action="store_true")
    arguments = parser.parse_args()
    runs = (arguments.runs or ROOT / "runs" / "value" / arguments.name).resolve()
    runs.mkdir(parents=True, exist_ok=True)
    options = [
        *(["--sizes", arguments.sizes] if arguments.sizes else []),
        *(["--no-qat"] if arguments.no_qat else []),
    ]
    if not arguments.only_collect:
        job = job_file(arguments.job.resolve(), runs, arguments.runtime, arguments.cpu_minutes)
        work(job, runs, arguments.seeds, arguments.cores, options)
    command = f"python -m experiments.value.study {' '.join(repeatable(sys.argv[1:]))}"
    result = collect(arguments.name, runs, arguments.seeds, command)
    RESULTS.mkdir(parents=True, exist_ok=True)
    write_json_atomic(RESULTS / f"{arguments.name}.json", result)
    for line in record(result):
        print(line)


if __name__ == "__main__":
    main()
