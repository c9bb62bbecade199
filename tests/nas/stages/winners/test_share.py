"""How winners share a budget: what is no step of theirs is less where they get few."""

from __future__ import annotations

import pytest

from nas.job.schema import Job
from nas.stages.training import FEWEST_ROUNDS, TAUGHT_ROUNDS, taught_rounds
from nas.stages.winners.share import WELL_TRAINED_STEPS, share_winners

STEP_S, EPOCH = 0.01, 100


def share(steps, *, candidates=2.0, places=4, **how):
    job = Job.model_validate(
        {
            "name": "a",
            "data": {"name": "digits"},
            "search": {"front_size": places},
            "finetune": {"candidates": candidates},
        }
    )
    how = {"question_s": 0.5, "epoch_steps": EPOCH, "images": 10**5} | how
    return share_winners(job, steps * STEP_S * places, step_s=STEP_S, **how)


@pytest.mark.parametrize(
    ("steps", "begun"),
    [(0, 4), (WELL_TRAINED_STEPS / 8, 5), (WELL_TRAINED_STEPS / 2, 6), (WELL_TRAINED_STEPS, 8),
     (9 * WELL_TRAINED_STEPS, 8)],
)  # fmt: skip
def test_few_begin_that_will_not_stay_where_each_gets_few_steps(steps, begun):
    assert share(steps).begun == begun


@pytest.mark.parametrize("steps", [0, 150, 400, 1000, 10**6])
def test_a_middling_winner_sees_each_view_about_twice(steps):
    found = share(steps)
    assert FEWEST_ROUNDS <= found.rounds <= TAUGHT_ROUNDS
    if FEWEST_ROUNDS < found.rounds < TAUGHT_ROUNDS:
        assert found.rounds == pytest.approx(steps / EPOCH / 2, abs=1)
    assert found.teacher_s == found.rounds * EPOCH * 0.5


def test_of_few_images_there_are_as_many_views_as_without_an_end():
    assert taught_rounds(16, epochs=10**6) == taught_rounds(16) == 128


def test_fronts_share_the_time():
    assert share(WELL_TRAINED_STEPS, fronts=2).begun == 6
