from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.leave_one_out import (
    MINIMUM_ROWS,
    Prior,
    Task,
    learn_prior,
    rank_correlations,
    rows_to_learn_from,
    tasks_of,
    unusable,
)
from predictors.transfer_gp.predictor import TransferGP
from search_spaces.tables.synthetic import synthetic_table
from search_spaces.tables.table import LatencyTable


def test_devices_with_too_little_to_learn_from_are_not_usable() -> None:
    few = np.full(20, np.nan)
    few[: MINIMUM_ROWS - 1] = 1.0
    assert "fewer than" in str(unusable(few))
    assert "above zero" in str(unusable(np.zeros(20)))
    assert "every measurement is 2.5" in str(unusable(np.full(20, 2.5)))
    assert unusable(np.arange(20.0)) is None


def test_rows_to_learn_from_are_measured_ones_of_every_device() -> None:
    table = synthetic_table(architectures=400, devices=3, positions=4)
    values = np.full((400, 3), np.nan)
    values[:300, 0] = table.values[:300, 0]
    values[300:310, 1] = table.values[300:310, 1]
    sparse = LatencyTable(table.space, table.genes, table.devices, values)
    rows = rows_to_learn_from(sparse, 50, np.random.default_rng(0))
    assert len(set(rows.tolist())) == 50
    assert np.isfinite(values[rows]).any(axis=1).all()
    assert np.isfinite(values[rows, 1]).sum() == 10  # the rare device keeps all it has
    few = rows_to_learn_from(sparse, 350, np.random.default_rng(0))
    assert few.tolist() == list(range(310))  # everything measured, and nothing else


def test_known_devices_are_left_out_and_validation_devices_are_not_known() -> None:
    table = synthetic_table(architectures=12, devices=3)
    tasks = tasks_of(table.select(["device0", "device1"]), table.select(["device2"]))
    assert [task.device for task in tasks] == ["device0", "device1", None]


def test_missing_cells_are_never_practised_on() -> None:
    values = np.arange(10.0)
    values[[2, 5]] = np.nan
    task = Task(np.zeros((10, 1), dtype=int), values, None)
    assert not {2, 5} & set(task.usable.tolist())


@pytest.fixture(scope="module")
def predictor() -> TransferGP:
    table = synthetic_table(architectures=60, devices=3, positions=4)
    return TransferGP(table.space).meta_fit(table)


def test_the_prior_is_a_distribution_that_never_rules_anything_out(predictor: TransferGP) -> None:
    table = synthetic_table(architectures=60, devices=3, positions=4)
    prior = learn_prior(
        tasks_of(table, None), predictor.features, predictor._kernels_without, seed=0
    )
    weights = np.exp(prior.log_weights)
    assert weights.sum() == pytest.approx(1.0)
    flat = np.exp(Prior.flat(predictor._kernels_without("device0")).log_weights)
    assert (weights > 0.1 * flat).all()
    assert max(prior.spreads) > 0 and weights.max() > 2 / len(weights)


def test_the_expected_spread_follows_the_unit() -> None:
    prior = Prior(np.zeros(1), spreads=(0.5, 0.3))
    target = np.array([1.0, 3.0])
    assert prior.spread_of(1e3 * target, False) == pytest.approx(
        1e3 * prior.spread_of(target, False)
    )
    assert prior.spread_of(target, True) == 0.3


def test_rank_correlations_are_of_rows_that_were_not_chosen() -> None:
    task = Task(np.zeros((25, 1), dtype=int), np.arange(1.0, 26.0), None)
    asked: list[int] = []

    def predict(task: Task, chosen: np.ndarray, held: np.ndarray) -> np.ndarray:
        assert not set(chosen) & set(held) and len(chosen) + len(held) == 25
        asked.append(len(chosen))
        return -task.values[held]

    def choose(task: Task, rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(rows))[:n]

    found = rank_correlations([task], choose, predict, seed=0)
    assert set(asked) == {10}  # 25 rows are too few for twice 20
    assert found == pytest.approx([-1.0] * len(asked))
