from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.mixture import Solved, evidences, left_out_errors, posterior_of

N = 12


@pytest.fixture(scope="module")
def points() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(N + 5, 3))


def test_closed_form_equals_a_gaussian_process_with_a_free_constant(points: np.ndarray) -> None:
    x, new = points[:N], points[N:]
    y = x @ [1.0, -2.0, 0.5] + 3.0
    thetas = np.array([[1.0, 0.1]])
    found = posterior_of((x @ x.T)[None], y, thetas, np.zeros(1), 1.0)
    one = found.weights.argmax()
    mean, _ = found.moments((new @ x.T)[None], (new**2).sum(1)[None])
    # The same model by a constant of huge variance; glitch hypotheses shift it a little.
    big = 1e6 + x @ x.T + 0.1 * np.eye(N)
    reference = (1e6 + new @ x.T) @ np.linalg.solve(big, y)
    np.testing.assert_allclose(mean, reference, atol=0.05)
    assert found.weights.sum() == pytest.approx(1.0) and one == 0


def test_left_out_errors_equal_a_refit_without_the_measurement(points: np.ndarray) -> None:
    x = points[:4]  # too few for glitch hypotheses
    y = np.array([1.0, 2.5, 2.0, 4.0])
    gram = x @ x.T
    thetas, prior = np.array([[1.0, 0.2], [0.3, 0.3]]), np.log([0.6, 0.4])
    found = left_out_errors(gram[None], y, thetas, prior, 1.0)
    for i in range(4):
        rest = np.delete(np.arange(4), i)
        other = posterior_of(gram[np.ix_(rest, rest)][None], y[rest], thetas, prior, 1.0)
        mean, variance = other.moments(gram[i, rest][None, None], gram[i : i + 1, i][None])
        assert found.errors[i] == pytest.approx(y[i] - mean[0])
        assert found.deviations[i] == pytest.approx(np.sqrt(variance[0]))


def test_two_measurements_leave_nothing_out(points: np.ndarray) -> None:
    found = left_out_errors(np.eye(2)[None], points[:2, 0], np.ones((1, 2)), np.zeros(1), 1.0)
    assert found.errors.shape == found.deviations.shape == (0,)


def test_a_glitch_is_recognised(points: np.ndarray) -> None:
    x = points[:N]
    y = x @ [1.0, -2.0, 0.5] + 0.01 * np.random.default_rng(1).normal(size=N)
    spoiled = y.copy()
    spoiled[3] += 30.0
    gram, theta = (x @ x.T)[None], np.array([[1.0, 1e-3]])
    new = points[N:]
    cross, diagonal = (new @ x.T)[None], (new**2).sum(1)[None]
    clean = posterior_of(gram, y, theta, np.zeros(1), 1.0).moments(cross, diagonal)[0]
    mean = posterior_of(gram, spoiled, theta, np.zeros(1), 1.0).moments(cross, diagonal)[0]
    np.testing.assert_allclose(mean, clean, atol=0.3)


def test_the_unit_scales_mean_deviation_and_noise(points: np.ndarray) -> None:
    x, new = points[:N], points[N:]
    y = x @ [1.0, -2.0, 0.5] + np.random.default_rng(2).normal(size=N)
    thetas = np.random.default_rng(3).uniform(0.1, 1, size=(6, 2))
    cross, diagonal = (new @ x.T)[None], (new**2).sum(1)[None]
    units = [((x @ x.T)[None], unit * y, thetas, np.zeros(6), unit) for unit in (1.0, 1e3)]
    small, large = (posterior_of(*of) for of in units)
    for k, power in ((0, 1), (1, 2)):
        np.testing.assert_allclose(
            large.moments(cross, diagonal)[k], 1e3**power * small.moments(cross, diagonal)[k]
        )
    few, many = (left_out_errors(*of) for of in units)
    np.testing.assert_allclose(1e3 * few.errors, many.errors)
    np.testing.assert_allclose(1e3 * few.deviations, many.deviations)


def test_a_glitch_by_a_rank_one_update_equals_solving_again(points: np.ndarray) -> None:
    x = points[:N]
    y = x @ [1.0, -2.0, 0.5] + np.random.default_rng(4).normal(size=N)
    grams, theta = (x @ x.T)[None], np.array([0.7, 0.2])
    plain = Solved.of(grams, y, theta, 1.0)
    assert evidences(grams, y, theta[None], 1.0)[0] == pytest.approx(
        _evidence_of(grams[0] * 0.7 + 0.2 * np.eye(N), y, plain.centre)
    )
    every = plain.glitch_evidence(y)
    for row in (0, 5):
        noise = np.full(N, 0.2)
        noise[row] *= 100
        covariance = 0.7 * grams[0] + np.diag(noise)
        found = plain.with_glitch(y, row)
        np.testing.assert_allclose(found.inverse, np.linalg.inv(covariance), atol=1e-10)
        assert every[row] == pytest.approx(_evidence_of(covariance, y, plain.centre))


def _evidence_of(covariance: np.ndarray, y: np.ndarray, centre: float) -> float:
    inverse = np.linalg.inv(covariance)
    ones = inverse.sum()
    residual = y - inverse.sum(axis=0) @ y / ones
    mass = residual @ inverse @ residual + centre
    log_det = np.linalg.slogdet(covariance)[1]
    return -0.5 * (log_det + np.log(ones) + len(y) * np.log(mass) - np.log(centre))


def test_five_hundred_measurements_need_memory_as_their_square() -> None:
    import tracemalloc

    rng = np.random.default_rng(0)
    x = rng.normal(size=(500, 4))
    y = x @ [1.0, 2.0, -1.0, 0.5] + 0.1 * rng.normal(size=500)
    thetas = rng.uniform(0.01, 1, size=(40, 2))
    tracemalloc.start()
    found = posterior_of((x @ x.T)[None], y, thetas, np.zeros(40), 1.0)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.isfinite(found.alpha).all()
    assert peak < 60 * 500**2 * 8  # the cube would be 500 of them
