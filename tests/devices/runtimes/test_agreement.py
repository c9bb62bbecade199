"""What is said of two sets of outputs."""

import numpy as np
import pytest

from devices.runtimes.agreement import Agreement


def test_outputs_that_nearly_cancel_have_a_large_relative_error_and_a_small_one_of_the_range():
    expected = [np.array([[0.01, 0.03, -0.02]]), np.array([[100.0, -100.0, 0.0]])]
    found = Agreement.of([expected[0] + 0.01, expected[1]], expected)
    assert found.relative_error < 1e-3 and found.range_error == pytest.approx(0.01 / 200)
    alone = Agreement.of([expected[0] + 0.01], expected[:1])
    assert alone.relative_error == pytest.approx(0.0173 / 0.0374, rel=0.01)
    assert alone.range_error == pytest.approx(0.2) and alone.same_largest == 1.0


def test_the_largest_output_is_compared_where_there_are_several():
    expected = [np.array([[1.0, 2.0]]), np.array([[2.0, 1.0]])]
    assert Agreement.of([expected[0], expected[0]], expected).same_largest == 0.5
    assert Agreement.of([np.ones((1, 1))], [np.ones((1, 1))]) == Agreement(0.0, 0.0, None)
