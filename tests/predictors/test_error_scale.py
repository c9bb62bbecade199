from __future__ import annotations

import numpy as np
import pytest

from predictors.conformal import LEVELS
from predictors.error_scale import Run, factor, learned_widths, usual_widths

USUAL = np.full(10, 0.6)


def test_the_factor_follows_small_errors_and_large_ones_not_all_the_way() -> None:
    assert factor(0.2 * USUAL) < factor(USUAL) < factor(3 * USUAL) < 3 * factor(USUAL)
    # A device without noise gets narrow intervals: five times smaller errors count as such.
    assert factor(0.1 * USUAL) == pytest.approx(factor(0.5 * USUAL) / 5, rel=0.1)


def test_perfect_and_few_errors_leave_some_doubt() -> None:
    assert factor(np.zeros(10)) > 0
    assert factor(np.zeros(3)) == factor(np.full(2, 9.0))  # too few to say anything


def test_one_glitch_does_not_widen_everything() -> None:
    glitched = USUAL.copy()
    glitched[0] = 1000.0
    assert factor(glitched) < 2 * factor(USUAL)


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
