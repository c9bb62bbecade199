from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.transform import positive, step_of, transform


def test_the_jacobian_follows_the_unit() -> None:
    ms = np.array([1.0, 2.0, 5.0])
    for log in (False, True):
        gain = transform(1e3 * ms, log)[1] - transform(ms, log)[1]
        assert np.isclose(gain, -np.log(1e3) * (3 if log else 1))


def test_zeros_are_raised_to_a_floor() -> None:
    logs, _ = transform(np.array([0.0, 1.0, 2.0]), True)
    assert np.isfinite(logs).all() and logs[0] < logs[1]
    assert np.isfinite(transform(np.zeros(3), True)[0]).all()


@pytest.mark.parametrize(
    ("values", "step"),
    [
        ([3.0, 4.0, 4.0, 12.0], 1.0),
        ([30.0, 40.0, 40.0, 120.0], 10.0),
        ([0.3, 0.4, 1.2, 0.5], 0.1),
        ([3.14159, 2.71828, 1.41421, 1.73205], 0.0),
        ([3.0, 4.0, 5.0], 0.0),  # three whole numbers may be chance
        ([0.0, 0.0, 0.0, 0.0], 0.0),
        ([1234.0, 1357.0, 2468.0, 9999.0], 0.0),  # too fine to matter
    ],
)
def test_rounding_is_recognised_in_the_measurements(values: list[float], step: float) -> None:
    assert step_of(np.array(values)) == pytest.approx(step)


def test_predictions_below_every_measurement_stay_positive_and_in_order() -> None:
    mean = np.array([-5.0, -1.0, 0.05, 0.5, 3.0])
    bent = positive(mean, 1.0)
    assert (bent > 0).all() and (np.diff(bent) > 0).all()
    assert bent[3:].tolist() == [0.5, 3.0]
    assert positive(mean, 0.0).min() == 0.0  # a cost may be nothing at all
