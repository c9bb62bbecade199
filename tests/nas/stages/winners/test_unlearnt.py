"""Whom to train where accuracies are those of chance."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.job.schema import Job
from nas.stages.winners.unlearnt import (
    below_constant,
    beyond_chance,
    by_costs,
    in_vain,
    untold,
)
from nas.tasks import TASKS


def splits(labels, targets="classes"):
    images = MemoryImages(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8))
    subset = Subset(images, torch.tensor(labels), torch.arange(len(labels)))
    return SimpleNamespace(targets=targets, validation=subset)


def test_what_a_few_more_right_answers_of_few_images_are_worth():
    assert not beyond_chance(0.34, 0.31, 200) and not beyond_chance(0.34, 0.31, 5800)
    assert beyond_chance(0.36, 0.31, 5800) and not beyond_chance(0.36, 0.31, 200)
    assert not beyond_chance(0.28, 0.31, 10**6)


def test_the_best_of_many_is_better_by_chance():
    # Sixty networks that had learnt nothing of ten classes, judged by 300 images.
    assert beyond_chance(0.15, 0.1, 300)
    assert not beyond_chance(0.15, 0.1, 300, of=60)


def test_errors_are_to_be_smaller_than_those_of_the_mean():
    assert below_constant(0.9, 1.0, 1000) and not below_constant(0.97, 1.0, 1000)
    # Of few images and many networks some correlate with the targets by chance.
    assert not below_constant(0.9, 1.0, 40, of=60)


def network(accuracy, macs, kib):
    return {
        "accuracy": accuracy, "worst_class_accuracy": 0.0, "macs": macs, "weights_kib": kib,
    }  # fmt: skip


def test_costs_guess_larger_networks_better_as_far_as_they_take_steps_enough():
    metrics = {
        "small": network(0.31, 1e5, 4.0),
        "deep": network(0.29, 1e6, 4.0),
        "wide": network(0.30, 1e6, 16.0),
        "large": network(0.28, 1e7, 64.0),
    }

    def guesses(worth):
        found = by_costs(metrics, "accuracy", worth=worth)
        assert found["deep"]["worst_class_accuracy"] == found["deep"]["accuracy"]
        assert found["large"]["weights_kib"] == 64.0
        return [found[name]["accuracy"] for name in metrics]

    known = guesses(None)
    assert known == sorted(known) and known[0] == 0.0
    assert known[-1] == pytest.approx(0.31)
    assert guesses(1e9) == pytest.approx(known)
    # Of a million operations networks take as many steps as they need, of ten million too few.
    small, deep, wide, large = guesses(1e6)
    assert small < deep < wide and large < wide + 0.31 / 2
    assert deep - small > large - wide
    assert metrics["large"]["accuracy"] == 0.28


def test_networks_of_equal_costs_are_all_as_good():
    metrics = {i: {"accuracy": 0.1, "macs": 1.0} for i in range(3)}
    assert {each["accuracy"] for each in by_costs(metrics, "accuracy").values()} == {0.0}


@pytest.mark.parametrize(
    ("accuracies", "done", "vain"),
    [([0.3, 0.61], 32, True), ([0.3, 0.61], 31, False), ([0.3, 0.95], 32, False)],
)
def test_a_search_among_networks_of_chance_ends_with_its_first_batch(accuracies, done, vain):
    job = Job.model_validate({"name": "a", "data": {"name": "digits"}, "search": {"initial": 32}})
    evaluator = SimpleNamespace(
        splits=splits([0, 2, 2, 2, 1] * 20), task=TASKS.get("image_classification")()
    )
    found = [SimpleNamespace(metrics={"accuracy": a}) for a in accuracies]
    study = SimpleNamespace(evaluations=lambda kind: found)
    told = []
    assert in_vain(job, evaluator, study, tell=told.append)(done) is vain
    assert len(told) == vain and all(f"ends after {done} evaluations" in line for line in told)


def regression():
    task = TASKS.get("image_regression")()
    task.mean, task.std = torch.tensor([2.0]), torch.tensor([1.0])
    return task, splits([[1.0], [3.0]] * 100, targets="values")


@pytest.mark.parametrize(("errors", "nothing"), [([1.2, 0.99], True), ([1.2, 0.7], False)])
def test_networks_whose_errors_are_those_of_the_mean_have_learnt_nothing(errors, nothing):
    task, known = regression()
    assert untold([{"rmse": error} for error in errors], task, known, 200) is nothing


def test_costs_guess_smaller_errors_of_larger_networks():
    metrics = {
        "small": {"rmse": 0.9, "macs": 1e5, "weights_kib": 4.0},
        "large": {"rmse": 1.1, "macs": 1e7, "weights_kib": 64.0},
    }
    found = by_costs(metrics, "rmse", higher=False)
    assert found["small"]["rmse"] == pytest.approx(1.1)
    assert found["large"]["rmse"] == pytest.approx(0.9)


def test_of_a_task_that_knows_no_constant_answer_nothing_is_said():
    task = TASKS.get("language_modelling")()
    assert not untold([{"bits_per_byte": 8.0}], task, splits([0, 1], targets="tokens"), 2)
