"""The time of a training step, in finer units than a tree of processes tells."""

from __future__ import annotations

import torch
from torch import nn

from nas.job.schema import Job
from nas.stages.opened_job import loaded
from nas.stages.step_time import step_seconds
from supernet.own_model.wrap import wrap


def test_steps_of_a_hundredth_of_a_second_and_less_take_some_time():
    job = Job.model_validate(
        {"name": "tiny", "data": {"name": "digits"}, "space": {"name": "mobilenet"}}
    )
    task, splits = loaded(job)
    torch.manual_seed(0)
    space = wrap(nn.Sequential(nn.Flatten(), nn.Linear(64, 10)), input_shape=(1, 8, 8))
    first, later = step_seconds(
        job.supernet, space, task, splits.training_batches(4, seed=0), seed=0, cpu=True
    )
    assert first > 0 and later > 0
