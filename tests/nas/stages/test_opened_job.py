"""What a job asks of its space that the space cannot give is told before any training."""

from __future__ import annotations

import numpy as np
import pytest

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.job.schema import Job
from nas.stages.opened_job import (
    RunContext,
    _least_packed,
    budgets_out_of_reach,
    expect_answers,
    require_fit,
    require_known_costs,
)
from nas.tasks import TASKS
from search_spaces.errors import InfeasibleError, InputError
from search_spaces.spaces.mobilenet import MobileNetSpace

SPACE = MobileNetSpace.from_config(preset="8x8", input_channels=1, outputs=3)
PEAK = Metric("peak_memory_kib")


class WithoutMemoryFlow(MobileNetSpace):
    """As a network of one's own whose blocks have no memory flow."""

    def _peak_kib(self, blocks, genes):
        return np.full(len(genes), np.nan)


@pytest.mark.parametrize(
    ("goals", "constraints"),
    [([Goal(PEAK)], []), ([Goal(Metric("accuracy"))], [Constraint(PEAK, 100.0)])],
)
def test_a_cost_that_cannot_be_worked_out_is_refused(goals, constraints):
    require_known_costs(SPACE, goals, constraints)
    unknown = WithoutMemoryFlow.from_config(preset="8x8", input_channels=1, outputs=3)
    with pytest.raises(InputError, match="peak_memory_kib cannot be worked out"):
        require_known_costs(unknown, goals, constraints)
    require_known_costs(unknown, [Goal(Metric("macs"))], [Constraint(Metric("flash_kib"), 9.0)])


def test_budgets_below_the_smallest_network_are_told_before_training():
    budgets = {"weights_kib": [0.001, 500], "latency_ms": [1e-9]}
    job = Job.model_validate(
        {"name": "n", "data": {"name": "digits"}, "space": {"preset": "8x8"},
         "search": {"budgets": budgets}}
    )  # fmt: skip
    (told,) = budgets_out_of_reach(job, SPACE, [SPACE.smallest(), SPACE.largest()])
    kib = SPACE.plan(SPACE.smallest()).weights_kib
    assert "keeps weights_kib 0.001" in told and f"needs {kib:.4g} KiB" in told
    unlimited = job.model_copy(update={"search": job.search.model_copy(update={"budgets": {}})})
    assert budgets_out_of_reach(unlimited, SPACE, [SPACE.smallest()]) == []


def test_a_bound_on_the_file_that_no_network_keeps_is_told_before_training():
    def context(limit: float, **space) -> tuple[RunContext, list[Constraint]]:
        job = Job.model_validate(
            {
                "name": "n",
                "data": {"name": "digits"},
                "space": {"preset": "8x8", **space},
                "search": {"constraints": {"size_kib": {"max": limit}}},
            }
        )
        return RunContext.of(job, threads=1), job.constraints()

    opened, bounds = context(3.0)
    space = opened.space
    pool = [space.largest()]
    with pytest.raises(InfeasibleError, match=r"\S+ KiB of model file \(budget 3") as found:
        require_fit(opened, pool, bounds)
    assert found.value.closest == str(space.smallest())
    (size,) = (value for value, _ in found.value.violations.values())
    # Notes that a run writes beside come on top.
    opened, bounds = context(size + 0.01)
    require_fit(opened, pool, bounds)
    require_fit(opened, pool, [])


def test_the_least_packed_is_found_wherever_a_space_begins():
    class Backwards(MobileNetSpace):
        def smallest(self):
            return self.largest()

    space = Backwards.from_config(preset="8x8", input_channels=1, outputs=3)
    least = _least_packed(space, [space.largest()])
    assert space.plan(least).weights_kib == SPACE.plan(SPACE.smallest()).weights_kib


@pytest.mark.parametrize(
    ("form", "fits", "refused"),
    [
        ("one", "image_classification", "semantic_segmentation"),
        ("grid", "semantic_segmentation", "image_classification"),
    ],
)
def test_networks_of_ones_own_must_answer_for_what_the_task_asks(form, fits, refused):
    own = MobileNetSpace.from_config(preset="8x8", input_channels=1, outputs=3)
    expect_answers(own, TASKS.get(refused)(), refused)  # of built-in spaces, the job's check says
    own.answers = form
    expect_answers(own, TASKS.get(fits)(), fits)
    with pytest.raises(InputError, match=rf"returns \(batch, outputs.*the task {refused} needs"):
        expect_answers(own, TASKS.get(refused)(), refused)
    with pytest.raises(InputError, match="needs answers for cells"):
        expect_answers(own, TASKS.get("object_detection")(), "object_detection")
    own.answers = None  # of another form, such as several tensors
    expect_answers(own, TASKS.get(refused)(), refused)
