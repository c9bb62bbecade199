"""What fifty SIGKILLs at random moments leave of a run.

    python -m experiments.search.kills [--minutes 9] [--output FOLDER]

A small job runs, is killed without warning after a random time, and is resumed, again and again,
until it ends; then it begins anew in another folder, until all kills are spent:

- ``local``: candidates are evaluated in the run's own process; latencies are replayed from a
  finished run, so its results must be those of a run that nobody killed, byte for byte;
- ``processes``: the same with two workers, which must be gone soon after the run's own process is;
  two kills of three come when they are there;
- ``measuring``: latencies are measured, and the kill comes while they are. Latencies differ from
  run to run, so this one is judged by what must hold of any: the evaluations that were asked for,
  each once, whole measurements in a sound file, accuracies of an architecture as in the other runs,
  and no measuring process left.

What is done is kept, so the same command goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import csv
import json
import multiprocessing
import os
import platform
import signal
import sqlite3
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng

RESULTS = Path(__file__).parents[1] / "results" / "search" / "kills.json"
COMMAND = "python -m experiments.search.kills"
KILLS = {"local": 20, "processes": 15, "measuring": 15}
EVALUATIONS = 14
LONGEST_S = 20.0
"""A kill comes within this time or the length of a whole run, if that is shorter."""
ORPHANS_S = 10.0
"""Time within which the processes of a killed run must be gone."""

JOB = """
name: killed
seed: 3
threads: 1
executor: EXECUTOR
workers: WORKERS
data: {name: digits, validation: 0.2, calibration: 128}
space:
  name: mobilenet
  preset: 8x8
  stages: [{channels: 8, stride: 1, depths: [1, 2]}, {channels: 12, stride: 2, depths: [1, 2]}]
  stem_channels: 8
  head_channels: 16
  kernels: [3]
  expands: [2, 3]
  weight_bits: [2, 8]
  activation_bits: [4, 8]
supernet: {epochs: 2, batch_size: 128, warmup_epochs: 0.5, checkpoint_every_s: 0.1}
protocol:
  {processes: 2, runs: 20, retries: 0, max_interval: null, max_spread: null, max_drift: null}
search: {evaluations: 14, initial: 8, batch: 3, latency_samples: 4, front_size: 3}
"""


def job_file(folder: Path, mode: str) -> Path:
    """Write the job of a mode and return its file."""
    executor = "processes" if mode == "processes" else "local"
    text = JOB.replace("EXECUTOR", executor)
    text = text.replace("WORKERS", "2" if executor == "processes" else "null")
    path = folder / f"{mode}.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def run_or_resume(job: Path, run: Path, measurements: Path | None) -> None:
    """Go on with a run if there is one, else begin it."""
    from nas.job.check import load_job
    from nas.stages import pipeline

    if (run / "manifest.json").exists():
        pipeline.resume(run)
    else:
        pipeline.run(load_job(job), run, measurements=measurements)


def start(target: Callable[..., None], *arguments: Any) -> Any:
    """Start ``target`` in a forked process that exits with 1 on any error.

    Forked, so that torch is not imported again for each of fifty runs.
    """

    def guarded() -> None:
        try:
            target(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    process = multiprocessing.get_context("fork").Process(target=guarded)
    process.start()
    return process


def events(run: Path) -> list[dict[str, Any]]:
    """Return what a run has told of itself; a line torn by a kill is left out."""
    found = []
    path = run / "events.jsonl"
    for line in path.read_text(encoding="utf-8").splitlines() if path.exists() else []:
        try:
            found.append(json.loads(line))
        except json.JSONDecodeError:
            continue
    return found


SIGNS = {"measuring": "devices.measuring.worker", "processes": "multiprocessing.spawn"}
"""What the command line of a process says that a kill in this mode waits for."""


def await_child(process: Any, sign: str) -> None:
    """Wait until a process whose command line says ``sign`` is there, or the run has ended."""
    parent = psutil.Process(process.pid)
    while process.is_alive():
        try:
            lines = [" ".join(child.cmdline()) for child in parent.children(recursive=True)]
        except (psutil.NoSuchProcess, psutil.ZombieProcess):
            continue
        if any(sign in line for line in lines):
            return
        time.sleep(0.01)


def kill(process: Any) -> dict[str, Any]:
    """Kill a run and return how many of its processes there were, and were there too long."""
    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        children = []
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    _, alive = psutil.wait_procs(children, timeout=ORPHANS_S)
    for orphan in alive:
        orphan.kill()
    return {"children": len(children), "orphans": len(alive)}


def problems(run: Path, mode: str, reference: Path, accuracies: Mapping[str, float]) -> list[str]:
    """Return what is wrong with a finished run; nothing is right."""
    found = []
    results = json.loads((run / "results.json").read_text(encoding="utf-8"))
    ids = [evaluation["id"] for evaluation in results["evaluations"]]
    if len(ids) != EVALUATIONS or len(set(ids)) != len(ids):
        found.append(f"{len(ids)} evaluations, {len(set(ids))} different ones")
    if list(run.rglob("*.tmp")):
        found.append("temporary files are left")
    if mode != "measuring":
        if (run / "front.csv").read_bytes() != (reference / "front.csv").read_bytes():
            found.append("another front than without kills")
        return found
    with open(run / "front.csv", newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            known = accuracies.get(row["arch"])
            if known is not None and abs(known - float(row["accuracy"])) > 1e-9:
                found.append(f"{row['id']} has accuracy {row['accuracy']}, elsewhere {known}")
            if not float(row["latency_low_ms"]) <= float(row["latency_high_ms"]):
                found.append(f"{row['id']} has no interval")
    with sqlite3.connect(run / "measurements.db") as db:
        if db.execute("PRAGMA integrity_check").fetchone() != ("ok",):
            found.append("the measurement store is damaged")
        for number, processes in db.execute(
            "SELECT m.id, count(s.process) FROM measurements m LEFT JOIN samples s "
            "ON s.measurement = m.id AND s.attempt = 0 GROUP BY m.id"
        ):
            if processes != 2:
                found.append(f"measurement {number} has {processes} processes")
    return found


def accuracies_of(runs: Sequence[Path]) -> dict[str, float]:
    """Return the test accuracy of every architecture on the fronts of finished runs."""
    found: dict[str, float] = {}
    for run in runs:
        with open(run / "front.csv", newline="", encoding="utf-8") as file:
            found |= {row["arch"]: float(row["accuracy"]) for row in csv.DictReader(file)}
    return found


def spend(
    mode: str,
    folder: Path,
    measured: Path,
    reference: Path,
    rows: list[dict[str, Any]],
    *,
    length_s: float,
    keep: Callable[[], None],
    end: float,
) -> None:
    """Spend the kills that a mode has left on run after run, and judge each run that ends."""
    job = job_file(folder, mode)
    measurements = None if mode == "measuring" else measured
    number = 0
    while sum(row["mode"] == mode for row in rows) < KILLS[mode] and time.monotonic() < end:
        run, ended = folder / f"{mode}-{number}-{len(rows)}", False
        number += 1
        of_this_run: list[dict[str, Any]] = []
        while not ended:
            left = KILLS[mode] - sum(r["mode"] == mode for r in rows) - len(of_this_run)
            process = start(run_or_resume, job, run, measurements)
            # When time is up nothing is killed any more, so that what was can be judged.
            if left > 0 and time.monotonic() < end:
                rng = derive_rng(len(rows), "kill", mode, number, len(of_this_run))
                # Every third kill of the workers' runs comes at any time, as those of the others.
                if mode == "measuring" or (mode == "processes" and len(of_this_run) % 3):
                    await_child(process, SIGNS[mode])
                    delay = float(rng.uniform(0, 1.5 if mode == "measuring" else 6.0))
                else:
                    delay = float(rng.uniform(0.02, length_s))
                process.join(delay)
            else:
                process.join()
            if process.is_alive():
                told = events(run)
                last = told[-1] if told else {}
                row = {
                    "mode": mode,
                    "run": run.name,
                    "after_s": round(delay, 3),
                    "last_event": f"{last.get('event')} {last.get('stage', '')}".strip(),
                    **kill(process),
                }
                of_this_run.append(row)
                print(row, flush=True)
                continue
            ended = True
            wrong = [f"the run ended with exit code {process.exitcode}"]
            if process.exitcode == 0:
                wrong = problems(run, mode, reference, accuracies_of([reference, measured]))
            wrong += [f"{row['orphans']} orphans" for row in of_this_run if row["orphans"]]
            rows += [{**row, "wrong": wrong} for row in of_this_run]
            print(run.name, len(of_this_run), "kills:", wrong or "right", flush=True)
            keep()


def main() -> None:
    """Spend all kills and record the claim."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=9.0)
    parser.add_argument("--output", type=Path, default=RESULTS)
    parser.add_argument("--folder", type=Path, help="keep the runs that nobody kills here")
    parser.add_argument("--again", action="store_true", help="forget what was done before")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    if options.output.exists() and not options.again:
        rows = json.loads(options.output.read_text(encoding="utf-8"))["kills"]
    end = time.monotonic() + 60 * options.minutes

    import torch  # imported once, before the forks

    import supernet.training.train  # noqa: F401

    torch.set_num_threads(1)

    def keep() -> None:
        right = [row for row in rows if not row["wrong"]]
        load = round(os.getloadavg()[0], 2)
        machine = {"system": platform.platform(), "cores": os.cpu_count(), "load": load}
        out = {"right": len(right), "of": len(rows), "planned": KILLS, "kills": rows}
        write_json_atomic(options.output, {**out, "machine": machine, "command": COMMAND})

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = options.folder or folder
        kept.mkdir(parents=True, exist_ok=True)
        measured, reference = kept / "measured", kept / "reference"
        length_s = LONGEST_S
        for run, replayed in ((measured, None), (reference, measured)):
            if (run / "results.json").exists():
                continue
            begun = time.monotonic()
            process = start(run_or_resume, job_file(folder, "local"), run, replayed)
            process.join()
            if process.exitcode != 0:
                raise SystemExit("the run that nobody kills failed")
            length_s = min(time.monotonic() - begun, LONGEST_S)
        for mode in KILLS:
            spend(mode, folder, measured, reference, rows, length_s=length_s, keep=keep, end=end)
    right = sum(not row["wrong"] for row in rows)
    print(f"{right} of {len(rows)} kills are right after resuming")
    if options.output == RESULTS and len(rows) >= sum(KILLS.values()):
        record_claim(
            "trust.sigkill_right",
            {"right": right, "of": len(rows)},
            {"right": 50, "of": 50},
            right == len(rows),
            "experiments/results/search/kills.json",
            COMMAND,
        )


if __name__ == "__main__":
    main()
