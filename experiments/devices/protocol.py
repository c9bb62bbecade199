"""What the measurement protocol is worth: coverage, rejection, repeatability.

    python -m experiments.devices.protocol coverage
    python -m experiments.devices.protocol rejection
    python -m experiments.devices.protocol repeatability [MODEL.onnx] [--runs 10] [--at-once 5]

The first two play a device (:mod:`devices.measuring.played`) whose truth is known; the loop and the
judgement are the real ones. The third measures a model on this machine in separate runs and
goes on where it was cut off.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from devices.measuring.fitness import reference_model
from devices.measuring.measure import measure
from devices.measuring.measurement import Measurement
from devices.measuring.played import PlayedMachine, PlayedRuntime, PlayedSampler
from devices.measuring.protocol import Protocol
from devices.measuring.statistics import interval
from devices.runtime import make_runtime
from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng

RESULTS = Path(__file__).parents[1] / "results" / "devices"
MODULE = "python -m experiments.devices.protocol"
BASE_MS = 1.2


def play(rng: np.random.Generator, protocol: Protocol, folder: Path, **options: Any) -> Measurement:
    """Measure one model on a played machine."""
    machine = PlayedMachine(rng, base_ms=BASE_MS, **options)
    model = folder / "model"
    model.write_text("1.0")
    (found,) = measure([model], PlayedRuntime(machine), protocol, sampler=PlayedSampler(machine))
    return found


def coverage(runs: int = 1000) -> dict[str, Any]:
    """How often the 95 % interval holds the true latency; several protocols and devices."""
    cases = {
        "5 processes x 100 runs": (Protocol(retries=0), 0.004, 0.01),
        "3 processes x 30 runs": (Protocol(processes=3, runs=30, retries=0), 0.004, 0.01),
        "5 x 100, processes far apart": (Protocol(retries=0), 0.02, 0.01),
        "5 x 100, noisy runs": (Protocol(retries=0), 0.004, 0.05),
    }
    report: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, (protocol, between, within) in cases.items():
            held, held_valid, valid, widths, pooled = 0, 0, 0, [], 0
            for run in range(runs):
                rng = derive_rng(run, "coverage", name)
                found = play(rng, protocol, Path(folder), between=between, within=within)
                inside = found.low_ms <= BASE_MS <= found.high_ms
                held += inside
                valid += found.valid
                held_valid += inside and found.valid
                widths.append((found.high_ms - found.low_ms) / found.latency_ms)
                pooled += _pooled_holds(found)
            report[name] = {
                "between_processes": between,
                "within_processes": within,
                "coverage": held / runs,
                "coverage_of_accepted": held_valid / valid if valid else None,
                "accepted": valid / runs,
                "median_width": float(np.median(widths)),
                "coverage_of_an_interval_from_pooled_runs": pooled / runs,
            }
            print(name, report[name], flush=True)
    out = {"runs": runs, "cases": report, "machine": _machine()}
    write_json_atomic(RESULTS / "coverage.json", out)
    value = report["5 processes x 100 runs"]["coverage"]
    met = all(0.93 <= case["coverage"] <= 0.97 for case in report.values())
    record_claim(
        "device.interval_coverage_95",
        {"default protocol": value, **{n: c["coverage"] for n, c in report.items()}},
        [0.93, 0.97],
        met,
        "experiments/results/devices/coverage.json",
        f"{MODULE} coverage",
    )
    return out


def _pooled_holds(found: Measurement) -> bool:
    """Whether an interval that forgets the processes would hold the truth, for comparison."""
    runs = np.concatenate([np.asarray(samples) for samples in found.samples_ms])
    low, high = interval(runs)
    return bool(low <= BASE_MS <= high)


#: A measurement by the default protocol has its first sample after 0.8 s at the latest on the
#: played machine's clock and its last after 2.4 s at the earliest; what begins before or after
#: disturbs all of it alike, or nothing.
_DURING = (0.8, 2.2)

Maker = Callable[[np.random.Generator], dict[str, Any]]


def _step(rng: np.random.Generator) -> dict[str, Any]:
    """The clock falls at some moment and stays low; the machine does not say so."""
    at, factor = rng.uniform(*_DURING), rng.uniform(1.1, 1.6)
    return {"slowdown": lambda now: factor if now > at else 1.0}


def _ramp(rng: np.random.Generator) -> dict[str, Any]:
    """Heat builds up: slower and slower over the whole measurement."""
    rate = rng.uniform(0.04, 0.2)
    return {"slowdown": lambda now: 1 + rate * now}


def _cycle(rng: np.random.Generator) -> dict[str, Any]:
    """A thermal governor that lowers and raises the clock every fraction of a second."""
    period, share, factor = rng.uniform(0.1, 1.0), rng.uniform(0.3, 0.7), rng.uniform(1.15, 1.6)
    return {"slowdown": lambda now: factor if (now / period) % 1 < share else 1.0}


def _visible(rng: np.random.Generator) -> dict[str, Any]:
    """A small slowdown that only the machine's counters show."""
    at, factor = rng.uniform(*_DURING), rng.uniform(1.02, 1.1)

    def files(path: str, now: float) -> str | None:
        return str(int(now > at)) if path.endswith("core_throttle_count") else None

    return {"slowdown": lambda now: factor if now > at else 1.0, "files": files}


def _frequency(rng: np.random.Generator) -> dict[str, Any]:
    """The frequency falls by 6 to 40 % at some moment, and the machine says so."""
    at, factor = rng.uniform(*_DURING), rng.uniform(1.065, 1.6)

    def files(path: str, now: float) -> str | None:
        if path.endswith("scaling_cur_freq"):
            return str(int(2_800_000 / (factor if now > at else 1.0)))
        return None

    return {"slowdown": lambda now: factor if now > at else 1.0, "files": files}


def _random_preemption(rng: np.random.Generator) -> dict[str, Any]:
    """Somebody takes the core for 1 to 10 ms in 12 to 60 % of the inferences."""
    share, length = rng.uniform(0.12, 0.6), rng.uniform(1, 10)
    draw = np.random.default_rng(rng.integers(2**32))
    return {"preempt": lambda now: length if draw.random() < share else 0.0}


def _shared_core(rng: np.random.Generator) -> dict[str, Any]:
    """A competitor with equal rights: time slices of 1 to 4 ms in turn."""
    slice_ms = rng.uniform(1, 4)
    return {"preempt": lambda now: slice_ms if (now * 1e3 / slice_ms) % 2 < 1 else 0.0}


def _burst(rng: np.random.Generator) -> dict[str, Any]:
    """Another program runs for 0.3 to 2 s, and slows memory and caches by 10 to 80 %."""
    start, length = rng.uniform(*_DURING), rng.uniform(0.3, 2.0)
    factor = rng.uniform(1.1, 1.8)
    return {"slowdown": lambda now: factor if start < now < start + length else 1.0}


def _flicker(rng: np.random.Generator) -> dict[str, Any]:
    """Another program every now and then, which disturbs 15 to 50 % of the inferences."""
    share, factor = rng.uniform(0.15, 0.5), rng.uniform(1.3, 3.0)
    draw = np.random.default_rng(rng.integers(2**32))
    return {"slowdown": lambda now: factor if draw.random() < share else 1.0}


SCENARIOS: dict[str, dict[str, Maker]] = {
    "throttling": {
        "step": _step, "ramp": _ramp, "cycle": _cycle, "counter": _visible,
        "frequency": _frequency,
    },
    "background_load": {
        "preemption": _random_preemption, "shared core": _shared_core, "burst": _burst,
        "flicker": _flicker,
    },
}  # fmt: skip


def rejection(each: int = 200) -> dict[str, Any]:
    """How many disturbed measurements are rejected or right, and how many undisturbed are rejected.

    Right is within 5 % of the truth: what was disturbed now and then is measured in between.
    """
    protocol = Protocol(retries=0)
    report: dict[str, Any] = {}
    rights: dict[str, float] = {}
    reasons: dict[str, Counter[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for kind, scenarios in SCENARIOS.items():
            for name, make in scenarios.items():
                rejected, right, counts = 0, 0, Counter[str]()
                for run in range(each):
                    rng = derive_rng(run, "rejection", kind, name)
                    found = play(rng, protocol, Path(folder), **make(rng))
                    rejected += not found.valid
                    right += found.valid and abs(found.latency_ms / BASE_MS - 1) <= 0.05
                    counts.update(found.reasons)
                report[f"{kind}: {name}"] = rejected / each
                rights[f"{kind}: {name}"] = right / each
                reasons[f"{kind}: {name}"] = counts
                print(f"{kind}: {name}", rejected / each, right / each, dict(counts), flush=True)
        clean = [
            play(derive_rng(run, "rejection", "none"), protocol, Path(folder)).valid
            for run in range(each)
        ]
    shares = {
        kind: float(
            np.mean([report[f"{kind}: {name}"] + rights[f"{kind}: {name}"] for name in scenarios])
        )
        for kind, scenarios in SCENARIOS.items()
    }
    out = {
        "each": each,
        "rejected": report,
        "accepted_and_right": rights,
        "reasons": {name: dict(counts) for name, counts in reasons.items()},
        "rejected_or_right_by_kind": shares,
        "undisturbed_rejected": 1 - float(np.mean(clean)),
        "machine": _machine(),
    }
    write_json_atomic(RESULTS / "rejection.json", out)
    record_claim(
        "device.rejection",
        shares,
        0.95,
        min(shares.values()) >= 0.95,
        "experiments/results/devices/rejection.json",
        f"{MODULE} rejection",
    )
    return out


def repeatability(
    model: Path, runs: int, at_once: int, folder: Path | None = None
) -> dict[str, Any]:
    """Measure a model in separate runs on this machine, some now and the rest another time.

    A try in another ``folder`` than the results' makes no claim.
    """
    path = (folder or RESULTS) / "repeatability.json"
    digest = hashlib.sha256(model.read_bytes()).hexdigest()
    empty = {"model_sha256": digest, "runs": []}
    out = json.loads(path.read_text(encoding="utf-8")) if path.exists() else empty
    if out["model_sha256"] != digest:
        raise InputError(f"{path} holds runs of another model; move it away to begin anew")
    protocol = Protocol(nice=-15)
    runtime = make_runtime("onnxruntime")
    for _ in range(at_once):
        if len(out["runs"]) >= runs:
            break
        (found,) = measure([model], runtime, protocol)
        out["runs"].append(
            {
                "latency_ms": found.latency_ms,
                "low_ms": found.low_ms,
                "high_ms": found.high_ms,
                "valid": found.valid,
                "reasons": list(found.reasons),
                "attempts": found.attempts,
                "process_medians_ms": [float(np.median(s)) for s in found.samples_ms],
            }
        )
        print(out["runs"][-1], flush=True)
        write_json_atomic(path, out)
    medians = np.array([run["latency_ms"] for run in out["runs"]])
    centre = float(np.median(medians))
    out["median_ms"] = centre
    out["within_5_percent"] = int(np.sum(np.abs(medians / centre - 1) <= 0.05))
    out["valid"] = sum(run["valid"] for run in out["runs"])
    out["protocol"] = protocol.to_json()
    out["machine"] = _machine()
    write_json_atomic(path, out)
    if folder is None and len(out["runs"]) >= runs:
        record_claim(
            "device.repeatability",
            {"within_5_percent": out["within_5_percent"], "of": runs, "valid": out["valid"]},
            {"within_5_percent": 9, "of": 10},
            out["within_5_percent"] >= 0.9 * runs,
            "experiments/results/devices/repeatability.json",
            f"{MODULE} repeatability",
        )
    return out


def _machine() -> dict[str, Any]:
    return {"system": platform.platform(), "python": platform.python_version()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("study", choices=["coverage", "rejection", "repeatability"])
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--at-once", type=int, default=10)
    parser.add_argument("--output", type=Path, help="folder of a try that makes no claim")
    arguments = parser.parse_args()
    if arguments.study == "coverage":
        coverage()
    elif arguments.study == "rejection":
        rejection()
    else:
        model = arguments.model or reference_model()
        repeatability(model, arguments.runs, arguments.at_once, arguments.output)


if __name__ == "__main__":
    main()
