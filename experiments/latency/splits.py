"""The default predictor against the baselines and HELP on many tables and random splits.

Tables are given as ``FILE`` or ``FILE:SPACE``; made-up tables of chains with 22 positions (as
FBNet's) are always there: clean, noisy, in whole milliseconds with glitches, with a third of
the cells missing. For each table, known devices and test devices are drawn at random. Run from
the repository::

    python -m experiments.latency.splits TABLE.csv:nasbench201

HELP is meta-trained anew for each split, which takes minutes: it runs on the first
``--help-draws`` splits of each table, for the numbers of known devices in ``--help-known``,
where the budget leaves it something to fine-tune on. Combinations that are in the result file
already are not run again. ``summary`` in that file has the mean of each figure over the devices
of all splits, with the 95 % interval of that mean (devices resampled).
"""

from __future__ import annotations

import argparse
import json
from argparse import Namespace
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from predictors.benchmark import (
    DEFAULT_METHOD,
    Record,
    Split,
    baselines_for,
    make_predictor,
    run_benchmark,
)
from predictors.help_devices import REFERENCES
from predictors.registry import LatencyPredictor
from search_spaces.atomic import write_json_atomic
from search_spaces.seeds import derive_rng
from search_spaces.tables.spaces import table_space
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable, declared_space, read_table

RESULTS = Path(__file__).parents[1] / "results" / "latency" / "splits.json"
MADE_UP: dict[str, dict[str, float]] = {
    "chains-clean": {"noise": 0.0},
    "chains-noisy": {"noise": 0.05},
    "chains-whole-ms": {"noise": 0.02, "whole_ms": 12, "glitches": 0.02},
    "chains-missing": {"noise": 0.02, "missing": 0.33},
}
FIGURES = ("spearman", "spearman_trimmed", "mape", "coverage_90")


@dataclass(frozen=True)
class Case:
    """One random split of one table."""

    table: str
    known: int
    draw: int

    def split(self, table: LatencyTable, measurements: int, rows: int, tests: int) -> Split:
        """Draw the devices; half of ``rows`` may be learned from, the rest is scored."""
        rng = derive_rng(self.draw, "split", self.table, self.known)
        devices = [str(d) for d in rng.permutation(table.devices)]
        known, test = devices[: self.known], devices[self.known : self.known + tests]
        return Split(tuple(known), tuple(test), measurements, rows // 2, rows - rows // 2)


class FitOnce:
    """Builds the predictor of each method and meta-fits it once for all measurement budgets."""

    def __init__(self) -> None:
        self._fitted: dict[str, LatencyPredictor] = {}

    def __call__(
        self, method: str, table: LatencyTable, references: tuple[int, ...] = ()
    ) -> LatencyPredictor:
        """Return the predictor of ``method``; its second meta-fit changes nothing."""
        if method not in self._fitted:
            predictor = make_predictor(method, table, references)
            fit = predictor.meta_fit

            def once(known: LatencyTable, *, valid: LatencyTable | None = None) -> LatencyPredictor:
                fit(known, valid=valid)
                predictor.meta_fit = lambda known, *, valid=None: predictor  # type: ignore[method-assign]
                return predictor

            predictor.meta_fit = once  # type: ignore[method-assign]
            self._fitted[method] = predictor
        return self._fitted[method]


def tables(files: list[str], rows: int) -> Iterator[tuple[str, LatencyTable]]:
    """The tables of ``files``, then the made-up ones, with at most ``rows`` random rows."""
    for file in files:
        name, _, space = file.partition(":")
        table = read_table(name, table_space(space or declared_space(name) or "tokens"))
        order = derive_rng(0, "rows", Path(name).stem).permutation(len(table))[:rows]
        yield Path(name).stem, table.rows(order)
    for name, traits in MADE_UP.items():
        yield name, synthetic_table(architectures=rows, devices=12, positions=22, **traits)


def figures(records: list[Record]) -> dict[str, dict[str, dict[str, float | None]]]:
    """Means over seeds: method -> device -> figure."""
    out: dict[str, dict[str, dict[str, float | None]]] = {}
    for record in records:
        out.setdefault(record.method, {}).setdefault(record.device, {})
    for method, devices in out.items():
        for device, means in devices.items():
            group = [r for r in records if r.method == method and r.device == device]
            for figure in FIGURES:
                found = [getattr(r, figure) for r in group if getattr(r, figure) is not None]
                means[figure] = round(float(np.mean(found)), 4) if found else None
    return out


def summary(results: dict[str, dict]) -> dict[str, dict[str, dict[str, list[float]]]]:
    """Mean over devices of all splits, and its 95 % interval: case -> method -> figure -> [3]."""
    cases: dict[str, dict[str, dict[str, list[float]]]] = {}
    for key, result in results.items():
        case = cases.setdefault(key.rpartition(" split=")[0], {})
        for method, devices in result["methods"].items():
            for means in devices.values():
                for figure, value in means.items():
                    if value is not None:
                        case.setdefault(method, {}).setdefault(figure, []).append(value)
    return {
        case: {
            method: {figure: interval(values) for figure, values in found.items()}
            for method, found in methods.items()
        }
        for case, methods in cases.items()
    }


def interval(values: list[float]) -> list[float]:
    """Mean, and the ends of its 95 % bootstrap interval."""
    rng = derive_rng(0, "interval")
    means = np.asarray(values)[rng.integers(0, len(values), (2000, len(values)))].mean(axis=1)
    return [round(float(v), 4) for v in (np.mean(values), *np.quantile(means, [0.025, 0.975]))]


def methods_of(case: Case, table: LatencyTable, budget: int, arguments: Namespace) -> list[str]:
    """The default, the baselines, and HELP where it is asked for and possible."""
    methods = [DEFAULT_METHOD, *baselines_for(table, ("known",) * case.known)]
    if arguments.methods:
        methods = [m for m in methods if m in arguments.methods.split(",")]
        if "help" not in arguments.methods.split(","):
            return methods
    asked = case.draw < arguments.help_draws and case.known in _numbers(arguments.help_known)
    if asked and budget > REFERENCES:
        methods.append("help")
    return methods


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def main() -> None:
    """Run the combinations that are missing and write the results after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="FILE or FILE:SPACE")
    parser.add_argument("--known", default="0,1,2,3,5,9")
    parser.add_argument("--measurements", default="5,10,20")
    parser.add_argument("--draws", type=int, default=2, help="random splits of each table")
    parser.add_argument("--rows", type=int, default=600, help="architectures of each table")
    parser.add_argument("--tests", type=int, default=3, help="test devices of a split")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--methods", help="only these of them; default: all")
    parser.add_argument("--help-known", default="1,3,9", help="known devices for HELP")
    parser.add_argument("--help-draws", type=int, default=1, help="splits HELP runs on")
    parser.add_argument("--output", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    results: dict[str, dict] = {}
    if arguments.output.exists():
        results = json.loads(arguments.output.read_text())["splits"]
    for name, table in tables(arguments.tables, arguments.rows):
        for known in _numbers(arguments.known):
            for draw in range(arguments.draws):
                make, case = FitOnce(), Case(name, known, draw)
                for budget in _numbers(arguments.measurements):
                    key = f"{name} known={known} measurements={budget} split={draw}"
                    split = case.split(table, budget, arguments.rows, arguments.tests)
                    result = results.setdefault(
                        key, {"meta_train": split.meta_train, "test": split.test, "methods": {}}
                    )
                    wanted = methods_of(case, table, budget, arguments)
                    methods = [m for m in wanted if m not in result["methods"]]
                    if not methods:
                        continue
                    records = run_benchmark(
                        table, split, methods=methods, seeds=arguments.seeds, make=make
                    )
                    result["methods"] |= figures(records)
                    write_json_atomic(
                        arguments.output, {"summary": summary(results), "splits": results}
                    )
                    print(key, *methods, flush=True)


if __name__ == "__main__":
    main()
