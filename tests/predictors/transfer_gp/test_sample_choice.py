from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.sample_choice import balanced, designed

THETAS = np.array([[1.0, 0.01]])
BELIEF = np.ones(1)


def _grams(points: np.ndarray) -> np.ndarray:
    return (points @ points.T)[None]


@pytest.mark.parametrize("choose", [balanced, designed])
@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_choices_are_different_rows(choose, n: int) -> None:
    points = np.random.default_rng(0).normal(size=(30, 3))
    chosen = choose(_grams(points), THETAS, BELIEF, n, np.random.default_rng(1))
    assert len(set(chosen.tolist())) == n
    assert chosen.min() >= 0 and chosen.max() < 30


def test_clusters_are_all_visited() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [9, 0], [0, 9], [9, 9]])
    points = np.repeat(centres, 10, axis=0) + 0.1 * rng.normal(size=(40, 2))
    for seed in range(10):
        chosen = balanced(_grams(points), THETAS, BELIEF, 4, np.random.default_rng(seed))
        assert sorted(chosen // 10) == [0, 1, 2, 3]


def test_a_design_knows_more_than_a_balanced_sample() -> None:
    points = np.random.default_rng(0).normal(size=(100, 6))
    grams = _grams(points)

    def information(chosen: np.ndarray) -> float:
        part = grams[0][np.ix_(chosen, chosen)]
        return float(np.linalg.slogdet(part + 10 + 0.01 * np.eye(len(chosen)))[1])

    for seed in range(5):
        by = [
            c(grams, THETAS, BELIEF, 8, np.random.default_rng(seed)) for c in (balanced, designed)
        ]
        assert information(by[1]) > information(by[0])


def test_a_design_leaves_the_most_outlying_out() -> None:
    points = np.random.default_rng(0).normal(size=(100, 4))
    points[[3, 77]] *= 50
    chosen = designed(_grams(points), THETAS, BELIEF, 10, np.random.default_rng(0))
    assert not {3, 77} & set(chosen.tolist())


def test_a_balanced_sample_is_fair() -> None:
    grams = _grams(np.random.default_rng(0).normal(size=(20, 2)))
    counts = np.zeros(20)
    for seed in range(400):
        counts[balanced(grams, THETAS, BELIEF, 5, np.random.default_rng(seed))] += 1
    # 100 each, give or take a binomial deviation of 8.7
    assert counts.min() > 60 and counts.max() < 140


def test_identical_candidates_are_accepted() -> None:
    for choose in (balanced, designed):
        chosen = choose(np.ones((1, 6, 6)), THETAS, BELIEF, 3, np.random.default_rng(0))
        assert len(set(chosen.tolist())) == 3
