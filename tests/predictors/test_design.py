from __future__ import annotations

import numpy as np
import pytest

from predictors.design import balanced

THETAS = np.array([[1.0, 0.01]])
BELIEF = np.ones(1)


def _grams(points: np.ndarray) -> np.ndarray:
    return (points @ points.T)[None]


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_choices_are_different_rows(n: int) -> None:
    points = np.random.default_rng(0).normal(size=(30, 3))
    chosen = balanced(_grams(points), THETAS, BELIEF, n, np.random.default_rng(1))
    assert len(set(chosen.tolist())) == n
    assert chosen.min() >= 0 and chosen.max() < 30


def test_clusters_are_all_visited() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    points = np.repeat(centres, 10, axis=0) + 0.1 * rng.normal(size=(40, 2))
    for seed in range(10):
        chosen = balanced(_grams(points), THETAS, BELIEF, 4, np.random.default_rng(seed))
        assert sorted(chosen // 10) == [0, 1, 2, 3]


def test_no_candidate_is_left_out_or_favoured_much() -> None:
    points = np.random.default_rng(0).normal(size=(20, 2))
    counts = np.zeros(20)
    for seed in range(400):
        counts[balanced(_grams(points), THETAS, BELIEF, 5, np.random.default_rng(seed))] += 1
    # 100 each if exactly fair; taking the most informative of several samples favours some.
    assert counts.min() > 25 and counts.max() < 300


def test_identical_candidates_are_accepted() -> None:
    chosen = balanced(np.ones((1, 6, 6)), THETAS, BELIEF, 3, np.random.default_rng(0))
    assert len(set(chosen.tolist())) == 3
