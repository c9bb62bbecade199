from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.error_scale import widths_of

NORMAL = 1.645


def _width(left_out: np.ndarray) -> float:
    return widths_of(left_out).width(0.9)


def test_intervals_follow_the_errors_on_the_measurements() -> None:
    errors = np.ones(10)
    assert _width(0.3 * errors) < 0.7 * _width(errors)
    assert _width(2 * errors) > 1.5 * _width(errors)


def test_few_errors_leave_doubt_and_many_the_width_of_a_true_model() -> None:
    widths = [_width(np.ones(n)) for n in (0, 1, 5, 20, 400)]
    assert (np.diff(widths[2:]) < 0).all() and min(widths) > NORMAL
    assert widths[-1] == pytest.approx(1.1 * NORMAL, rel=0.01)
    assert np.isfinite(widths).all() and max(widths) < 8


def test_perfect_errors_prove_no_perfection() -> None:
    assert _width(np.zeros(10)) > 0.2 * NORMAL


def test_one_glitch_does_not_widen_everything() -> None:
    glitched = np.full(10, 0.8)
    glitched[0] = 1000.0
    assert _width(glitched) < 2 * _width(np.full(10, 0.8))


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_intervals_cover_about_what_they_say_on_average_over_samples(scale: float) -> None:
    rng = np.random.default_rng(0)
    covered = [
        np.abs(scale * rng.normal(size=200)) <= _width(scale * rng.normal(size=10))
        for _ in range(400)
    ]
    assert 0.85 <= np.mean(covered) <= 0.99
