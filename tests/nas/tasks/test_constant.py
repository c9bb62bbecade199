"""What whoever answers alike for every example reaches, by the metric of each task."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from nas.data.annotations.arrays import IGNORE
from nas.tasks import TASKS


def splits(labels, *, targets="classes", classes=2):
    labels = torch.as_tensor(labels)
    subset = SimpleNamespace(labels=labels, indices=torch.arange(len(labels)))
    return SimpleNamespace(targets=targets, validation=subset, classes=["c"] * classes)


def test_of_classes_the_share_of_the_most_frequent():
    found = TASKS.get("signal_classification")().constant(splits([0, 2, 2, 2, 1]))
    assert found == pytest.approx(0.6)


def test_of_values_the_error_of_the_mean():
    task = TASKS.get("signal_regression")()
    task.mean, task.std = torch.tensor([2.0]), torch.tensor([5.0])
    assert task.constant(splits([[1.0], [5.0]], targets="values")) == pytest.approx(5**0.5)


def test_of_labels_how_many_examples_have_one():
    task = TASKS.get("multi_label_classification")()
    labels = [[1, 0], [1, 1], [0, 0], [1, 0]]
    assert task.constant(splits(labels, targets="labels")) == pytest.approx((0.75 + 0.25) / 2)


def test_of_masks_the_most_frequent_class_everywhere():
    task = TASKS.get("semantic_segmentation")()
    masks = torch.zeros(1, 2, 5, dtype=torch.uint8)
    masks[0, 0, :2] = 1
    masks[0, 1, :2] = IGNORE
    found = task.constant(splits(masks, targets="masks", classes=3))
    # It is what the metric itself says of such an answer.
    score = task.score()
    score.add(torch.eye(3)[0][None, :, None, None].expand(1, 3, 2, 5), masks)
    assert found == pytest.approx(score.values()["mean_iou"]) == pytest.approx(6 / 8 / 2)


def test_of_vectors_how_often_another_is_of_the_same_class():
    assert TASKS.get("image_embedding")().constant(splits([0, 0, 1, 1])) == pytest.approx(1 / 3)


def test_of_boxes_nothing_and_of_text_nothing_is_known():
    assert TASKS.get("object_detection")().constant(splits([0], targets="boxes")) == 0.0
    assert TASKS.get("language_modelling")().constant(splits([0], targets="tokens")) is None
