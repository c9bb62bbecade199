"""What a front of detectors or segmenters is worth, and what its files give in three runtimes.

For each run, after ``nas run`` of its job and ``nas study value`` with its family:

    python -m experiments.tasks.dense_value detection runs/detection_fashion
    python -m experiments.tasks.dense_value segmentation runs/segmentation_fashion
    python -m experiments.tasks.dense_value large runs/detection_large

The last is of detectors of 192 x 192 pixels within 170 KiB, without a family.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from devices.runtime import RUNTIMES
from experiments.results_index import INDEX, record_claim, write_result
from nas.report.results import load_results
from nas.stages.opened_job import RunContext
from nas.stages.pipeline import RunStore
from nas.tasks.boxes import detections
from supernet.resolution import resize_images

RESULTS = Path(__file__).parent.parent / "results"
AHEAD = {"detection": "task.detection_ahead_ap50", "segmentation": "task.segmentation_ahead_miou"}
TARGET = {"detection": 2.0, "segmentation": 0.0}
"""Points of the metric ahead of a hand-made family of equal size."""

RUNTIME_NAMES = ("onnxruntime", "litert", "lowbit")
LARGE_KIB = 170.0
"""ST Yolo LC with weights of 4 and 8 bits has 169 KiB."""

GAP = "task.export_metric_gap"
LARGEST_GAP = 0.5
"""Points between an exported file and its network."""


def main() -> None:
    """Write ``results/tasks_TASK.json`` and record the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("task", choices=[*sorted(AHEAD), "large"])
    parser.add_argument("run", type=Path)
    given = parser.parse_args()
    results = load_results(given.run)
    command = f"python -m experiments.tasks.dense_value {given.task} RUN"
    name = f"tasks_{given.task}.json"
    file = f"experiments/results/{name}"
    files = list(gaps(given.run, results))
    report: dict[str, Any] = {
        "metric": results["metric"],
        "front": [
            {
                "id": e["id"],
                "weights_kib": e["costs"]["weights_kib"],
                "validation": e["validation_accuracy"],
                "test": e.get("test") or {results["metric"]: e["test_accuracy"]},
            }
            for e in results["front"]
        ],
        "files": files,
        "job": f"nas run experiments/tasks/{results['name']}.yaml",
        "seed": results["seed"],
    }
    study = given.run / "studies" / "value.json"
    if study.is_file():
        report |= beside_family(given.task, json.loads(study.read_text()), file, command)
    if given.task == "detection":
        report["decode_ms"] = decode_ms()
    if given.task == "large":
        report["decode_ms"] = decode_ms(cells=720)
        report |= within(results, file, command)
    write_result(RESULTS / name, report, command, packages=("torch", "numpy", "onnxruntime"))
    worst = max(abs(gap) for one in files for gap in one["gap_points"].values())
    known = json.loads(INDEX.read_text()).get(GAP, {}).get("value") or {}
    value = {**known, given.task: round(worst, 3)}
    met = max(value.values()) <= LARGEST_GAP
    record_claim(GAP, value, f"<= {LARGEST_GAP:g} points", met, file, command)
    if given.task == "detection":
        record_claim(
            "task.detection_decode_ms", round(report["decode_ms"], 3), "told beside latencies",
            True, file, command,
        )  # fmt: skip
    print(json.dumps({"gap": worst, **{k: report.get(k) for k in ("decode_ms", "at_size")}}))


def beside_family(task: str, study: dict[str, Any], file: str, command: str) -> dict[str, Any]:
    """Record how far the front is ahead of the family, and return what the report keeps of it."""
    at_size = study["at_size"]["int8"]
    ahead, target = at_size["mean"], TARGET[task]
    met = ahead is not None and ahead >= target
    record_claim(AHEAD[task], ahead, f">= {target:g} points", met, file, command)
    return {
        "seeds": study["seeds"],
        "budget_s": study["budget"],
        "members": [
            {k: m.get(k) for k in ("member", "kind", "seed", "weights_kib", "accuracy")}
            for m in study["members"]
        ],
        "at_size": at_size,
    }


def within(results: Any, file: str, command: str) -> dict[str, Any]:
    """Record the best model within 170 KiB by validation, its latency with decoding beside it."""
    fits = [e for e in results["front"] if e["costs"]["weights_kib"] <= LARGE_KIB]
    best = max(fits, key=lambda e: e["validation_accuracy"])
    found = {
        "best": best["id"],
        "ap50": best["test_accuracy"],
        "weights_kib": best["costs"]["weights_kib"],
        "latency_ms": {name: one["latency_ms"] for name, one in best["devices"].items()},
    }
    record_claim(
        "task.detection_under_170_kib_ap50", found["ap50"], "told, <= 170 KiB at 192 x 192",
        True, file, command,
    )  # fmt: skip
    return found


def gaps(run: Path, results: Any) -> Iterator[dict[str, Any]]:
    """Yield, for each model of the front, the metric of its file by runtime on validation images.

    The network's own metric is that of the verification of the run, on all validation images.
    """
    context = RunContext.of(RunStore.open(run).job(), threads=1)
    subset = context.splits.validation
    sign = 100.0 if context.task.metric_kind().share else 1.0
    for entry in results["front"]:
        parity = entry["parity"]
        size = tuple(entry["plan"]["input_shape"][1:])
        found: dict[str, float] = {}
        for name in RUNTIME_NAMES:
            session = RUNTIMES.get(name)(threads=1).load(run / entry["model"])
            score = context.task.score()
            for pixels, targets in context.splits.evaluation_batches(subset, batch_size=100):
                inputs = resize_images(pixels, size).numpy()
                outputs = [np.array(session(one[None])[0]) for one in inputs]
                score.add(torch.from_numpy(np.concatenate(outputs)), targets)
            found[name] = score.values()[context.task.metric_name]
        network = float(parity["reference_accuracy"])
        yield {
            "id": entry["id"],
            "network": network,
            "files": found,
            "gap_points": {n: round(sign * (v - network), 3) for n, v in found.items()},
        }


def decode_ms(*, images: int = 200, cells: int = 180, classes: int = 10) -> float:
    """Return processor time of decoding and suppression for one image, in ms; of 96 pixels."""
    rng = np.random.default_rng(0)
    outputs = rng.normal(-6, 1.5, (images, 1, cells, classes + 4))
    times = []
    for one in outputs:
        begin = time.process_time_ns()
        detections(one)
        times.append((time.process_time_ns() - begin) / 1e6)
    return float(np.quantile(times, 0.25))


if __name__ == "__main__":
    main()
