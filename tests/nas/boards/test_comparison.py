"""What outputs are compared by: the task's decisions and metric, in all and by class."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from nas.boards.comparison import Comparison, Images
from nas.boards.deployment import _lost, with_task
from nas.cli.deploy import lines
from nas.tasks import ImageClassification, ImageRegression, ObjectDetection, SemanticSegmentation
from search_spaces.errors import InputError

PIXELS = np.zeros((6, 1, 2, 2), np.float32)
LABELS = np.array([0, 0, 0, 1, 1, 2])
REFERENCE = np.eye(3, dtype=np.float32)[LABELS]


def worse():
    """Class 1 is right half as often, the others as before."""
    found = REFERENCE.copy()
    found[3] = [1, 0, 0]
    return found


@pytest.mark.parametrize("task", [None, ImageClassification()])
def test_the_class_that_loses_most_is_named(task):
    images = Images(PIXELS, LABELS, "test", (LABELS,), task, ("a", "b", "c"))
    found = Comparison.of(worse(), REFERENCE, images)
    assert found.metric == "accuracy" and found.accuracy == pytest.approx(5 / 6)
    assert found.agreement == pytest.approx(5 / 6)
    assert {n: one.loss for n, one in found.by_class.items()} == {"a": 0, "b": 0.5, "c": 0}
    assert found.largest_loss == ("b", 0.5) and found.loss == pytest.approx(1 / 6)
    told = _lost(found)
    assert "16.7 points of accuracy" in told[0] and "class b loses 50.0 points" in told[1]


def test_classes_without_images_are_left_out_and_gains_are_no_loss():
    images = Images(PIXELS, np.zeros(6, int), "test")
    found = Comparison.of(worse(), REFERENCE, images)
    assert list(found.by_class) == ["0"] and found.largest_loss[1] < 0
    assert _lost(found) == []


def test_one_class_an_image_is_asked_for_where_nothing_says_what_outputs_mean():
    cells = np.zeros((6, 9, 7), np.float32)
    with pytest.raises(InputError, match="not one class an image; give its run"):
        Comparison.of(cells, cells, Images(PIXELS, None, "random"))
    boxes = np.zeros((6, 2, 6), np.float32)
    with pytest.raises(InputError, match=r"labels have shape \[6, 2, 6\]"):
        Comparison.of(REFERENCE, REFERENCE, Images(PIXELS, boxes, "test"))


def detector(boxes):
    """Outputs of 9 cells and 2 classes: of an image, (class, cell) pairs that it is sure of."""
    found = np.full((len(boxes), 9, 6), -6.0, np.float32)
    found[..., 2:4] = 0.0
    found[..., 4:] = 0.0
    for image, each in enumerate(boxes):
        for kind, cell in each:
            found[image, cell, kind] = 4.0
    return found


def truth_of(outputs, sure):
    from nas.tasks.boxes import boxes_of

    rows = np.full((len(outputs), 2, 6), -1, np.float32)
    rows[..., 1:] = 0
    for image, each in enumerate(sure):
        for place, (kind, cell) in enumerate(each):
            corners = np.clip(boxes_of(outputs[image])[cell], 0, 1)
            rows[image, place] = [kind, *corners, 0]
    return rows


SURE = [[(0, 0), (1, 8)], [(0, 4)], [(1, 2)], [(1, 6)]]


def test_detectors_agree_in_their_boxes_and_are_judged_by_their_precision():
    reference = detector(SURE)
    targets = truth_of(reference, SURE)
    other = detector([[(0, 0)], [(0, 4)], [(1, 2)], [(0, 6)]])  # one missed, one of another class
    images = Images(PIXELS[:4], None, "test", (targets[:2], targets[2:]), ObjectDetection(),
                    ("x", "y"))  # fmt: skip
    same = Comparison.of(reference, reference, images)
    assert same.agreement == 1.0 and same.value == pytest.approx(1.0)
    found = Comparison.of(other, reference, images)
    # Three pairs; four boxes of one and five of the other.
    assert found.agreement == pytest.approx(2 * 3 / 9) and found.agreement_of == "boxes"
    assert found.metric == "ap50" and found.accuracy is None
    assert found.value < 1.0 and found.reference_value == pytest.approx(1.0)
    assert found.largest_loss[0] == "y" and set(found.by_class) == {"x", "y"}
    # By cells all but two of 36 would agree: hence not by cells.
    assert np.mean(other.argmax(-1) == reference.argmax(-1)) > 0.9


def test_detectors_that_are_sure_of_nothing_agree():
    nothing = detector([[], []])
    images = Images(PIXELS[:2], None, "random", task=ObjectDetection())
    found = Comparison.of(nothing, nothing, images)
    assert found.agreement == 1.0 and found.value is None and found.by_class == {}


def test_regressions_decide_nothing_and_their_error_is_told():
    reference = np.linspace(0, 1, 6, dtype=np.float32)[:, None]
    task = ImageRegression()
    task.mean, task.std = torch.zeros(1), torch.ones(1)  # as load() sets them
    images = Images(PIXELS, None, "test", (reference,), task)
    found = Comparison.of(reference + 0.5, reference, images)
    assert found.agreement is None and found.metric == "rmse"
    assert found.value == pytest.approx(0.5) and found.loss == pytest.approx(0.5)
    assert _lost(found) == []  # no share, so no points


def test_segmenters_are_judged_pixel_by_pixel():
    reference = np.zeros((2, 2, 4, 4), np.float32)
    reference[:, 1, :, 2:] = 1.0
    reference[:, 0, :, :2] = 1.0
    targets = np.broadcast_to(np.array([0, 0, 1, 1]), (2, 4, 4)).copy()
    other = reference.copy()
    other[0] = other[0][::-1]
    images = Images(PIXELS[:2], None, "test", (targets,), SemanticSegmentation(), ("a", "b"))
    found = Comparison.of(other, reference, images)
    assert found.agreement == pytest.approx(0.5)
    assert found.reference_value == pytest.approx(1.0) and found.value < 0.7
    assert set(found.by_class) == {"a", "b"}


def test_the_card_beside_a_model_says_its_task(tmp_path):
    images = Images(PIXELS, None, "random")
    model = tmp_path / "a.onnx"
    assert with_task(images, model) is images
    card = {"format": 1, "task": "object_detection", "preprocessing": {"classes": ["x", "y"]}}
    (tmp_path / "a.json").write_text(json.dumps(card))
    found = with_task(images, model)
    assert isinstance(found.task, ObjectDetection) and found.classes == ("x", "y")
    (tmp_path / "a.json").write_text(json.dumps({**card, "task": "image_classification"}))
    assert with_task(images, model).task is None  # one class an image needs no torch
    for task in ("image_regression", "anomaly_detection"):
        (tmp_path / "a.json").write_text(json.dumps({**card, "task": task}))
        with pytest.raises(InputError, match="give its run or job"):
            with_task(Images(PIXELS, LABELS, "a.npz"), model)
    (tmp_path / "a.json").write_text("[")
    with pytest.raises(InputError, match="no model card"):
        with_task(images, model)


def test_the_command_tells_what_is_compared():
    images = Images(PIXELS, LABELS, "test", classes=("a", "b", "c"))
    against = Comparison.of(worse(), REFERENCE, images)
    latency = {"latency_ms": 1.0, "low_ms": 0.9, "high_ms": 1.1, "valid": True}
    report = SimpleNamespace(
        model="m.onnx", device="here", runtime="onnxruntime", latency=latency, float_latency=None,
        speedup=None, float_runtime=None, size_kib=1.0, float_size_kib=None, weights_kib=None,
        arithmetic=None, images=6, images_source="test", execution=against, against_float=None,
        problems=(), warnings=(),
    )  # fmt: skip
    told = "\n".join(lines(report))
    assert "agreement 83.3 %" in told and "accuracy 83.33 % (reference 100.00 %)" in told
    assert "b loses most: 50.00 % (reference 100.00 %), of 3 classes" in told
    report.execution = replace(against, each="output")
    assert "by output     b loses most: " in "\n".join(lines(report))
    report.against_float = Comparison.of(REFERENCE, REFERENCE, images)
    assert "none loses, of 3 classes" in "\n".join(lines(report))
