from __future__ import annotations

import numpy as np
import pytest

from predictors.ridge import fit_ridge


def test_left_out_predictions_equal_refits_at_the_same_penalty() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(9, 4)), rng.normal(size=9)
    penalty = np.array([0.3])
    fit = fit_ridge(x, y, penalty)
    unit = ((x - x.mean(axis=0)) ** 2).sum() / 9
    for i in range(9):
        rest = np.delete(np.arange(9), i)
        centre = x[rest].mean(axis=0)
        design = x[rest] - centre
        gram = design.T @ design + 0.3 * unit * np.eye(4)
        weights = np.linalg.solve(gram, design.T @ (y[rest] - y[rest].mean()))
        guess = y[rest].mean() + (x[i] - centre) @ weights
        assert fit.left_out[i] == pytest.approx(guess)


def test_noise_raises_the_penalty_and_lines_are_found() -> None:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(30, 3))
    y = x @ [1.0, 2.0, 3.0] + 4.0
    np.testing.assert_allclose(fit_ridge(x, y)(x), y, atol=1e-2)
    noise = fit_ridge(x, rng.normal(size=30))
    assert np.abs(noise.weights).max() < 0.5


def test_equal_rows_give_their_mean() -> None:
    fit = fit_ridge(np.ones((4, 2)), np.array([1.0, 2.0, 3.0, 6.0]))
    np.testing.assert_allclose(fit(np.ones((2, 2))), 3.0)
