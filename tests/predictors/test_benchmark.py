from __future__ import annotations

import numpy as np
import pytest

from predictors.benchmark import (
    BASELINES,
    Split,
    baselines_for,
    run_benchmark,
    score,
    summary,
)
from search_spaces.errors import InputError
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return synthetic_table(architectures=150, devices=4, positions=4)


def _split(**changes: object) -> Split:
    values = {
        "meta_train": ("device0", "device1"),
        "test": ("device3",),
        "measurements": 10,
        "pool": 80,
        "holdout": 60,
    }
    return Split(**{**values, **changes})  # type: ignore[arg-type]


def test_one_record_a_method_device_and_seed(table: LatencyTable) -> None:
    split = _split(test=("device2", "device3"))
    records = run_benchmark(table, split, methods=("ridge", "target_gp"), seeds=2)
    keys = [(r.method, r.device, r.seed) for r in records]
    assert len(set(keys)) == len(keys) == 8
    assert all(r.measurements == 10 for r in records)
    assert [row["device"] for row in summary(records)].count("mean") == 2


def test_the_same_seed_gives_the_same_record(table: LatencyTable) -> None:
    first, second = (run_benchmark(table, _split(), methods=("ridge",), seeds=1) for _ in "ab")
    assert first[0].spearman == second[0].spearman


def test_references_are_measured_and_counted_but_never_scored(table: LatencyTable) -> None:
    scored = []

    def spying(method, table, references):
        from predictors.baselines import Ridge

        class Spy(Ridge):
            def suggest_genes(self, genes, n, rng):
                return np.arange(len(genes))[-n:]  # the references come last

            def adapt_genes(self, genes, latencies_ms):
                adapted = super().adapt_genes(genes, latencies_ms)
                predict = adapted.predict_genes
                adapted.predict_genes = lambda g: (scored.append(len(g)), predict(g))[1]
                return adapted

        return Spy(table.space)

    references = tuple(range(100, 110))
    records = run_benchmark(
        table, _split(references=references), methods=("ridge",), seeds=1, make=spying
    )
    assert records[0].measurements == 10
    assert scored[0] == 60 - 10  # rows 80..139 without the ten references


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"test": ("device0",)}, "also given for meta-training"),
        ({"test": ("nothing",)}, "no device 'nothing'"),
        ({"test": ()}, "no test device"),
        ({"pool": 100}, "the table has 150"),
        ({"measurements": 0}, "measurements is 0"),
        ({"measurements": 81}, "fewer than the 81"),
        ({"references": (150,)}, "reference row 150"),
    ],
)
def test_impossible_splits_are_refused(
    table: LatencyTable, changes: dict[str, object], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        run_benchmark(table, _split(**changes), methods=("ridge",), seeds=1)


def test_help_needs_more_measurements_than_references(table: LatencyTable) -> None:
    with pytest.raises(InputError, match="exceed 10"):
        run_benchmark(table, _split(), methods=("help",), seeds=1)


def test_scores_of_a_perfect_and_a_constant_prediction() -> None:
    truth = np.arange(1.0, 21.0)
    perfect = score(truth, truth, truth - 1, truth + 1)
    assert perfect["spearman"] == perfect["kendall"] == pytest.approx(1)
    assert perfect["rmse_ms"] == perfect["mape"] == 0
    assert perfect["coverage_90"] == perfect["within_10_percent"] == 1
    constant = score(truth, np.ones(20), truth + 1, truth + 2)
    assert constant["spearman"] is None and constant["coverage_90"] == 0


def test_trimming_drops_the_outer_tenth_of_the_truth() -> None:
    truth = np.arange(1.0, 11.0)
    mean = truth.copy()
    mean[[0, 9]] = mean[[9, 0]]
    found = score(truth, mean, truth, truth)
    assert found["spearman_trimmed"] == pytest.approx(1)
    assert found["spearman"] < 0.5


def test_an_architecture_that_was_measured_is_never_scored_whatever_its_row() -> None:
    table = synthetic_table(architectures=60, devices=2, positions=4)
    twice = table.rows([*range(60), *range(60)])
    split = Split((), ("device0",), measurements=60, pool=60, holdout=60)
    record = run_benchmark(twice, split, methods=("ridge",), seeds=1)[0]
    assert record.spearman is None  # all of the hold-out was measured
    split = Split((), ("device0",), measurements=12, pool=60, holdout=60)
    scored: list[int] = []

    def spying(method, table, references):
        from predictors.baselines import Ridge

        class Spy(Ridge):
            def adapt_genes(self, genes, latencies_ms):
                adapted = super().adapt_genes(genes, latencies_ms)
                predict = adapted.predict_genes
                adapted.predict_genes = lambda g: (scored.append(len(g)), predict(g))[1]
                return adapted

        return Spy(table.space)

    run_benchmark(twice, split, methods=("ridge",), seeds=1, make=spying)
    different = len(np.unique(table.genes, axis=0))
    assert scored[0] <= 60 - 12 and different == 60


def test_too_few_measurements_are_told_before_anything_is_learned(table: LatencyTable) -> None:
    def never(method, table, references):
        raise AssertionError("a predictor was made")

    values = table.values.copy()
    values[5:, 3] = np.nan
    holed = LatencyTable(table.space, table.genes, table.devices, values)
    with pytest.raises(InputError, match="'device3' has 5 measured"):
        run_benchmark(holed, _split(), methods=("ridge",), seeds=1, make=never)


def test_baselines_are_those_that_the_table_allows(table: LatencyTable) -> None:
    assert set(BASELINES) - set(baselines_for(table, ("device0",))) == {"macs"}
    assert not {"one_known_device", "known_devices_ridge"} & set(baselines_for(table))
    costs = {"macs": np.ones(len(table))}
    declared = LatencyTable(table.space, table.genes, table.devices, table.values, {}, costs)
    assert set(baselines_for(declared, ("device0",))) == set(BASELINES)
