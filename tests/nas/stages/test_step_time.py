"""The time of a training step, in finer units than a tree of processes tells."""

from __future__ import annotations

import math

import torch
from torch import nn

from nas.job.schema import Job
from nas.stages.opened_job import loaded, network_space
from nas.stages.step_time import _MANY, _STEPS, step_seconds
from supernet.own_model.wrap import wrap
from supernet.training.train import Trainer


def test_few_steps_are_timed_where_each_takes_long(monkeypatch):
    job = Job.model_validate(
        {"name": "tiny", "data": {"name": "digits"}, "space": {"preset": "8x8"},
         "budget": {"minutes": 1}}
    )  # fmt: skip
    task, splits = loaded(job)

    taken: list[int] = []
    monkeypatch.setattr(Trainer, "train_step", lambda *parts: taken.append(1))
    for at_most_s, count in ((0.0, 2 * (_STEPS + 1)), (math.inf, _STEPS + _MANY + 2)):
        taken.clear()
        step_seconds(
            job.supernet, network_space(job, task, splits), task,
            splits.training_batches(8, seed=0), seed=0, at_most_s=at_most_s,
        )  # fmt: skip
        assert len(taken) == count


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
