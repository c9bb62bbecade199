"""What a latency is worth beside other work: ten networks measured with 0, 1 and 2 busy processes.

    python -m experiments.devices.loaded [--repeats 4] [--minutes 6] [--output FOLDER]
    python -m experiments.devices.loaded --nice 0    without the priority that it asks for

Every repeat measures all ten networks twice with no, and once with one and two competing
processes, in an order of its own. The quiet value of a network is the geometric mean of its figures
with no competitor; an interval taken then is held against the other repeats only. Beside the figure
stands what a careful engineer would do with the same samples: the median of all of them, and
Student's t over the medians of the processes.

What is measured is kept, so the same command goes on where it was cut off. The machine should have
two idle cores: how much others took while it measured is recorded (``others_cores``), and a claim
made on a machine that was not idle says so.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import multiprocessing
import os
import platform
import resource
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from devices.measuring.measure import measure
from devices.measuring.measurement import Measurement
from devices.measuring.protocol import Protocol
from devices.measuring.statistics import interval
from devices.runtime import make_runtime
from experiments.devices.table_models import SEED, space_of
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng

RESULTS = Path(__file__).parents[1] / "results" / "devices"
COMMAND = "python -m experiments.devices.loaded"
LOADS = (0, 1, 2)
ROUND = ((0, 0), (0, 1), (1, 0), (2, 0))
"""Load and number of each measurement of a repeat: the quiet value is what the others are held
against, so it is taken twice as often."""
PRESETS = {"28x28": 6, "96x96": 4}
"""Preset of ``mobilenet`` -> networks, every other one with integer weights."""
PROTOCOL = Protocol(processes=5, runs=40, retries=1)
IDLE_CORES = 0.15
"""Cores that others may take on average for the machine to count as idle."""


def export_models(folder: Path) -> list[Path]:
    """Write the ten networks, with random weights, and return their files."""
    import torch

    from supernet.network import Supernet
    from supernet.onnx.export import export_onnx
    from supernet.training.subnets import float_plan

    torch.set_num_threads(1)
    paths = []
    for preset, count in PRESETS.items():
        torch.manual_seed(SEED)
        space = space_of(preset)
        supernet = Supernet(space, zero_init_residual=False)
        rng = derive_rng(SEED, "loaded", preset)
        archs = [space.smallest(), space.largest(), *(space.sample(rng) for _ in range(count - 2))]
        for number, arch in enumerate(archs):
            plan = supernet.plan(arch)
            variant = plan if number % 2 else float_plan(plan)
            shape = (2, *plan.input_shape)
            images = torch.from_numpy(derive_rng(SEED, "images").standard_normal(shape)).float()
            with torch.no_grad():
                statistics = supernet.statistics(variant, [images])
            path = folder / f"{preset}-{number}.onnx"
            network = supernet.extract(variant, statistics).eval()
            export_onnx(network, path, weight_storage="int8")
            paths.append(path)
    return paths


def compete() -> None:
    """Work until killed: products of matrices, and memory that no cache holds."""
    rng = np.random.default_rng(0)
    factor, memory = rng.random((300, 300)), rng.random(1 << 21)
    while True:
        for _ in range(20):
            factor @ factor
        memory += 1.0


@contextlib.contextmanager
def competitors(count: int) -> Iterator[list[psutil.Process]]:
    """Keep ``count`` processes busy meanwhile."""
    context = multiprocessing.get_context("spawn")
    started = [context.Process(target=compete, daemon=True) for _ in range(count)]
    for process in started:
        process.start()
    try:
        if started:
            time.sleep(1.5)  # they import NumPy
        yield [psutil.Process(process.pid) for process in started]
    finally:
        for process in started:
            process.kill()
            process.join()


def take(models: Sequence[Path], load: int, repeat: int, nice: int | None) -> dict[str, Any]:
    """Measure all models beside ``load`` competitors; return figures, time and others' load."""
    protocol = Protocol.from_json({**PROTOCOL.to_json(), "seed": repeat, "nice": nice})
    with competitors(load) as rivals:
        before, start = _used(rivals), time.monotonic()
        found = measure(models, make_runtime("onnxruntime"), protocol)
        wall, after = time.monotonic() - start, _used(rivals)
    all_of_it, own = after[0] - before[0], after[1] - before[1]
    return {
        "load": load,
        "repeat": repeat,
        "nice": found[0].conditions["nice"][:1],
        "wall_s": round(wall, 2),
        "others_cores": round(max(0.0, all_of_it - own) / wall, 3),
        "models": {path.stem: _row(one) for path, one in zip(models, found, strict=True)},
    }


def _used(rivals: Sequence[psutil.Process]) -> tuple[float, float]:
    """Return processor seconds used by everybody, and by this experiment with its rivals."""
    times = psutil.cpu_times()
    steal = getattr(times, "steal", 0.0)
    everybody = times.user + times.system + getattr(times, "nice", 0.0) + steal
    own = sum(
        usage.ru_utime + usage.ru_stime
        for usage in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )
    for rival in rivals:
        spent = rival.cpu_times()
        own += spent.user + spent.system
    return everybody, own


def _row(found: Measurement) -> dict[str, Any]:
    low, high = interval(np.array([np.median(samples) for samples in found.samples_ms]))
    return {
        "latency_ms": found.latency_ms,
        "low_ms": found.low_ms,
        "high_ms": found.high_ms,
        "floor_ms": found.floor_ms,
        "processor_ms": found.processor_ms,
        "valid": found.valid,
        "reasons": list(found.reasons),
        "attempts": found.attempts,
        "samples": found.conditions.get("samples"),
        "plain_median_ms": float(np.median(np.concatenate(found.samples_ms))),
        "plain_low_ms": float(low),
        "plain_high_ms": float(high),
    }


def study(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what the measurements show, for this framework and for the plain median."""
    report: dict[str, Any] = {}
    for way, prefix in (("ours", ""), ("plain_median", "plain_")):
        value = "plain_median_ms" if prefix else "latency_ms"
        report[way] = {
            str(load): _against_quiet(rows, load, value, f"{prefix}low_ms", f"{prefix}high_ms")
            for load in LOADS
            if any(row["load"] == load for row in rows)
        }
    quiet = np.median([row["wall_s"] for row in rows if row["load"] == 0])
    for load in LOADS:
        walls = [row["wall_s"] for row in rows if row["load"] == load]
        if walls:
            report.setdefault("time_over_quiet", {})[str(load)] = float(np.median(walls) / quiet)
    report["valid"] = {
        str(load): float(
            np.mean([m["valid"] for r in rows if r["load"] == load for m in r["models"].values()])
        )
        for load in LOADS
        if any(row["load"] == load for row in rows)
    }
    return report


def _against_quiet(
    rows: Sequence[dict[str, Any]], load: int, value: str, low: str, high: str
) -> dict[str, Any]:
    from scipy.stats import kendalltau

    names = list(rows[0]["models"])
    errors: dict[str, list[float]] = {name: [] for name in names}
    covered, taus = [], []
    for row in (row for row in rows if row["load"] == load):
        # What is judged takes no part in the value it is held against.
        others = [r for r in rows if r["load"] == 0 and r is not row]
        if not others:
            continue
        truth = {
            n: math.exp(np.mean([math.log(r["models"][n][value]) for r in others])) for n in names
        }
        for name in names:
            found = row["models"][name]
            errors[name].append(found[value] / truth[name] - 1)
            covered.append(found[low] <= truth[name] <= found[high])
        ours = [row["models"][name][value] for name in names]
        taus.append(float(kendalltau(ours, [truth[name] for name in names]).statistic))
    middle = {name: float(np.median(each)) for name, each in errors.items() if each}
    every = [abs(error) for each in errors.values() for error in each]
    return {
        "models_within_5_percent": sum(abs(error) <= 0.05 for error in middle.values()),
        "models": len(names),
        "median_error": {name: round(error, 4) for name, error in middle.items()},
        "share_of_measurements_within_5_percent": float(np.mean(np.array(every) <= 0.05)),
        "coverage": float(np.mean(covered)) if covered else None,
        "kendall_tau": float(np.median(taus)) if taus else None,
    }


def record(report: dict[str, Any], idle: bool, nice: int | None) -> None:
    """Record the three claims; on a machine that was not idle they are not met."""
    ours = report["ours"]
    state = "idle" if idle else "not idle: others worked on it"
    file = f"experiments/results/devices/{file_name(nice)}"
    within = {load: found["models_within_5_percent"] for load, found in ours.items()}
    if nice is not None:
        value = {"models_of_10": within, "kendall_tau": ours["2"]["kendall_tau"], "machine": state}
        met = idle and min(within.values()) >= 9
        target = {"models_of_10": 9, "kendall_tau": 0.9}
        command = f"{COMMAND} --nice {nice}"
        record_claim("trust.loaded_equal_priority", value, target, met, file, command)
        return
    record_claim(
        "trust.loaded_within_5_percent",
        {"models_of_10": within, "time_over_quiet": report["time_over_quiet"], "machine": state},
        {"models_of_10": 9, "time_over_quiet": 2.0},
        idle and min(within.values()) >= 9 and max(report["time_over_quiet"].values()) <= 2,
        file,
        COMMAND,
    )
    coverage = {load: found["coverage"] for load, found in ours.items()}
    record_claim(
        "trust.loaded_coverage",
        {**coverage, "machine": state},
        [0.93, 0.97],
        idle and all(0.93 <= value <= 0.97 for value in coverage.values()),
        file,
        COMMAND,
    )
    tau = ours["2"]["kendall_tau"]
    record_claim(
        "trust.loaded_tau", {"2": tau, "machine": state}, 0.9, idle and tau >= 0.9, file, COMMAND
    )


def file_name(nice: int | None) -> str:
    """Return the name of the file of results."""
    return "loaded.json" if nice is None else "loaded_equal_priority.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=4)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--output", type=Path, help="folder of a try that makes no claim")
    parser.add_argument("--nice", type=int, help="priority instead of the one asked for")
    parser.add_argument("--again", action="store_true", help="forget what was measured before")
    arguments = parser.parse_args()
    path = (arguments.output or RESULTS) / file_name(arguments.nice)
    end = time.monotonic() + 60 * arguments.minutes
    rows: list[dict[str, Any]] = []
    if path.exists() and not arguments.again:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
    done = {(row["load"], row["repeat"]) for row in rows}
    with tempfile.TemporaryDirectory() as folder:
        models = export_models(Path(folder))
        for repeat in range(arguments.repeats):
            for load, number in derive_rng(SEED, "loads", repeat).permutation(ROUND).tolist():
                name = 2 * repeat + number
                if (load, name) in done or time.monotonic() > end:
                    continue
                row = take(models, load, name, arguments.nice)
                rows.append(row)
                shown = {k: v for k, v in row.items() if k != "models"}
                print(shown, sum(m["valid"] for m in row["models"].values()), "valid", flush=True)
                write_json_atomic(path, {"rows": rows})
    report = study(rows)
    others = float(np.median([row["others_cores"] for row in rows]))
    out = {
        "report": report,
        "others_cores": others,
        "idle": others <= IDLE_CORES,
        "protocol": PROTOCOL.to_json(),
        "machine": {"system": platform.platform(), "cores": os.cpu_count()},
        "command": COMMAND,
        "rows": rows,
    }
    write_json_atomic(path, out)
    print(json.dumps(report, indent=1))
    complete = {
        (load, 2 * repeat + number) for load, number in ROUND for repeat in range(arguments.repeats)
    }
    if arguments.output is None and complete <= {(r["load"], r["repeat"]) for r in rows}:
        record(report, others <= IDLE_CORES, arguments.nice)


if __name__ == "__main__":
    main()
