from __future__ import annotations

import numpy as np
import pytest

from predictors.transfer_gp.widths import Calibration


def test_probability_agrees_with_the_width() -> None:
    for calibration in (Calibration.student(5), Calibration.student(2, 0.4)):
        for coverage in (0.2, 0.5, 0.9, 0.99, 0.999):
            width = calibration.width(coverage)
            assert calibration.probability_below(np.array(width)) == pytest.approx(
                0.5 + coverage / 2, abs=1e-6
            )
            assert calibration.probability_below(np.array(-width)) == pytest.approx(
                0.5 - coverage / 2, abs=1e-6
            )


def test_the_scale_multiplies_every_width() -> None:
    one, three = Calibration.student(5), Calibration.student(5, 3.0)
    np.testing.assert_allclose(three.widths, 3 * one.widths)
    assert (np.diff(one.widths) > 0).all()
