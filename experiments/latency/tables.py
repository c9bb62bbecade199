"""The default predictor beside the simple baselines on tables of many kinds.

Made-up tables (:mod:`experiments.latency.families`) stand in for published ones: chains, chains
with few or unlike known devices, networks with a resolution, transformers as ten numbers, YOLO
families, a collection of models with MACs declared, accelerators with MACs declared. With
NAS-Bench-201's latencies as a CSV, phones and accelerators of it are cases, too. Run from the
repository::

    python -m experiments.latency.tables [TABLE.csv]

Claims: ``latency.fbnet_like`` (chains, many known devices), ``latency.never_below_baseline`` (share
of cases where no simple baseline ranks better by more than 0.005), ``latency.coverage_all`` (share
of devices whose 90 % intervals cover 0.85 to 0.95, and the lowest coverage of any).
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import scipy

from experiments.latency import families
from experiments.latency.families import devices_of
from experiments.latency.splits import FitOnce
from experiments.results_index import record_claim
from predictors.benchmark import DEFAULT_METHOD, Split, run_benchmark, summary
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.tables.table import LatencyTable, read_table

RESULTS = Path(__file__).parents[1] / "results" / "latency" / "tables.json"
COMMAND = "python -m experiments.latency.tables TABLE.csv"
SIMPLE = ("one_known_device", "known_devices_ridge", "counts_ridge", "log_ridge", "macs")
TOLERANCE = 0.005
ROWS, POOL = 400, 200


@dataclass(frozen=True)
class Case:
    """A table, its known devices and its new ones, and how often these are measured."""

    name: str
    table: LatencyTable
    known: tuple[str, ...]
    test: tuple[str, ...]
    measurements: tuple[int, ...] = (10,)


def cases(published: Path | None) -> Iterator[Case]:
    """Every case; NAS-Bench-201's where its table is given."""
    chains = families.fbnet_like(
        ROWS, devices_of({"gpu": 4, "cpu": 3, "phone": 5, "tpu": 1, "fpga": 1})
    )
    others = ("cpu2", "phone3", "phone4", "tpu0", "fpga0")
    yield Case(
        "chains, 5 known of three classes",
        chains,
        ("gpu0", "gpu1", "cpu0", "phone0", "phone1"),
        ("gpu3", *others),
        (10, 20),
    )
    ofa = families.ofa_like(ROWS, devices_of({"gpu": 2, "cpu": 3, "phone": 3}))
    new = ("gpu1", "cpu2", "phone1", "phone2")
    yield Case("resolution and blocks, 1 known", ofa, ("gpu0",), new)
    yolo = families.yolo_like(ROWS, devices_of({"gpu": 2, "cpu": 2, "phone": 1}))
    yield Case("families of detectors, none known", yolo, (), yolo.devices)
    models = families.collection(ROWS, devices_of({"gpu": 2, "cpu": 2}))
    yield Case("collection with MACs, none known", models, (), models.devices)
    yield Case("collection with MACs, 1 known", models, ("gpu0",), ("gpu1", "cpu0", "cpu1"))
    chips = families.accelerators(ROWS, devices_of({"tpu": 3, "fpga": 3, "gpu": 2}))
    new = ("tpu0", "fpga0", "fpga1", "gpu1")
    yield Case("accelerators with MACs, 1 known", chips, ("gpu0",), new)
    yield Case(
        "resolution and blocks, 4 known",
        ofa,
        ("gpu0", "cpu0", "cpu1", "phone0"),
        ("gpu1", "cpu2", "phone1", "phone2"),
    )
    yield Case("chains, 3 graphics cards known", chains, ("gpu0", "gpu1", "gpu2"), others, (20,))
    yield Case("chains, 2 phones known", chains, ("phone0", "phone1"), ("gpu3", *others), (20,))
    yield Case("accelerators with MACs, 3 known", chips, ("gpu0", "tpu1", "fpga2"), new)
    ten = families.transformers(ROWS, devices_of({"gpu": 2, "cpu": 2, "phone": 1}))
    yield Case("ten numbers, none known", ten, (), ten.devices, (10, 20))
    if published is not None:
        table = read_table(published, NasBench201())
        table = table.rows(derive_rng(0, "rows").permutation(len(table))[:ROWS])
        new = ("pixel2", "raspi4", "eyeriss", "fpga", "essential_ph_1", "gold_6226")
        yield Case(
            "NAS-Bench-201, 4 phones and processors known",
            table,
            ("silver_4114", "samsung_a50", "pixel3", "samsung_s7"),
            new,
            (10, 20),
        )
        yield Case("NAS-Bench-201, none known", table, (), new, (20,))


def methods_of(case: Case) -> list[str]:
    """The default and the simple baselines that are defined in a case."""
    left_out = set() if case.known else {"one_known_device", "known_devices_ridge"}
    if "macs" not in case.table.costs and not hasattr(case.table.space, "costs"):
        left_out.add("macs")
    return [DEFAULT_METHOD, *(name for name in SIMPLE if name not in left_out)]


def run(case: Case, seeds: int) -> dict[str, list[dict[str, object]]]:
    """Means over seeds of every method: "case, n measurements" -> rows of a summary."""
    make, out = FitOnce(), {}
    for measurements in case.measurements:
        holdout = len(case.table) - POOL
        split = Split(case.known, case.test, measurements, POOL, holdout)
        records = run_benchmark(case.table, split, methods=methods_of(case), seeds=seeds, make=make)
        out[f"{case.name}, {measurements} measurements"] = summary(records)
    return out


def means_of(rows: list[dict[str, object]]) -> dict[str, float]:
    """Trimmed Spearman of each method, the mean over devices."""
    return {
        str(row["method"]): float(row["spearman_trimmed"])  # type: ignore[arg-type]
        for row in rows
        if row["device"] == "mean" and row["spearman_trimmed"] is not None
    }


def claims(results: dict[str, list[dict[str, object]]]) -> None:
    """Record what the results say, met or not."""
    name = f"experiments/results/latency/{RESULTS.name}"
    means = {key: means_of(rows) for key, rows in results.items()}
    first = [key for key in means if key.startswith("chains, 5 known")]
    reached = {
        key.split(", ")[-1].split()[0]: round(means[key][DEFAULT_METHOD], 4) for key in first
    }
    target = {"10": 0.945, "20": 0.955}
    met = all(reached[n] >= target[n] for n in target)
    record_claim("latency.fbnet_like", reached, target, met, name, COMMAND)
    below = [
        key
        for key, found in means.items()
        if found[DEFAULT_METHOD] < max(found.values()) - TOLERANCE
    ]
    value = {"share": round(1 - len(below) / len(means), 3), "cases": len(means)}
    record_claim("latency.never_below_baseline", value, {"share": 1.0}, not below, name, COMMAND)
    coverage = [
        float(row["coverage_90"])  # type: ignore[arg-type]
        for rows in results.values()
        for row in rows
        if row["method"] == DEFAULT_METHOD and row["device"] != "mean"
    ]
    inside = round(float(np.mean([0.85 <= c <= 0.95 for c in coverage])), 3)
    found = {"inside": inside, "lowest": round(min(coverage), 3), "devices": len(coverage)}
    wanted = {"inside": 0.85, "lowest": 0.75}
    met = found["inside"] >= 0.85 and found["lowest"] >= 0.75
    record_claim("latency.coverage_all", found, wanted, met, name, COMMAND)


def main() -> None:
    """Run the cases that are missing, write the results after each, then the claims."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", nargs="?", type=Path, help="of NAS-Bench-201's latencies")
    parser.add_argument("--seeds", type=int, default=10)
    arguments = parser.parse_args()
    results: dict[str, list[dict[str, object]]] = {}
    if RESULTS.exists():
        results = json.loads(RESULTS.read_text())["cases"]
    about = {
        "command": COMMAND,
        "seeds": arguments.seeds,
        "python": sys.version.split()[0],
        "numpy": np.__version__,
        "scipy": scipy.__version__,
        "machine": platform.machine(),
    }
    for case in cases(arguments.table):
        if all(f"{case.name}, {n} measurements" in results for n in case.measurements):
            continue
        results |= run(case, arguments.seeds)
        write_json_atomic(RESULTS, {"about": about, "cases": results})
        for key in list(results)[-len(case.measurements) :]:
            found = {method: round(mean, 3) for method, mean in means_of(results[key]).items()}
            print(key, found, flush=True)
        claims(results)


if __name__ == "__main__":
    main()
