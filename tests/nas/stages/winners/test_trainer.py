"""A winner's training: what it is told, with which examples, and by which recipe."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from nas.job.schema import Job
from nas.stages.winners.trainer import REFIT_SHARE, WinnerTrainer, _recipe
from search_spaces import build_space
from supernet.network import Supernet
from tests.nas.data.numbered import numbered

SPACE = build_space("mobilenet", preset="8x8", input_channels=1, outputs=10)
ARCH = SPACE.decode(SPACE.sample_genes(np.random.default_rng(0), 1))[0]


class Training:
    """Trains nothing: keeps for how long it is to train, and what validation says."""

    plan_now = None

    def __init__(self, begin=None):
        self.begin, self.step, self.spent, self.told = begin, 0, 0.0, []

    def run(self, *, until, total, validate=None):
        self.step, self.spent, self.total = self.step + 3, until, total
        if validate is not None:
            self.told.append(validate(None))

    def reached(self):
        return self


def trainer_of(tmp_path, monkeypatch, *, higher=True, **finetune):
    """Return a trainer, and the trainings that it begins."""
    evaluator = SimpleNamespace(
        supernet=SimpleNamespace(space=SPACE),
        finetuned={},
        faults=None,
        class_loss=False,
        task=SimpleNamespace(metric_name="m", higher_is_better=higher),
        splits=SimpleNamespace(
            training_batches=lambda size, subset, **rest: subset,
            train=numbered(30),
        ),
        network=lambda plan, own: own,
        quality=lambda network, own: SimpleNamespace(
            accuracy=0.25 if own is None or own.begin is None else 1.0,
            worst_class_accuracy=float("nan"),
        ),
    )
    evaluator.splits.validation = evaluator.splits.train.first(5)
    job = Job.model_validate({"name": "a", "data": {"name": "digits"}, "finetune": finetune})
    trainer = WinnerTrainer(job, SimpleNamespace(manifest=dict, folder=tmp_path), evaluator)
    made = []

    def begin(arch, *, cpu, begin=None, **rest):
        made.append(Training(begin))
        made[-1].batches = rest.get("batches")
        return made[-1]

    monkeypatch.setattr(trainer, "_training", begin)
    return trainer, made


@pytest.mark.parametrize("higher, seen", [(True, 0.25), (False, -0.25)])
def test_training_is_told_what_is_better_when_larger(higher, seen, monkeypatch, tmp_path):
    trainer, made = trainer_of(tmp_path, monkeypatch, higher=higher)
    line = trainer.train({"arch": str(ARCH), "until": 1, "total": 1, "cpu": True})
    assert made[0].told == [seen] and line["accuracy"] == 0.25
    assert len(made) == 1


def test_the_last_part_of_the_time_goes_to_validation_examples_too(monkeypatch, tmp_path):
    trainer, made = trainer_of(tmp_path, monkeypatch, refit=True)
    item = {"arch": str(ARCH), "total": 10.0, "cpu": True}
    line = trainer.train({**item, "until": 2.5})
    assert len(made) == 1 and made[0].spent == line["seconds"] == 2.5
    line = trainer.train({**item, "until": 10.0})
    first, last = made[1:]
    assert first.spent == first.total == pytest.approx(10 * (1 - REFIT_SHARE))
    assert last.begin is first and last.spent == last.total == pytest.approx(10 * REFIT_SHARE)
    assert len(last.batches) == 35 and not last.told
    # Of the examples that it learnt from afterwards nothing is told.
    assert line["accuracy"] == 0.25
    assert (line["steps"], line["seconds"]) == (6, 10.0)


@pytest.mark.parametrize("trained", [False, True])
def test_weights_decay_as_the_job_says(trained):
    made = {"name": "a", "data": {"name": "digits"}, "supernet": {"weight_decay": 0.125}}
    recipe = _recipe(Job.model_validate(made), Supernet(SPACE), SPACE.plan(ARCH), trained=trained)
    assert recipe.weight_decay == 0.125
