"""Record what finished runs of the main job found, and whether they met their targets.

    nas run experiments/fashion_mnist.yaml --output runs/fashion_mnist
    nas run experiments/digits.yaml --output runs/digits
    python -m experiments.main_job runs/fashion_mnist runs/digits

Each run gives ``results/main_job/<name>.json`` and ``<name>_front.csv``.
"""

from __future__ import annotations

import argparse
import csv
import json
import shutil
from pathlib import Path
from typing import Any

from experiments.results_index import record_claim
from search_spaces.atomic import write_json_atomic

RESULTS = Path(__file__).parent / "results" / "main_job"
LIMITS_MINUTES = {"fashion_mnist": 25, "digits": 3}


def summarise(run: Path) -> dict[str, Any]:
    """Return the figures of a finished run, with everything needed to repeat it."""
    results = json.loads((run / "results.json").read_text())
    with open(run / "front.csv", newline="") as file:
        front = list(csv.DictReader(file))
    latencies = [float(row["latency_ms"]) for row in front]
    sizes = [float(row["weights_kib"]) for row in front]
    best = max(front, key=lambda row: float(row["accuracy"]))
    smallest = min(front, key=lambda row: float(row["weights_kib"]))
    return {
        "name": results["name"],
        "seed": results["seed"],
        "job": json.loads((run / "manifest.json").read_text())["job"],
        "space_cardinality": results["space"]["cardinality"],
        "minutes": round(sum(stage["seconds"] for stage in results["timing"]) / 60, 2),
        "timing": results["timing"],
        "front_size": len({row["id"] for row in front}),
        "evaluations": len(results["evaluations"]),
        "verified_and_not_on_the_front": len(results["rejected"]),
        "latency_valid": sum(row["latency_valid"] == "true" for row in front),
        "best": best,
        "smallest": smallest,
        "latency_span": max(latencies) / min(latencies),
        "size_span": max(sizes) / min(sizes),
        "smallest_agreement_of_a_file": min(float(row["agreement"]) for row in front),
        "versions": results["provenance"]["versions"],
        "hardware": results["provenance"]["hardware"],
        "threads": results["provenance"]["threads"],
    }


def record(summary: dict[str, Any], file: str) -> None:
    """Enter the claims of a run into the index."""
    name = summary["name"]
    command = f"nas run experiments/{name}.yaml && python -m experiments.main_job runs/{name}"

    def claim(key: str, value: float, target: str, met: bool) -> None:
        record_claim(f"main.{name}_{key}", value, target, met, file, command)

    limit = LIMITS_MINUTES[name]
    claim("minutes", summary["minutes"], f"<= {limit}", summary["minutes"] <= limit)
    if name != "fashion_mnist":
        return
    accuracy = float(summary["best"]["accuracy"])
    kib = float(summary["smallest"]["weights_kib"])
    span = max(summary["latency_span"], summary["size_span"])
    size = summary["front_size"]
    claim("cardinality", float(summary["space_cardinality"]), ">= 1e12",
          float(summary["space_cardinality"]) >= 1e12)  # fmt: skip
    claim("front_size", size, ">= 8", size >= 8)
    claim("span", round(span, 2), ">= 3 in latency or size", span >= 3)
    claim("best_test_accuracy", accuracy, ">= 0.915", accuracy >= 0.915)
    claim("smallest_weights_kib", kib, "< 30", kib < 30)


def main() -> None:
    """Summarise and record every run named on the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="+", type=Path)
    for run in parser.parse_args().runs:
        summary = summarise(run)
        file = RESULTS / f"{summary['name']}.json"
        write_json_atomic(file, summary)
        shutil.copyfile(run / "front.csv", RESULTS / f"{summary['name']}_front.csv")
        record(summary, f"experiments/results/main_job/{file.name}")
        print(f"{summary['name']}: {summary['front_size']} models in {summary['minutes']} minutes")


if __name__ == "__main__":
    main()
