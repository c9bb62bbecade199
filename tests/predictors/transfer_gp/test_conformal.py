from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.conformal import Calibration


def test_intervals_cover_new_scores_of_any_shape() -> None:
    rng = np.random.default_rng(0)
    calibration = Calibration.from_scores(rng.exponential(3, 4000))
    new = rng.exponential(3, 4000)
    for coverage in (0.5, 0.8, 0.9, 0.95):
        assert np.mean(new <= calibration.width(coverage)) == pytest.approx(coverage, abs=0.03)


def test_few_scores_give_wider_intervals() -> None:
    scores = np.random.default_rng(0).normal(size=2000)
    few = np.mean([Calibration.from_scores(scores[i : i + 9]).width(0.9) for i in range(0, 900, 9)])
    assert few > Calibration.from_scores(scores).width(0.9)


def test_probability_agrees_with_the_width() -> None:
    for calibration in (Calibration.student(5), Calibration.from_scores(np.arange(200.0))):
        for coverage in (0.2, 0.5, 0.9, 0.99, 0.999):
            width = calibration.width(coverage)
            assert calibration.probability_below(np.array(width)) == pytest.approx(
                0.5 + coverage / 2, abs=1e-6
            )
            assert calibration.probability_below(np.array(-width)) == pytest.approx(
                0.5 - coverage / 2, abs=1e-6
            )
