"""Latency prediction on NAS-Bench-201 with HELP's split: accuracy, intervals, speed.

The table is ``data/nasbench201/latency`` of github.com/HayeonLee/HELP (MIT), written as a CSV
with the columns ``index, arch_str`` and one a device. Run from the repository::

    python -m experiments.latency.nasbench201 TABLE.csv
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np

from experiments.latency.splits import FitOnce
from experiments.results_index import record_claim
from predictors.benchmark import BASELINES, Record, Split, run_benchmark, summary
from predictors.files import save_predictor
from predictors.transfer_gp.predictor import TransferGP
from search_spaces.atomic import write_json_atomic
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.tables.table import LatencyTable, read_table

TRAIN = (
    "1080ti_1",
    "1080ti_32",
    "1080ti_256",
    "silver_4114",
    "silver_4210r",
    "samsung_a50",
    "pixel3",
    "essential_ph_1",
    "samsung_s7",
)
VALID = ("titanx_1", "titanx_32", "titanx_256", "gold_6240")
TEST = ("titan_rtx_256", "gold_6226", "fpga", "pixel2", "raspi4", "eyeriss")
REFERENCES = (11982, 431, 55, 9, 14451, 8636, 9881, 13479, 6196, 1462)
POOL, HOLDOUT = 900, 1000
RESULTS = Path(__file__).parents[1] / "results" / "latency"
COMMAND = "python -m experiments.latency.nasbench201 TABLE.csv"


def mean_and_interval(records: list[Record], figure: str) -> dict[str, object]:
    """Mean over devices of each seed, then mean and 95 % interval over seeds (Student's t)."""
    from scipy.stats import t

    seeds = sorted({r.seed for r in records})
    means = [np.mean([getattr(r, figure) for r in records if r.seed == s]) for s in seeds]
    half = t.ppf(0.975, len(means) - 1) * np.std(means, ddof=1) / np.sqrt(len(means))
    centre = float(np.mean(means))
    return {"mean": centre, "low": centre - float(half), "high": centre + float(half)}


def split(measurements: int, references: tuple[int, ...] = ()) -> Split:
    """HELP's devices and rows."""
    return Split(TRAIN, TEST, measurements, POOL, HOLDOUT, references=references)


def baseline_records(file: Path) -> list[Record]:
    """Records of the baselines in an earlier result; none if there is no such file."""
    if not file.exists():
        return []
    records = [Record(**values) for values in json.loads(file.read_text())["records"]]
    return [r for r in records if r.method != "transfer_gp"]


def speed(table: LatencyTable, predictor: TransferGP, fit_s: float) -> dict[str, float]:
    """Adaptation and 10,000 predictions with deviations; all in CPU time of this process.

    One thread, so CPU time is what a clock shows on a machine with nothing else to do.
    """
    save_predictor(predictor, RESULTS / ".speed.safetensors")
    (RESULTS / ".speed.safetensors").unlink()
    genes = table.genes[:POOL]
    chosen = predictor.suggest_genes(genes, 10, np.random.default_rng(0))
    values = table.column(TEST[0])[chosen]
    many = table.space.sample_genes(np.random.default_rng(0), 10_000)
    adapt, predict = [], []
    for _ in range(7):
        start = time.process_time()
        adapted = predictor.adapt_genes(genes[chosen], values)
        adapt.append(time.process_time() - start)
        start = time.process_time()
        adapted.predict_genes(many)
        predict.append(time.process_time() - start)
    return {
        "meta_fit_cpu_s": fit_s,
        "adapt_ms": 1e3 * float(np.median(adapt)),
        "predict_10000_s": float(np.median(predict)),
    }


def with_validation(table: LatencyTable, seeds: int) -> None:
    """Ten measurements where HELP's validation devices weigh the prior and the intervals, too."""
    validated = replace(split(10), meta_valid=VALID)
    records = run_benchmark(table, validated, seeds=seeds)
    write_json_atomic(
        RESULTS / "nasbench201_10_validated.json",
        {
            "spearman_trimmed": mean_and_interval(records, "spearman_trimmed"),
            "coverage_90": coverage_of(records),
            "summary": summary(records),
        },
    )


def coverage_of(records: list[Record]) -> dict[str, float]:
    """Mean coverage over seeds by device."""
    return {d: float(np.mean([r.coverage_90 for r in records if r.device == d])) for d in TEST}


def main() -> None:
    """Run everything and write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("table", type=Path)
    parser.add_argument("--seeds", type=int, default=10)
    parser.add_argument(
        "--keep-baselines",
        action="store_true",
        help="keep the baselines' records of an earlier run, run the default predictor only",
    )
    parser.add_argument(
        "--validated", action="store_true", help="only the run with HELP's validation devices"
    )
    arguments = parser.parse_args()
    table = read_table(arguments.table, NasBench201()).rows(range(max(REFERENCES) + 1))
    with_validation(table, arguments.seeds)
    if arguments.validated:
        return
    make = FitOnce()
    predictor = make("transfer_gp", table)
    assert isinstance(predictor, TransferGP)
    start = time.process_time()
    predictor.meta_fit(table.rows(range(POOL)).select(TRAIN))
    fit_s = time.process_time() - start
    for measurements, target, stretch in ((10, 0.942, 0.947), (20, 0.947, 0.952)):
        file = RESULTS / f"nasbench201_{measurements}.json"
        kept = baseline_records(file) if arguments.keep_baselines else []
        others = BASELINES if measurements == 10 and not kept else ()
        methods = ("transfer_gp", *others)
        records = run_benchmark(
            table, split(measurements), methods=methods, seeds=arguments.seeds, make=make
        )
        records += kept
        own = [r for r in records if r.method == "transfer_gp"]
        trimmed = mean_and_interval(own, "spearman_trimmed")
        coverage = coverage_of(own)
        write_json_atomic(
            file,
            {
                "spearman_trimmed": trimmed,
                "spearman": mean_and_interval(own, "spearman"),
                "coverage_90": coverage,
                "summary": summary(records),
                "records": [r.as_dict() for r in records],
            },
        )
        name = f"experiments/results/latency/{file.name}"
        value = round(float(trimmed["mean"]), 4)  # type: ignore[arg-type]
        key = f"latency.nb201_{measurements}"
        record_claim(key, value, target, value >= target, name, COMMAND)
        record_claim(f"{key}_stretch", value, stretch, value >= stretch, name, COMMAND)
        if measurements == 10:
            inside = all(0.85 <= c <= 0.95 for c in coverage.values())
            rounded = {d: round(c, 3) for d, c in coverage.items()}
            record_claim("latency.coverage_90", rounded, [0.85, 0.95], inside, name, COMMAND)
    timing = speed(table, predictor, fit_s)
    write_json_atomic(RESULTS / "speed.json", timing)
    name = "experiments/results/latency/speed.json"
    for key, figure, target in (
        ("latency.adapt_ms", "adapt_ms", 50.0),
        ("latency.predict_10000_s", "predict_10000_s", 0.2),
        ("latency.meta_fit_s", "meta_fit_cpu_s", 120.0),
    ):
        value = round(timing[figure], 4)
        record_claim(key, value, target, value <= target, name, COMMAND)


if __name__ == "__main__":
    main()
