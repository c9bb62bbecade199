from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.error_scale import ErrorScale, Run
from predictors.transfer_gp.features import role
from predictors.transfer_gp.leave_one_out import (
    MINIMUM_ROWS,
    Prior,
    Task,
    learn_prior,
    learn_scales,
    rows_to_learn_from,
    tasks_of,
    unusable,
    without_noise,
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


def test_widths_are_learned_only_where_there_are_rows_enough() -> None:
    genes = np.zeros((25, 1), dtype=int)
    task = Task(genes, np.arange(1.0, 26.0), None)
    asked: list[tuple[int, int]] = []

    def practise(task: Task, chosen: np.ndarray, held: np.ndarray) -> Run:
        assert not set(chosen) & set(held)
        asked.append((len(chosen), len(held)))
        return Run(np.ones(len(chosen)), np.linspace(-2, 2, len(held)))

    def choose(task: Task, rows: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.permutation(len(rows))[:n]

    widths = learn_scales([task], practise, choose, devices=1, seed=0)
    assert sorted(widths) == [5, 10]
    assert {n + held for n, held in asked} == {25}
    assert all(isinstance(found, ErrorScale) for found in widths.values())


def test_a_device_without_noise_is_the_sum_over_its_operations(predictor: TransferGP) -> None:
    table = synthetic_table(architectures=60, devices=3, positions=4)
    values = table.column("device0").copy()
    values[3] = np.nan
    task = without_noise(Task(table.genes, values, "device0"), predictor.features)
    blocks = predictor.features(table.genes)
    counts = [block for name, block in blocks.items() if role(name) == "counts"]
    design = np.column_stack([np.ones(len(table)), *counts])[task.usable]
    left = task.values[task.usable] - design @ np.linalg.lstsq(design, task.values[task.usable])[0]
    assert np.abs(left).max() < 1e-6 * np.ptp(task.values[task.usable])
    assert np.isnan(task.values[3]) and task.device == "device0"
    assert np.corrcoef(task.values[task.usable], values[task.usable])[0, 1] > 0.5
