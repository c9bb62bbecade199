import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from nas.tasks import SemanticSegmentation
from nas.tasks.segmentation import DICE_WEIGHT, enlarged, pixel_counts


def answers(masks, classes, *, certainty=20.0):
    """Outputs at half the size that tell ``masks`` (n, h, w), whose pixels come in twos."""
    return certainty * F.one_hot(masks[:, ::2, ::2].long(), classes).permute(0, 3, 1, 2).float()


def coarse_masks(count=6, classes=4):
    torch.manual_seed(0)
    small = torch.randint(0, classes, (count, 2, 2))
    return small.repeat_interleave(8, 1).repeat_interleave(8, 2).to(torch.uint8)


def test_mean_iou_is_that_of_all_pixels_together():
    """Against scikit-learn's Jaccard index, macro over classes, of every pixel that counts."""
    metrics = pytest.importorskip("sklearn.metrics")
    torch.manual_seed(0)
    outputs, masks = torch.randn(5, 4, 8, 8), torch.randint(0, 4, (5, 16, 16)).to(torch.uint8)
    masks[0, :5] = 255
    score = SemanticSegmentation().score()
    score.add(outputs[:2], masks[:2])
    score.add(outputs[2:], masks[2:])
    told = enlarged(outputs, (16, 16)).argmax(1)
    counted = masks != 255
    expected = metrics.jaccard_score(
        masks[counted].numpy(), told[counted].numpy(), average=None, labels=range(4)
    )
    np.testing.assert_allclose(score.by_class(), expected)
    values = score.values()
    assert values["mean_iou"] == pytest.approx(expected.mean())
    assert values["pixel_accuracy"] == pytest.approx(
        metrics.accuracy_score(masks[counted].numpy(), told[counted].numpy())
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_the_loss_is_that_of_values_enlarged_by_nearest_neighbours(smoothing):
    """Against torch's cross-entropy of every pixel that counts, and soft Dice by its definition."""
    torch.manual_seed(0)
    outputs, masks = torch.randn(3, 5, 6, 6), torch.randint(0, 4, (3, 24, 24)).to(torch.uint8)
    masks[0, :7] = 255
    values = F.interpolate(outputs, (24, 24), mode="nearest")
    expected = F.cross_entropy(values, masks.long(), ignore_index=255, label_smoothing=smoothing)
    counted = masks != 255
    shares, truth = values.softmax(1).permute(0, 2, 3, 1)[counted], masks[counted].long()
    wanted = F.one_hot(truth, 5).float()
    dice = 2 * (shares * wanted).sum(0) / (shares.sum(0) + wanted.sum(0))
    # The last class is in no mask, and counts for nothing.
    expected = expected + DICE_WEIGHT * (1 - dice[:4]).mean()
    loss = SemanticSegmentation(label_smoothing=smoothing).loss(outputs, masks)
    assert loss == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("grid", [(5, 5), (3, 7), (24, 24)])
def test_every_pixel_counts_once(grid):
    masks = torch.randint(0, 4, (2, 16, 16)).to(torch.uint8)
    masks[1, 3] = 255
    counts = pixel_counts(masks, 4, grid)
    assert counts.shape == (2, *grid, 4)
    for k in range(4):
        assert counts[..., k].sum() == (masks == k).sum()
    assert counts.sum() == (masks != 255).sum()


def test_right_answers_lose_nothing_and_wrong_ones_much():
    masks = coarse_masks()
    task = SemanticSegmentation()
    right = task.loss(answers(masks, 4), masks)
    wrong = task.loss(answers((masks + 1) % 4, 4), masks)
    # Edges between classes are a mean of two at half the size.
    assert right < 0.4 and wrong > 5


def test_the_loss_is_cross_entropy_and_dice_by_hand():
    masks = torch.zeros(1, 4, 4, dtype=torch.uint8)
    masks[:, :2] = 1
    loss = SemanticSegmentation().loss(torch.zeros(1, 2, 4, 4), masks)
    # Of each class 8 pixels are half told, and so are the 8 others: 1 - 2 * 4 / (8 + 8).
    assert float(loss) == pytest.approx(math.log(2) + 0.5)


def test_pixels_that_count_for_nothing_change_nothing():
    masks = coarse_masks()
    outputs = torch.randn(6, 4, 8, 8)
    task = SemanticSegmentation()
    hidden = masks.clone()
    hidden[:, :, 8:] = 255
    other = outputs.clone()
    other[:, :, :, 5:] += 3.0
    assert task.loss(outputs, hidden) == pytest.approx(float(task.loss(other, hidden)), rel=1e-5)
    nothing = task.loss(outputs, torch.full_like(masks, 255))
    assert float(nothing) == 0.0


def test_a_class_that_is_nowhere_has_no_iou():
    masks = torch.zeros(2, 8, 8, dtype=torch.uint8)
    score = SemanticSegmentation().score()
    score.add(answers(masks, 3), masks)
    first, *others = score.by_class()
    assert first == 1.0 and all(np.isnan(value) for value in others)
    assert score.values()["mean_iou"] == 1.0


def test_students_of_another_size_learn_from_the_teacher_at_their_places():
    teacher = answers(coarse_masks(2), 4)
    student = F.interpolate(teacher, (4, 4), mode="nearest")
    task = SemanticSegmentation()
    assert task.distillation_loss(student, teacher) < task.distillation_loss(
        student.flip(2), teacher
    )
