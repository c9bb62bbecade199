from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.conformal import LEVELS
from predictors.transfer_gp.error_scale import ErrorScale, Run, learned, size, usual

USUAL = np.full(10, 0.6)


def _width(scale: ErrorScale, left_out: np.ndarray) -> float:
    return scale.calibration(left_out).width(0.9)


def test_intervals_follow_the_errors_on_the_measurements() -> None:
    scale = usual(10)
    assert _width(scale, 0.3 * USUAL) < 0.8 * _width(scale, USUAL)
    assert _width(scale, 2 * USUAL) > 1.2 * _width(scale, USUAL)


def test_practice_lets_intervals_follow_more_closely() -> None:
    rng = np.random.default_rng(0)
    runs = [Run(rng.normal(size=10), rng.normal(size=200)) for _ in range(9)]
    assert usual(10).slope < learned(runs, 9, 10).slope == usual(10, practised=True).slope


def test_perfect_and_few_errors_leave_some_doubt() -> None:
    assert size(np.zeros(10)) > 0
    assert size(np.zeros(3)) == size(np.full(2, 9.0))  # too few to say anything


def test_one_glitch_does_not_widen_everything() -> None:
    glitched = USUAL.copy()
    glitched[0] = 1000.0
    assert size(glitched) < 2 * size(USUAL)


def test_usual_widths_are_near_those_of_a_true_model_and_grow_with_coverage() -> None:
    widths = [_width(usual(n), USUAL) for n in (5, 10, 20, 40, 100)]
    assert min(widths) > 1.3 and max(widths) < 2.3  # 1.645 if a model's deviation were right
    assert (np.diff(usual(7).widths.widths) > 0).all()


def test_many_devices_outweigh_the_usual_widths() -> None:
    rng = np.random.default_rng(0)
    runs = [Run(rng.normal(size=10), 8 * rng.normal(size=200)) for _ in range(30)]
    few, many = (learned(runs, devices, 10) for devices in (1, 1000))
    assert _width(usual(10, practised=True), USUAL) < _width(few, USUAL) < _width(many, USUAL)
    within = [np.abs(run.held) <= _width(many, run.left_out) for run in runs]
    assert np.mean(within) == pytest.approx(0.9, abs=0.01)
    assert many.widths.levels.tolist() == LEVELS.tolist()


def test_a_scale_survives_its_arrays() -> None:
    scale = usual(10)
    arrays = {name.removeprefix("x."): a for name, a in scale.arrays("x.").items()}
    again = ErrorScale.from_arrays(arrays)
    assert again.slope == scale.slope and np.array_equal(again.widths.widths, scale.widths.widths)
