from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr

from predictors.registry import LATENCY_PREDICTORS
from predictors.simple_baselines import OneKnownDevice
from search_spaces.errors import InputError
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable


@pytest.fixture(scope="module")
def table() -> LatencyTable:
    return synthetic_table(architectures=160, devices=5, positions=8, noise=0.0)


def _rank(method: str, table: LatencyTable, known: list[str], rows: int = 20) -> float:
    predictor = LATENCY_PREDICTORS.get(method)(table.space)
    predictor.declare(table)
    predictor.meta_fit(table.rows(range(100)).select(known))
    values = table.column("device4")
    mean, _ = predictor.adapt_genes(table.genes[:rows], values[:rows]).predict_genes(table.genes)
    return float(spearmanr(mean[100:], values[100:])[0])


def test_one_known_device_is_the_one_that_fits(table: LatencyTable) -> None:
    values = table.values.copy()
    values[:, 1] = 3 * values[:, 4] + 2
    twin = LatencyTable(table.space, table.genes, table.devices, values)
    assert _rank("one_known_device", twin, ["device0", "device1", "device2"]) > 0.995


def test_ridge_on_known_devices_mixes_them(table: LatencyTable) -> None:
    values = table.values.copy()
    values[:, 4] = values[:, 0] / values[:, 0].std() + values[:, 1] / values[:, 1].std()
    mixed = LatencyTable(table.space, table.genes, table.devices, values)
    known = ["device0", "device1", "device2"]
    assert _rank("known_devices_ridge", mixed, known) > 0.99


@pytest.mark.parametrize("method", ["one_known_device", "known_devices_ridge"])
def test_without_a_known_device_they_say_so(method: str, table: LatencyTable) -> None:
    predictor = LATENCY_PREDICTORS.get(method)(table.space)
    with pytest.raises(InputError, match="needs a known device"):
        predictor.meta_fit(table.select([]))
    with pytest.raises(InputError, match="call meta_fit"):
        OneKnownDevice(table.space).adapt_genes(table.genes[:5], table.values[:5, 0])


def test_counts_beat_the_encoding(table: LatencyTable) -> None:
    assert _rank("counts_ridge", table, [], 20) > _rank("ridge", table, [], 20) + 0.1


def test_log_ridge_finds_what_multiplies() -> None:
    rng = np.random.default_rng(0)
    numbers = rng.choice([1, 2, 4, 8, 16], (160, 3))
    texts = [f"d{a} w{b} r{c}" for a, b, c in numbers]
    from search_spaces.spaces.tokens import TokensSpace

    space = TokensSpace.infer(texts)
    ms = 0.2 * numbers[:, 0] * numbers[:, 1] ** 2.0 * numbers[:, 2] ** 2
    genes = space.genes([space.parse(text) for text in texts])
    table = LatencyTable(space, genes, ("device4",), ms[:, None])
    assert _rank("log_ridge", table, [], 15) > 0.98
