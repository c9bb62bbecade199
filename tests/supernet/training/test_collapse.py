"""A training that leads nowhere is ended by name, and no other."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supernet.training.collapse import CollapseGuard, TrainingCollapse


def test_a_fall_that_lasts_is_a_collapse():
    guard = CollapseGuard(0.01)
    for step, value in enumerate([0.3, 0.8, 0.35, 0.7, 0.2]):
        guard.validation(step, value)
    with pytest.raises(
        TrainingCollapse, match=r"step 5: .*fell from 0\.8000 to 0\.1000.*\(now 0\.01\)"
    ):
        guard.validation(5, 0.1)


@given(st.lists(st.floats(0.51, 1.0), max_size=20))
def test_noise_is_no_collapse(values):
    guard = CollapseGuard(0.01)
    for step, value in enumerate(values):
        guard.validation(step, value)


@given(st.lists(st.floats(0, 1), max_size=20))
def test_a_training_that_only_rises_never_collapses(values):
    guard = CollapseGuard(0.01)
    for step, value in enumerate(sorted(values)):
        guard.validation(step, value)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_what_is_not_finite_ends_training(value):
    guard = CollapseGuard(0.01)
    with pytest.raises(TrainingCollapse, match="step 3: the losses"):
        guard.losses(3, [0.1, value])
    with pytest.raises(TrainingCollapse, match="step 3: the gradients"):
        guard.gradients(3, value)
    with pytest.raises(TrainingCollapse, match="step 3: validation"):
        guard.validation(3, value)
