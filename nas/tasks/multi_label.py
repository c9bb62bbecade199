"""Any number of labels an image: each is there or not."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS, Task
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing
from nas.tasks.scores import Score, WholeScore

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig


@TASKS.register("multi_label_classification")
class MultiLabelClassification(Task):
    """Any number of labels an example: binary cross-entropy, mean average precision.

    Distillation is binary cross-entropy against the teacher's probabilities. The mean runs over
    the labels that some example has; the area under the ROC curve over those that some have and
    some lack.
    """

    metric_name = "mean_average_precision"
    metric_is_share = True
    further_metrics = {  # noqa: RUF012
        "auc": MetricKind("", maximise=True, share=True),
        "f1": MetricKind("", maximise=True, share=True),
    }

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        return expect(load_splits(config, seed, kind="labels"), "labels", self)

    def outputs(self, splits: DataSplits) -> int:
        """Return the number of labels."""
        return len(splits.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the binary cross-entropy. outputs: (batch, labels); targets: the same, 0 or 1."""
        from torch.nn import functional as F

        wanted = targets.float()
        if self.label_smoothing:
            wanted = wanted * (1 - self.label_smoothing) + 0.5 * self.label_smoothing
        return F.binary_cross_entropy_with_logits(outputs, wanted)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the binary cross-entropy against the teacher's probabilities; (batch, labels)."""
        from torch.nn import functional as F

        return F.binary_cross_entropy_with_logits(outputs, teacher_outputs.detach().sigmoid())

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return WholeScore(_metrics, by_class=_each)

    def constant(self, splits: DataSplits) -> float:
        """See :meth:`Task.constant`: the mean share of examples that have a label."""
        targets = splits.validation.labels[splits.validation.indices].numpy()
        return _mean(_each(np.zeros(targets.shape), targets))

    def decide(self, outputs: Tensor) -> Tensor:
        """Return which labels are more likely there than not, (batch, labels) bool."""
        return outputs > 0

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: the labels that are told, and those that are there."""
        told, there = (
            ", ".join(n for n, on in zip(classes, each, strict=True) if on) or "nothing"
            for each in (output > 0, target > 0.5)
        )
        return Drawing(caption=told if told == there else f"{told}, but it is {there}")

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        return (
            "one value a label before the logistic function: p = 1 / (1 + exp(-logit)); above 0 "
            "the label is more likely there than not. Labels in order: "
            f"{', '.join(splits.classes)}."
        )


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the average precision of scores (n,) for truth (n,) of 0 and 1; NaN without a 1.

    The mean over recall steps of the precision there, equal scores taken together: what
    scikit-learn's ``average_precision_score`` gives.
    """
    truth = np.asarray(truth, dtype=float)
    if not truth.sum():
        return math.nan
    found, seen = _cumulative(scores, truth)
    recall = found / truth.sum()
    return float(np.sum(np.diff(recall, prepend=0.0) * found / seen))


def area_under_roc(scores: np.ndarray, truth: np.ndarray) -> float:
    """Return the area under the ROC curve, ties counted half; NaN if all truth is alike."""
    truth = np.asarray(truth, dtype=float)
    if not 0 < truth.sum() < len(truth):
        return math.nan
    found, seen = _cumulative(scores, truth)
    hits = np.concatenate([[0.0], found / truth.sum()])
    alarms = np.concatenate([[0.0], (seen - found) / (len(truth) - truth.sum())])
    return float(np.trapezoid(hits, alarms))


def _cumulative(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """True and all examples at or above each distinct score, from the highest down."""
    order = np.argsort(-np.asarray(scores), kind="stable")
    ranked = np.asarray(scores)[order]
    last = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)
    return np.cumsum(truth[order])[last], last + 1.0


def _each(outputs: np.ndarray, targets: np.ndarray) -> list[float]:
    return [average_precision(outputs[:, i], targets[:, i]) for i in range(targets.shape[1])]


def _metrics(outputs: np.ndarray, targets: np.ndarray) -> dict[str, float]:
    areas = [area_under_roc(outputs[:, i], targets[:, i]) for i in range(targets.shape[1])]
    told, truth = outputs > 0, targets > 0.5
    both, either = (told & truth).sum(), told.sum() + truth.sum()
    return {
        "mean_average_precision": _mean(_each(outputs, targets)),
        "auc": _mean(areas),
        "f1": float(2 * both / either) if either else math.nan,
    }


def _mean(values: list[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
