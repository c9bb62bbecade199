import math

import numpy as np
import pytest
import torch
from sklearn.metrics import average_precision_score, roc_auc_score

from nas.tasks.multi_label import MultiLabelClassification, area_under_roc, average_precision


@pytest.mark.parametrize("ties", [False, True])
def test_rank_statistics_are_those_of_scikit_learn(ties):
    rng = np.random.default_rng(0)
    for _ in range(20):
        truth = rng.random(50) < 0.3
        scores = rng.normal(size=50) + truth
        scores = scores.round(0 if ties else 9)
        truth[0], truth[1] = True, False
        ap, auc = average_precision(scores, truth), area_under_roc(scores, truth)
        assert ap == pytest.approx(average_precision_score(truth, scores))
        assert auc == pytest.approx(roc_auc_score(truth, scores))


def test_labels_without_examples_of_a_kind_are_left_out_of_the_means():
    assert math.isnan(average_precision(np.arange(3.0), np.zeros(3)))
    assert math.isnan(area_under_roc(np.arange(3.0), np.ones(3)))
    score = MultiLabelClassification().score()
    targets = torch.tensor([[1.0, 0.0], [0.0, 0.0], [1.0, 0.0]])
    score.add(torch.tensor([[2.0, 1.0], [-1.0, 0.0], [1.0, -1.0]]), targets)
    found = score.values()
    assert found["mean_average_precision"] == found["auc"] == 1.0
    assert found["f1"] == pytest.approx(2 * 2 / (3 + 2))
    assert score.by_class()[0] == 1.0 and math.isnan(score.by_class()[1])


def test_smoothing_moves_targets_towards_one_half():
    outputs, targets = torch.randn(8, 3), (torch.rand(8, 3) < 0.5).float()
    plain, smooth = MultiLabelClassification(), MultiLabelClassification(label_smoothing=0.2)
    wanted = torch.where(targets > 0, 0.9, 0.1)
    assert smooth.loss(outputs, targets) == pytest.approx(float(plain.loss(outputs, wanted)))
