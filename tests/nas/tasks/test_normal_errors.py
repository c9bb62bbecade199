"""How strange errors are beside those of normal windows: distances, segments, few windows."""

import numpy as np
import pytest

from nas.tasks.normal_errors import SEGMENT, NormalErrors, NormalWindows, segment_length

RNG = np.random.default_rng(0)


def test_scores_are_mahalanobis_distances_where_a_window_is_one_segment():
    mixed = np.eye(16) + 0.05 * RNG.normal(size=(16, 16))
    normal = (RNG.normal(size=(4000, 16)) @ mixed + 5).reshape(4000, 2, 8)
    others = RNG.normal(size=(7, 2, 8))
    covariance = np.cov(normal.reshape(4000, 16).T)
    away = others.reshape(7, 16) - normal.reshape(4000, 16).mean(0)
    distances = np.einsum("ni,ij,nj->n", away, np.linalg.inv(covariance), away) / 16
    errors = NormalErrors.of(normal)
    assert errors.mean.shape == (16,) and errors.inverse.shape == (16, 16)
    assert errors.scores(others) == pytest.approx(distances, rel=0.05)
    assert errors.scores(normal).mean() == pytest.approx(1, abs=0.1)


@pytest.mark.parametrize(
    "channels, length, expected",
    [(1, 256, 64), (1, 32, 32), (2, 256, 32), (6, 64, 8), (3, 40, 16), (100, 64, 8)],
)
def test_segments_are_short_enough_to_be_known_and_kept(channels, length, expected):
    assert segment_length(channels, length) == expected
    assert channels * expected <= max(SEGMENT, 8 * channels)
    errors = NormalErrors.of(RNG.normal(size=(20, channels, length)))
    assert errors.inverse.shape == (channels * expected,) * 2


def test_what_stands_in_any_place_of_a_window_counts():
    """A change no larger than the errors, but not of their kind, in each half of a window."""
    level = np.repeat(RNG.normal(size=(300, 1, 4)), 32, axis=2)
    normal = level + 0.1 * RNG.normal(size=(300, 1, 128))
    strange = normal[:2].copy()
    for window, place in ((0, 4), (1, 100)):
        strange[window, 0, place : place + 24] += np.resize([1.0, -1.0], 24)
    errors = NormalErrors.of(normal)
    assert errors.scores(strange).min() > errors.scores(normal).max()


def test_fewer_windows_than_values_give_a_finite_score():
    few = RNG.normal(size=(3, 1, 64))
    scores = NormalErrors.of(few).scores(np.concatenate([few, 4 * few]))
    assert np.isfinite(scores).all() and scores[3:].min() > scores[:3].max()
    assert np.isfinite(NormalErrors.of(np.zeros((5, 1, 16))).scores(np.ones((2, 1, 16)))).all()


def test_directions_of_normal_windows_say_nothing():
    shapes = np.linalg.qr(RNG.standard_normal((32, 2)))[0].T
    errors = NormalWindows.of((RNG.standard_normal((50, 2)) @ shapes + 1).reshape(50, 2, 16), 2)
    known, other = errors.scores((np.stack([3 * shapes[0], 0 * shapes[0]]) + 1).reshape(2, 2, 16))
    assert known == pytest.approx(0, abs=1e-12) and other == pytest.approx(0, abs=1e-12)
    strange = np.linalg.qr(np.concatenate([shapes, np.ones((1, 32))]).T)[0][:, 2]
    assert errors.scores((4 * strange + 1).reshape(1, 2, 16)) == pytest.approx(16 / 32)
