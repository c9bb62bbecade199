from __future__ import annotations

import numpy as np

from predictors.transform import transform


def test_the_jacobian_follows_the_unit() -> None:
    ms = np.array([1.0, 2.0, 5.0])
    for log in (False, True):
        gain = transform(1e3 * ms, log)[1] - transform(ms, log)[1]
        assert np.isclose(gain, -np.log(1e3) * (3 if log else 1))


def test_zeros_are_raised_to_a_floor() -> None:
    logs, _ = transform(np.array([0.0, 1.0, 2.0]), True)
    assert np.isfinite(logs).all() and logs[0] < logs[1]
    assert np.isfinite(transform(np.zeros(3), True)[0]).all()
