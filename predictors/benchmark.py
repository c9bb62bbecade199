"""The protocol latency predictors are compared by, on any table and any split.

Rows 0..pool-1 of the table are what may be learned from and measured; the next ``holdout``
rows are scored. Every measurement of the target device counts, reference architectures
included, and a measured row is never scored. The meta-fit is done once; seeds vary which
architectures are measured.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from predictors import baselines, simple_baselines
from predictors import help as help_module
from predictors.declared import gene_keys
from predictors.help_devices import REFERENCES, choose_references
from predictors.registry import LATENCY_PREDICTORS, LatencyPredictor
from predictors.transfer_gp import predictor as latency
from search_spaces.errors import InputError
from search_spaces.seeds import derive_rng
from search_spaces.tables.table import LatencyTable

BUILT_IN = (baselines, simple_baselines, help_module, latency)
"""Modules whose import registers the methods of this package."""

DEFAULT_METHOD = "transfer_gp"

BASELINES = (
    "one_known_device",
    "known_devices_ridge",
    "counts_ridge",
    "log_ridge",
    "macs",
    "lookup",
    "ridge",
    "trees",
    "target_gp",
)
"""Simple methods, shown beside any other; all but the first two see the target device alone."""

OF_KNOWN_DEVICES = ("one_known_device", "known_devices_ridge")
"""Baselines that need a known device."""


@dataclass(frozen=True)
class Split:
    """Which devices and rows play which part.

    Attributes:
        meta_train, meta_valid, test: device names; no test device may be known before.
        measurements: budget on each test device.
        pool: rows 0..pool-1 may be learned from and measured.
        holdout: the rows that follow are scored.
        references: rows that may be measured beside the pool (and are learned from).
    """

    meta_train: tuple[str, ...]
    test: tuple[str, ...]
    measurements: int
    pool: int
    holdout: int
    meta_valid: tuple[str, ...] = ()
    references: tuple[int, ...] = ()

    def check(self, table: LatencyTable) -> None:
        """Raise InputError for a device or row that is not there or in two parts at once."""
        for device in (*self.meta_train, *self.meta_valid, *self.test):
            table.column_index(device)
        if not self.test:
            raise InputError(
                f"no test device is given; name some with --test (there are "
                f"{', '.join(table.devices)})"
            )
        known = set(self.meta_train) | set(self.meta_valid)
        leaked = sorted(known & set(self.test))
        if leaked:
            raise InputError(
                f"test device {leaked[0]!r} is also given for meta-training or validation; "
                "take it out of one of the two"
            )
        for part in (self.meta_train, self.meta_valid, self.test):
            twice = sorted({d for d in part if part.count(d) > 1})
            if twice:
                raise InputError(f"device {twice[0]!r} is given twice")
        both = sorted(set(self.meta_train) & set(self.meta_valid))
        if both:
            raise InputError(
                f"device {both[0]!r} is given for meta-training and validation; "
                "take it out of one of the two"
            )
        for name in ("measurements", "pool", "holdout"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} is {getattr(self, name)}; it must be at least 1")
        if self.pool + self.holdout > len(table):
            raise InputError(
                f"pool {self.pool} and holdout {self.holdout} need "
                f"{self.pool + self.holdout} architectures; the table has {len(table)}; "
                "lower --pool or --holdout"
            )
        outside = [r for r in self.references if not 0 <= r < len(table)]
        if outside:
            raise InputError(f"reference row {outside[0]} is not in 0..{len(table) - 1}")
        if len(set(self.references)) != len(self.references):
            raise InputError("a reference row is given twice")


@dataclass(frozen=True)
class Record:
    """One method on one device with one seed. Fractions are 0..1; None is undefined."""

    method: str
    device: str
    seed: int
    measurements: int
    spearman: float | None
    spearman_trimmed: float | None
    kendall: float | None
    rmse_ms: float | None
    mape: float | None
    within_10_percent: float | None
    coverage_90: float | None
    adapt_ms: float

    def as_dict(self) -> dict[str, object]:
        """Return the record as JSON-ready values."""
        return asdict(self)


def make_predictor(
    method: str, table: LatencyTable, references: Sequence[int] = (), *, seed: int = 0
) -> LatencyPredictor:
    """Return an untrained predictor for the table's space; HELP takes the reference rows."""
    cls: Callable[..., LatencyPredictor] = LATENCY_PREDICTORS.get(method)
    if method == "help" and len(references):
        if len(references) != REFERENCES:
            raise InputError(
                f"HELP embeds a device by {REFERENCES} references, not {len(references)}"
            )
        return cls(table.space, seed=seed, references=table.genes[list(references)])
    if method == "macs":
        return cls(table.space, seed=seed, table=table)
    return cls(table.space, seed=seed)


def baselines_for(table: LatencyTable, known_devices: Sequence[str] = ()) -> tuple[str, ...]:
    """Return the baselines that are defined: ``macs`` needs the MACs, others known devices."""
    left_out = set() if known_devices else set(OF_KNOWN_DEVICES)
    if not hasattr(table.space, "costs") and "macs" not in table.costs:
        left_out.add("macs")
    return tuple(name for name in BASELINES if name not in left_out)


def run_benchmark(
    table: LatencyTable,
    split: Split,
    *,
    methods: Sequence[str] = (DEFAULT_METHOD,),
    seeds: int = 10,
    make: Callable[..., LatencyPredictor] = make_predictor,
    progress: Callable[[str], None] | None = None,
) -> list[Record]:
    """Run every method on every test device and seed.

    Args:
        make: builds a predictor from (method, table, reference rows).
        progress: called with a line of text now and then.

    Raises:
        InputError: the split does not fit the table, or a method cannot work with it.
    """
    split.check(table)
    if seeds < 1:
        raise InputError(f"seeds is {seeds}; it must be at least 1")
    for method in methods:
        LATENCY_PREDICTORS.get(method)
    if "help" in methods and split.measurements <= REFERENCES:
        raise InputError(
            f"method help spends {REFERENCES} measurements on references and "
            f"the rest on fine-tuning: --measurements must exceed {REFERENCES}"
        )
    extra = [r for r in split.references if r >= split.pool]
    rows = np.array([*range(split.pool), *extra])
    for device in split.test:
        _check_measured(table, split, rows, device)
    known = table.rows(rows)
    records = []
    for method in methods:
        references = split.references
        if method == "help" and not references:
            references = _help_references(table, split)
        predictor = make(method, table, references)
        predictor.declare(table)
        valid = known.select(split.meta_valid) if split.meta_valid else None
        start = time.perf_counter()
        predictor.meta_fit(known.select(split.meta_train), valid=valid)
        if progress:
            progress(f"{method}: meta-fit {time.perf_counter() - start:.1f} s")
        for device in split.test:
            for seed in range(seeds):
                records.append(_run_one(predictor, method, table, split, rows, device, seed))
    return records


def _help_references(table: LatencyTable, split: Split) -> tuple[int, ...]:
    """Rows of the pool for HELP's embedding, measured on every test device."""
    pool = table.rows(range(split.pool))
    allowed = np.isfinite(pool.select(split.test).values).all(axis=1)
    chosen = choose_references(pool.select(split.meta_train), allowed)
    return tuple(int(row) for row in chosen)


def _check_measured(table: LatencyTable, split: Split, rows: np.ndarray, device: str) -> None:
    """Refuse, before anything takes long, a device that cannot be measured as often as asked."""
    count = int(np.isfinite(table.column(device)[rows]).sum())
    if count < split.measurements:
        raise InputError(
            f"device {device!r} has {count} measured architectures in the pool, "
            f"fewer than the {split.measurements} asked for; "
            "lower --measurements or raise --pool"
        )


def _run_one(
    predictor: LatencyPredictor,
    method: str,
    table: LatencyTable,
    split: Split,
    rows: np.ndarray,
    device: str,
    seed: int,
) -> Record:
    values = table.column(device)
    candidates = rows[np.isfinite(values[rows])]
    rng = derive_rng(seed, "measurements", device)
    picked = predictor.suggest_genes(table.genes[candidates], split.measurements, rng)
    measured = candidates[picked]
    start = time.perf_counter()
    adapted = predictor.adapt_genes(table.genes[measured], values[measured])
    adapt_ms = 1e3 * (time.perf_counter() - start)
    held = np.arange(split.pool, split.pool + split.holdout)
    held = held[np.isfinite(values[held])]
    # By architecture, not by row: a table may list one twice.
    used = set(gene_keys(table.genes[measured]))
    held = held[[key not in used for key in gene_keys(table.genes[held])]]
    mean, _ = adapted.predict_genes(table.genes[held])
    low, high = adapted.interval_genes(table.genes[held], 0.9)
    scores = score(values[held], mean, low, high)
    return Record(
        method=method,
        device=device,
        seed=seed,
        measurements=len(set(measured.tolist())),
        adapt_ms=adapt_ms,
        **scores,
    )


def score(
    truth: np.ndarray, mean: np.ndarray, low: np.ndarray, high: np.ndarray
) -> dict[str, float | None]:
    """Every figure of a record from true and predicted latencies in ms, all (n,)."""
    from scipy.stats import kendalltau, spearmanr

    n = len(truth)
    if n == 0:
        names = ("spearman", "spearman_trimmed", "kendall", "rmse_ms", "mape")
        return dict.fromkeys((*names, "within_10_percent", "coverage_90"))
    order = np.argsort(truth, kind="stable")
    middle = order[int(0.1 * n) : int(0.9 * n)]
    positive = truth > 0
    relative = np.abs(mean[positive] - truth[positive]) / truth[positive]
    return {
        "spearman": _correlation(spearmanr, truth, mean),
        "spearman_trimmed": _correlation(spearmanr, truth[middle], mean[middle]),
        "kendall": _correlation(kendalltau, truth, mean),
        "rmse_ms": float(np.sqrt(np.mean((mean - truth) ** 2))),
        "mape": float(relative.mean()) if relative.size else None,
        "within_10_percent": float((relative <= 0.1).mean()) if relative.size else None,
        "coverage_90": float(((truth >= low) & (truth <= high)).mean()),
    }


def _correlation(statistic: Callable, a: np.ndarray, b: np.ndarray) -> float | None:
    # A constant has no rank correlation with anything.
    if len(a) < 2 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return None
    return float(statistic(a, b)[0])


def summary(records: Sequence[Record]) -> list[dict[str, Any]]:
    """Mean over seeds for each method and device, then over devices (``device`` is "mean")."""
    out: list[dict[str, Any]] = []
    for method in dict.fromkeys(r.method for r in records):
        rows: list[dict[str, Any]] = []
        for device in dict.fromkeys(r.device for r in records if r.method == method):
            group = [r for r in records if r.method == method and r.device == device]
            rows.append({"method": method, "device": device, **_means(group)})
        overall: dict[str, Any] = {"method": method, "device": "mean"}
        for name in _FIGURES:
            found = [float(row[name]) for row in rows if row[name] is not None]
            overall[name] = float(np.mean(found)) if found else None
        out += [*rows, overall]
    return out


_FIGURES = (
    "spearman",
    "spearman_trimmed",
    "kendall",
    "rmse_ms",
    "mape",
    "within_10_percent",
    "coverage_90",
    "adapt_ms",
)


def _means(records: Sequence[Record]) -> dict[str, float | None]:
    out: dict[str, float | None] = {}
    for name in _FIGURES:
        found = [getattr(r, name) for r in records if getattr(r, name) is not None]
        out[name] = float(np.mean(found)) if found else None
    return out
