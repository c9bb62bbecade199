"""A winner's training: what it is told, with which examples, and by which recipe."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas.job.schema import Job
from nas.stages.build_supernet import anew
from nas.stages.winners.share import FIRST_RUNG
from nas.stages.winners.trainer import FITTING_SHARE, REFIT_SHARE, WinnerTrainer, _recipe
from search_spaces import build_space
from supernet.narrow import narrowed
from supernet.network import Supernet
from supernet.training.checkpoint import save_checkpoint
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
    """Return a trainer, and the trainings that it begins; batches asked for are in ``asked``."""
    asked = []
    evaluator = SimpleNamespace(
        supernet=SimpleNamespace(space=SPACE, plan=SPACE.plan, batch_normalised=lambda: True),
        finetuned={},
        faults=None,
        class_loss=False,
        task=SimpleNamespace(metric_name="m", higher_is_better=higher),
        splits=SimpleNamespace(
            training_batches=lambda count, subset, **rest: asked.append(rest) or subset,
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
    trainer.asked = asked
    made = []

    def begin(arch, *, cpu, taught, begin=None, **rest):
        made.append(Training(begin))
        made[-1].taught = taught
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


def inheriting(trainer, name, *, before, after):
    """Have ``trainer`` find ``after`` for what was trained, and ``before`` for what it inherits."""
    evaluator = trainer._evaluator
    evaluator.task.metric_name = name
    evaluator.network = lambda arch, own=None: own
    evaluator.quality = lambda network, own=None: SimpleNamespace(
        accuracy=before if network is None else after, worst_class_accuracy=float("nan")
    )
    # So many that a standard error of a share is about .02.
    evaluator.splits.validation = range(1000)
    return {"arch": str(ARCH), "until": 1, "total": 1, "cpu": True}


@pytest.mark.parametrize(
    ("name", "higher", "before", "after", "inherited"),
    [("accuracy", True, 0.8, 0.7, True), ("accuracy", True, 0.8, 0.79, False),
     ("accuracy", True, 0.7, 0.8, False), ("rmse", False, 9.9, 12.3, True),
     ("rmse", False, 12.3, 9.9, False)],
)  # fmt: skip
def test_who_ends_worse_than_it_began_keeps_what_it_inherits(
    name, higher, before, after, inherited, monkeypatch, tmp_path
):
    trainer, _ = trainer_of(tmp_path, monkeypatch, higher=higher)
    item = inheriting(trainer, name, before=before, after=after)
    line = trainer.train({**item, "rung": 1})
    assert line.get("inherited", False) is inherited
    assert line["accuracy"] == (before if inherited else after)
    # After a quarter of the time nobody knows yet.
    first = trainer.train({**item, "rung": 0})
    assert first["accuracy"] == after and "inherited" not in first


@pytest.mark.parametrize("finetune", [{"refit": True}, {"sparsity": {"pattern": "50%"}}])
def test_what_inherited_weights_have_not_is_never_given_up(finetune, monkeypatch, tmp_path):
    trainer, _ = trainer_of(tmp_path, monkeypatch, **finetune)
    monkeypatch.setattr(trainer, "_refitting", lambda arch, first, cpu: Training())
    item = inheriting(trainer, "accuracy", before=0.9, after=0.1)
    trainer._evaluator.splits.validation = trainer._evaluator.splits.train.first(5)
    line = trainer.train({**item, "rung": 1})
    assert line["accuracy"] == 0.1 and "inherited" not in line


def test_the_last_part_of_the_time_goes_to_validation_examples_too(monkeypatch, tmp_path):
    trainer, made = trainer_of(tmp_path, monkeypatch, refit=True)
    item = {"arch": str(ARCH), "total": 10.0, "cpu": True}
    line = trainer.train({**item, "until": 2.5})
    assert len(made) == 1 and made[0].spent == line["seconds"] == 2.5
    line = trainer.train({**item, "until": 10.0})
    first, last = made[1:]
    assert first.spent == first.total == pytest.approx(10 * (1 - REFIT_SHARE))
    assert last.begin is not first and last.spent == last.total == pytest.approx(10 * REFIT_SHARE)
    assert len(last.batches) == 35 and not last.told
    # Nobody else looks at its images, so they are scaled for it alone.
    assert trainer.asked[-1]["size"] == SPACE.plan(ARCH).input_size
    # Of the examples that it learnt from afterwards nothing is told.
    assert line["accuracy"] == 0.25
    assert (line["steps"], line["seconds"]) == (6, 10.0)
    # What chooses among candidates has their whole first share, and what follows is for all.
    assert pytest.approx(FIRST_RUNG) == 1 - REFIT_SHARE


def test_on_validation_examples_networks_begin_anew_and_learn_from_labels_alone(
    monkeypatch, tmp_path
):
    """Weights that learnt a part of the examples by heart end worse, and the largest network, which
    has not met the validation examples, is wrong on some of them."""
    trainer, made = trainer_of(tmp_path, monkeypatch, refit=True)
    trainer.train({"arch": str(ARCH), "until": 10.0, "total": 10.0, "cpu": True})
    first, last = made
    assert first.begin is None and isinstance(last.begin, Supernet)
    again = anew(trainer._job, trainer._evaluator.supernet, trained=False)
    plan = again.plan(ARCH)
    # Cut out, so that a step costs what the architecture costs.
    assert all(
        torch.equal(last.begin.layer(layer.name).weight, again.layer(layer.name).slice_of(layer))
        for layer in plan.layers()
    )
    assert trainer.teaching == "nobody"
    # Without a teacher to be asked once for each view, no view comes twice.
    assert trainer.asked and all(asked["rounds"] is None for asked in trainer.asked)


@pytest.mark.parametrize("cut", [True, False])
def test_a_training_on_validation_examples_goes_on_with_the_weights_that_it_has(
    cut, monkeypatch, tmp_path
):
    trainer, made = trainer_of(tmp_path, monkeypatch, refit=True)
    whole = anew(trainer._job, trainer._evaluator.supernet, trained=False)
    plan = whole.plan(ARCH)
    held = narrowed(whole, plan) if cut else whole
    path = trainer.path(ARCH, refit=True)
    path.parent.mkdir()
    used = {layer.name for layer in plan.layers()}
    save_checkpoint(
        path, {f"model.{n}": p for n, p in held.named_parameters() if p.numel()}, {"step": 1}
    )
    trainer.train({"arch": str(ARCH), "until": 10.0, "total": 10.0, "cpu": True})
    begun = made[1].begin
    assert all(
        begun.layer(name).weight.shape == held.layer(name).weight.shape for name in sorted(used)
    )


@pytest.mark.parametrize("finetune", [{"distillation": "only"}, {"sparsity": {"pattern": "50%"}}])
def test_what_random_weights_or_labels_would_lose_is_kept_on_validation_examples(
    finetune, monkeypatch, tmp_path
):
    """Zeros are those of the largest weights, and learning from a teacher alone needs one."""
    trainer, made = trainer_of(tmp_path, monkeypatch, refit=True, **finetune)
    trainer.train({"arch": str(ARCH), "until": 10.0, "total": 10.0, "cpu": True})
    first, last = made
    assert (last.begin is first) == ("sparsity" in finetune)
    assert trainer.teaching == ("all" if "distillation" in finetune else "nobody")


@pytest.mark.parametrize(
    ("finetune", "teaching"),
    [
        ({}, "those behind it"),
        ({"distillation": False}, "nobody"),
        ({"distillation": "only"}, "all"),
    ],
)
def test_whom_a_teacher_teaches(finetune, teaching, monkeypatch, tmp_path):
    trainer, made = trainer_of(tmp_path, monkeypatch, **finetune)
    assert trainer.teaching == teaching
    item = {"arch": str(ARCH), "until": 1.0, "total": 1.0, "cpu": True}
    for taught in (False, True):
        trainer.train({**item, "taught": taught})
        assert made[-1].taught == taught
    trainer._batches(None)
    # Of what a teacher is asked only once there are so many views.
    assert trainer.asked[-1]["rounds"] > 1
    # A teacher may look at images of another size.
    assert trainer.asked[-1]["size"] is None


@pytest.mark.parametrize("trained", [False, True])
def test_weights_decay_as_the_job_says(trained):
    made = {"name": "a", "data": {"name": "digits"}, "supernet": {"weight_decay": 0.125}}
    recipe = _recipe(Job.model_validate(made), SPACE.plan(ARCH), trained=trained, device="cpu")
    assert recipe.weight_decay == 0.125


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("asked", ["adamw", "muon"])
def test_the_optimiser_is_the_job_s_where_it_names_one(asked, trained):
    made = {"name": "a", "data": {"name": "digits"}, "finetune": {"optimizer": asked}}
    recipe = _recipe(Job.model_validate(made), SPACE.plan(ARCH), trained=trained, device="cpu")
    assert recipe.optimizer == asked


@pytest.mark.parametrize("case", ["better", "no better", "begun", "not trained"])
def test_what_came_trained_begins_with_fitted_layers_where_they_are_better(
    case, monkeypatch, tmp_path
):
    trainer, made = trainer_of(tmp_path, monkeypatch)
    trainer._trained = case != "not trained"
    shared = Supernet(SPACE)
    trainer._evaluator.supernet = shared
    monkeypatch.setattr(trainer, "_may_inherit", lambda rung: False)
    fitted, asked = Supernet(SPACE), []

    def least_squares(arch, evaluator, *, seconds):
        asked.append(seconds)
        return shared if case == "no better" else fitted

    monkeypatch.setattr("nas.stages.winners.trainer.reconstructed", least_squares)
    if case == "begun":
        trainer.path(ARCH).parent.mkdir()
        trainer.path(ARCH).touch()
    trainer.train({"arch": str(ARCH), "until": 1, "total": 20, "cpu": True})
    assert asked == ([20 * FITTING_SHARE] if case in ("better", "no better") else [])
    if case != "better":
        assert made[0].begin is None
        return
    layer = next(SPACE.plan(ARCH).layers())
    found = made[0].begin.layer(layer.name).weight
    assert torch.equal(found, fitted.layer(layer.name).slice_of(layer))
