from __future__ import annotations

import numpy as np
import pytest

from predictors.conformal import LEVELS
from predictors.error_scale import Run, factor, learned_widths, usual_widths


def test_the_factor_follows_the_errors_and_is_drawn_towards_the_usual() -> None:
    rng = np.random.default_rng(0)
    errors = rng.normal(size=40)
    assert factor(0.1 * errors) < factor(errors) < factor(3 * errors)
    assert factor(np.zeros(10)) > 0
    assert factor(np.zeros(3)) == factor(np.full(2, 9.0))  # too few to say anything


def test_one_glitch_does_not_widen_everything() -> None:
    errors = np.full(10, 0.5)
    glitched = errors.copy()
    glitched[0] = 1000.0
    assert factor(glitched) < 2 * factor(errors)


def test_usual_widths_shrink_with_measurements_and_grow_with_coverage() -> None:
    widths = [usual_widths(n).width(0.9) for n in (5, 10, 20, 40, 100)]
    assert widths == sorted(widths, reverse=True)
    assert (np.diff(usual_widths(7).widths) > 0).all()


def test_many_devices_outweigh_the_usual_widths() -> None:
    rng = np.random.default_rng(0)
    runs = [Run(rng.normal(size=10), 5 * rng.normal(size=200)) for _ in range(30)]
    few, many = (learned_widths(runs, devices, 10) for devices in (1, 1000))
    assert usual_widths(10).width(0.9) < few.width(0.9) < many.width(0.9)
    scores = np.concatenate([np.abs(r.held) / factor(r.left_out) for r in runs])
    assert np.mean(scores <= many.width(0.9)) == pytest.approx(0.9, abs=0.01)
    assert many.levels.tolist() == LEVELS.tolist()
