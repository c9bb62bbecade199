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
    tasks_of,
    usable,
    without_noise,
)
from predictors.transfer_gp.predictor import TransferGP
from search_spaces.tables.synthetic import synthetic_table


def test_devices_with_too_little_to_learn_from_are_not_usable() -> None:
    few = np.full(20, np.nan)
    few[: MINIMUM_ROWS - 1] = 1.0
    assert not usable(few)
    assert not usable(np.zeros(20))
    assert usable(np.ones(20))


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
    assert weights.min() > 0.1 / len(weights)
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
