"""Whom to train where accuracies are those of chance."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.stages.winners.unlearnt import beyond_chance, by_costs, constant_share


def splits(labels, targets="classes"):
    images = MemoryImages(torch.zeros(len(labels), 1, 2, 2, dtype=torch.uint8))
    subset = Subset(images, torch.tensor(labels), torch.arange(len(labels)))
    return SimpleNamespace(targets=targets, validation=subset)


def test_the_share_of_the_most_frequent_class():
    assert constant_share(splits([0, 2, 2, 2, 1])) == pytest.approx(0.6)


def test_values_have_no_class_to_name_always():
    assert constant_share(splits([0, 1], targets="values")) is None


def test_what_a_few_more_right_answers_of_few_images_are_worth():
    assert not beyond_chance(0.34, 0.31, 580)
    assert beyond_chance(0.34, 0.31, 5800)
    assert not beyond_chance(0.28, 0.31, 10**6)


def test_costs_guess_larger_networks_better_and_never_above_the_best():
    metrics = {
        "small": {"accuracy": 0.31, "worst_class_accuracy": 0.0, "macs": 1e5, "weights_kib": 4.0},
        "deep": {"accuracy": 0.29, "worst_class_accuracy": 0.0, "macs": 1e6, "weights_kib": 4.0},
        "large": {"accuracy": 0.28, "worst_class_accuracy": 0.0, "macs": 1e7, "weights_kib": 64.0},
    }
    found = by_costs(metrics, "accuracy")
    guesses = [found[name]["accuracy"] for name in metrics]
    assert guesses == sorted(guesses) and guesses[0] == 0.0
    assert guesses[-1] == pytest.approx(0.31)
    assert found["deep"]["worst_class_accuracy"] == found["deep"]["accuracy"]
    assert found["large"]["weights_kib"] == 64.0
    assert metrics["large"]["accuracy"] == 0.28


def test_networks_of_equal_costs_are_all_as_good():
    metrics = {i: {"accuracy": 0.1, "macs": 1.0} for i in range(3)}
    assert {each["accuracy"] for each in by_costs(metrics, "accuracy").values()} == {0.0}
