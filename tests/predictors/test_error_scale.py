from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from predictors.conformal import LEVELS
from predictors.error_scale import Run, Signs, factor, learned_widths, usual_widths

USUAL = Signs(left_out=np.full(10, 0.6), spread=0.2, noise=0.6)


def test_the_factor_follows_the_errors_but_not_all_the_way() -> None:
    tenth = replace(USUAL, left_out=0.1 * USUAL.left_out)
    triple = replace(USUAL, left_out=3 * USUAL.left_out)
    assert 0.1 * factor(USUAL) < factor(tenth) < factor(USUAL) < factor(triple)
    assert factor(triple) < 3 * factor(USUAL)


def test_what_is_taken_for_noise_widens_and_a_lucky_fit_is_not_believed() -> None:
    assert factor(replace(USUAL, noise=0.1)) < factor(USUAL)
    assert factor(replace(USUAL, spread=0.05)) > factor(USUAL)


def test_perfect_and_few_errors_leave_some_doubt() -> None:
    assert factor(replace(USUAL, left_out=np.zeros(10))) > 0
    few = [factor(replace(USUAL, left_out=np.full(n, v))) for n, v in ((3, 0.0), (2, 9.0))]
    assert few[0] == few[1]
    assert np.isfinite(factor(Signs(np.zeros(5), spread=np.inf, noise=0.0)))


def test_one_glitch_does_not_widen_everything() -> None:
    errors = USUAL.left_out.copy()
    errors[0] = 1000.0
    assert factor(replace(USUAL, left_out=errors)) < 2 * factor(USUAL)


def test_usual_widths_shrink_with_measurements_and_grow_with_coverage() -> None:
    widths = [usual_widths(n).width(0.9) for n in (5, 10, 20, 40, 100)]
    assert widths == sorted(widths, reverse=True)
    assert (np.diff(usual_widths(7).widths) > 0).all()


def test_many_devices_outweigh_the_usual_widths() -> None:
    rng = np.random.default_rng(0)
    runs = [
        Run(replace(USUAL, left_out=rng.normal(size=10)), 5 * rng.normal(size=200))
        for _ in range(30)
    ]
    few, many = (learned_widths(runs, devices, 10) for devices in (1, 1000))
    assert usual_widths(10).width(0.9) < few.width(0.9) < many.width(0.9)
    scores = np.concatenate([np.abs(r.held) / factor(r.signs) for r in runs])
    assert np.mean(scores <= many.width(0.9)) == pytest.approx(0.9, abs=0.01)
    assert many.levels.tolist() == LEVELS.tolist()
