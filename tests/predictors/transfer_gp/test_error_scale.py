from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.error_scale import ErrorScale
from predictors.transfer_gp.mixture import LeftOut

NORMAL = 1.645


def _width(errors: np.ndarray, promised: float | np.ndarray = 1.0) -> float:
    """Half-width of a 90 % interval where the model promises a deviation of 1."""
    found = ErrorScale.of(LeftOut(errors, promised * np.ones(len(errors))))
    return found.widths.width(0.9) * float(found.deviation(np.ones(1))[0])


def test_intervals_follow_the_errors_on_the_measurements() -> None:
    errors = np.ones(10)
    assert _width(0.3 * errors) < 0.7 * _width(errors)
    assert _width(2 * errors) > 1.5 * _width(errors)


def test_few_errors_leave_doubt_and_many_the_width_of_a_true_model() -> None:
    widths = [_width(np.ones(n)) for n in (0, 3, 5, 20, 400)]
    assert (np.diff(widths[1:]) < 0).all() and min(widths) > NORMAL
    assert widths[-1] == pytest.approx(NORMAL, rel=0.01)
    assert np.isfinite(widths).all() and max(widths) < 8


def test_perfect_errors_prove_no_perfection() -> None:
    assert _width(np.zeros(10)) > 0.2 * NORMAL


def test_one_glitch_does_not_widen_everything() -> None:
    glitched = np.full(10, 0.8)
    glitched[0] = 1000.0
    assert _width(glitched) < 2 * _width(np.full(10, 0.8))


def test_deviations_grow_with_the_promised_ones_though_less() -> None:
    found = ErrorScale.of(LeftOut(np.ones(10), np.ones(10)))
    near, far = found.deviation(np.array([1.0, 8.0]))
    assert 2 * near < far < 8 * near


def test_errors_larger_where_promised_so_are_no_reason_for_wide_intervals() -> None:
    # A design measures what is far from the rest: errors of 4 there, 4 promised there.
    far = _width(np.full(10, 4.0), 4.0)
    assert _width(np.ones(10)) < far < 2 * _width(np.ones(10))


def test_an_underestimated_scale_is_caught_by_the_plain_errors() -> None:
    # Deviations promised without each measurement were luckily large: factor 1/4, errors as ever.
    lucky = ErrorScale.of(LeftOut(np.ones(10), np.full(10, 4.0)))
    assert lucky.deviation(np.ones(1))[0] > 1.2 * lucky.factor


@pytest.mark.parametrize("unit", [1e-3, 1e3])
def test_the_unit_of_latencies_scales_deviations(unit: float) -> None:
    errors, promised = np.linspace(0.1, 2, 10), np.linspace(0.5, 1, 10)
    one = ErrorScale.of(LeftOut(errors, promised)).deviation(promised)
    other = ErrorScale.of(LeftOut(unit * errors, unit * promised)).deviation(unit * promised)
    np.testing.assert_allclose(other, unit * one)


@pytest.mark.parametrize("scale", [0.3, 1.0, 2.0])
def test_intervals_cover_about_what_they_say_on_average_over_samples(scale: float) -> None:
    rng = np.random.default_rng(0)
    covered = [
        np.abs(scale * rng.normal(size=200)) <= _width(scale * rng.normal(size=10))
        for _ in range(400)
    ]
    assert 0.85 <= np.mean(covered) <= 0.99
