from __future__ import annotations

import numpy as np
import pytest

from predictors.help import HelpPredictor
from predictors.help_devices import choose_references
from search_spaces.errors import InputError
from search_spaces.spaces.nasbench201 import NasBench201
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable

torch = pytest.importorskip("torch")


def _quick(table: LatencyTable, **changes: object) -> HelpPredictor:
    return HelpPredictor(table.space, width=16, query=30, draws=2, **changes)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return synthetic_table(architectures=120, devices=3, positions=4)


def test_meta_training_lowers_the_loss(table: LatencyTable) -> None:
    scores = []
    predictor = _quick(
        table,
        episodes=60,
        check_every=30,
        learning_rate=3e-3,
        progress=lambda episode, score: scores.append(score),
    )
    predictor.meta_fit(table.select(["device0", "device1"]), valid=table.select(["device2"]))
    assert len(scores) == 2 and max(scores) > 0.5


def test_a_graph_space_uses_the_graph_network() -> None:
    space = NasBench201()
    genes = space.sample_genes(np.random.default_rng(0), 60)
    values = np.column_stack([1.0 + (genes == 3).sum(1), 1.0 + (genes >= 2).sum(1)])
    table = LatencyTable(space, genes, ("a", "b"), values + 0.01 * np.arange(60)[:, None])
    predictor = _quick(table, episodes=1).meta_fit(table)
    assert "gc1.weight" in predictor.state()[0]


def test_references_come_first_and_are_needed(table: LatencyTable) -> None:
    predictor = _quick(table, episodes=1).meta_fit(table)
    chosen = predictor.suggest_genes(table.genes, 12, np.random.default_rng(0))
    np.testing.assert_array_equal(table.genes[chosen[:10]], predictor.references)
    with pytest.raises(InputError, match="more than 10"):
        predictor.suggest_genes(table.genes, 10, np.random.default_rng(0))
    with pytest.raises(InputError, match="reference architecture 0 was not measured"):
        predictor.adapt_genes(table.genes[chosen[1:]], table.column("device0")[chosen[1:]])


def test_one_known_device_is_enough_and_none_is_not(table: LatencyTable) -> None:
    predictor = _quick(table, episodes=1).meta_fit(table.select(["device0"]))
    assert len(np.unique(predictor.references, axis=0)) == 10
    with pytest.raises(InputError, match="at least one meta-training device"):
        _quick(table).meta_fit(table.select([]))


def test_missing_cells_do_not_stop_help() -> None:
    made = synthetic_table(architectures=120, devices=6, positions=4, missing=0.5)
    assert not np.isfinite(made.values).all(axis=1)[:40].sum() >= 10
    predictor = _quick(made, episodes=1).meta_fit(made.select(made.devices[:5]))
    allowed = np.isfinite(made.column("device5"))
    rows = choose_references(made.select(made.devices[:5]), allowed)
    assert len(set(rows)) == 10 and allowed[rows].all()
    assert np.isfinite(predictor._parameters["fc3.weight"].detach().numpy()).all()


def test_too_few_rows_for_references_are_counted(table: LatencyTable) -> None:
    with pytest.raises(InputError, match="the pool has 7"):
        choose_references(table.rows(range(7)))


def test_predictions_are_no_negative_latencies(table: LatencyTable) -> None:
    predictor = _quick(table, episodes=1).meta_fit(table)
    chosen = predictor.suggest_genes(table.genes, 14, np.random.default_rng(0))
    adapted = predictor.adapt_genes(table.genes[chosen], 1e-6 * table.column("device0")[chosen])
    mean, std = adapted.predict_genes(table.genes)
    low, high = adapted.interval_genes(table.genes, 0.9)
    assert (mean >= 0).all() and (low >= 0).all() and (high >= mean).all()
    assert np.isfinite(std).all()
    with pytest.raises(InputError, match="coverage"):
        adapted.interval_genes(table.genes, 1.5)


def test_untrained_is_said(table: LatencyTable) -> None:
    with pytest.raises(InputError, match="not been meta-trained"):
        _quick(table).adapt_genes(table.genes[:12], table.column("device0")[:12])


def test_the_spread_comes_from_references_that_were_not_fitted(table: LatencyTable) -> None:
    predictor = _quick(table, episodes=1).meta_fit(table)
    chosen = predictor.suggest_genes(table.genes, 14, np.random.default_rng(0))
    genes, values = table.genes[chosen], table.column("device0")[chosen].copy()
    _, std = predictor.adapt_genes(genes, values).predict_genes(table.genes)
    reference = values[:10]
    mean, _ = predictor.adapt_genes(genes, values).predict_genes(genes[:10])
    error = np.sqrt(np.mean((mean - reference) ** 2))
    assert std.min() >= 0.5 * error
