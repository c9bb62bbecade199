"""Boxes of objects: classes and corners for every cell of one or two grids over the image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS, Task
from nas.tasks.boxes import (
    SIZE_SCALE,
    AveragePrecision,
    cells_of,
    detections,
    grids_of,
    paired,
)
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing, box_drawing
from nas.tasks.scores import Score

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig

RADIUS = 1.0
"""Cells whose middle is no farther than so many cells from a box's answer for it."""

COARSE_FROM = 6.0
"""Where there are two grids, boxes larger than so many fine cells belong to the coarse one."""

BOX_WEIGHT = 2.0
"""Weight of the boxes' loss beside that of the classes (Zhang et al., ATSS, CVPR 2020)."""

SURE = 0.3
"""Boxes at least so sure are drawn, and held against those of another execution."""

LEAST_TAUGHT = 0.05
"""Where the teacher is less sure of every class, the student does not learn its box."""


@TASKS.register("object_detection")
class ObjectDetection(Task):
    """Boxes of objects: quality focal loss and generalised IoU, AP at an overlap of one half.

    Cells near the middle of a box answer for it (centre sampling, FCOS, Tian et al., ICCV 2019,
    section 3.2); the wanted score of its class is the overlap of the box they tell (Li et al.,
    NeurIPS 2020, generalised focal loss, section 3). Students learn, at the places of their own
    cells, the teacher's scores and where it is sure its boxes, so grids need not be equal.

    The metric counts boxes after non-maximum suppression, as :func:`nas.tasks.boxes.detections`
    gives them.
    """

    metric_name = "ap50"
    metric_is_share = True
    answers = "cells"
    agrees_on = "boxes"
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "ap": MetricKind("", maximise=True, share=True),
        "ap75": MetricKind("", maximise=True, share=True),
    }

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        return expect(load_splits(config, seed, kind="boxes"), "boxes", self)

    def outputs(self, splits: DataSplits) -> int:
        """Return the classes and four values that say where the box is."""
        return len(splits.classes) + 4

    # ---------------------------------------------------------------------------- losses

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the loss against boxes.

        outputs: (batch, cells, classes + 4); targets: (batch, most, 6), see
        :func:`nas.data.annotations.arrays.stack_boxes`.
        """
        import torch

        classes = outputs.shape[2] - 4
        told = _boxes(outputs)
        owner, ignored = _owners(outputs.shape[1], targets)
        taken = owner >= 0
        index = owner.clamp(min=0)
        truth = torch.gather(targets[..., 1:5], 1, index[..., None].expand(-1, -1, 4))
        kinds = torch.gather(targets[..., 0], 1, index).long()
        agreement = _giou(told, truth)
        quality = _iou(told.detach(), truth) * taken
        wanted = torch.zeros_like(outputs[..., :classes])
        wanted.scatter_(2, kinds.clamp(min=0)[..., None], quality[..., None])
        each = _focal(outputs[..., :classes], wanted).sum(-1)
        number = taken.sum().clamp(min=1)
        scores = (each * ~(ignored & ~taken)).sum() / number
        return scores + BOX_WEIGHT * ((1 - agreement) * taken).sum() / number

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the loss against a teacher's scores and boxes.

        Both (batch, cells, classes + 4); the numbers of cells may differ.
        """
        teacher = _at_cells(teacher_outputs.detach(), outputs.shape[1])
        classes = outputs.shape[2] - 4
        wanted = teacher["scores"]
        sure = wanted.amax(-1)
        number = sure.sum().clamp(min=1)
        scores = _focal(outputs[..., :classes], wanted).sum() / number
        weight = sure * (sure > LEAST_TAUGHT)
        apart = 1 - _giou(_boxes(outputs), teacher["boxes"])
        return scores + BOX_WEIGHT * (apart * weight).sum() / number

    # --------------------------------------------------------------------------- how good

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _DetectionScore()

    def constant(self, splits: DataSplits) -> float:
        """See :meth:`Task.constant`: the same boxes everywhere find next to nothing."""
        return 0.0

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the class that each cell is sure of, one more than it, or 0: (batch, cells)."""
        best, kind = outputs[..., :-4].max(-1)
        return (kind + 1) * (best > 0)

    def agreement(self, outputs: Tensor, reference: Tensor) -> float | None:
        """Return the share of boxes that both tell: of a class, with an overlap of one half.

        Twice the pairs over all boxes of both (Dice), so that a box too many counts as one too few;
        1 where neither tells any. Nearly all cells are sure of nothing, so cells would agree
        whatever the boxes are.
        """
        found, wanted = (
            detections(each.detach().float().cpu().numpy(), least_score=SURE)
            for each in (outputs, reference)
        )
        pairs = sum(paired(one, other) for one, other in zip(found, wanted, strict=True))
        total = sum(len(boxes) for boxes in (*found, *wanted))
        return 2 * pairs / total if total else 1.0

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        count = len(splits.classes)
        return (
            f"(batch, cells, {count + 4}). Cells are those of a square grid over the image, row by "
            "row, and where their number is no square, after them those of a grid with half as "
            f"many a side. Of a cell: {count} values before the logistic function, p = 1 / (1 + "
            "exp(-v)), for the classes in order; then dx, dy, w, h. The middle of the box is the "
            f"middle of the cell plus (dx, dy) cells; it is {SIZE_SCALE:g} * log(1 + exp(w)) cells "
            "wide, and as h says high. Leave out boxes with p below 0.05 (or what your use asks "
            "for), and of two of a class that overlap by an IoU above 0.6 the less sure one "
            "(non-maximum suppression, the surest first). `nas.tasks.boxes.detections(outputs)` "
            f"does all of it with NumPy alone. Classes in order: {', '.join(splits.classes)}."
        )

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: found boxes solid, wanted ones dashed."""
        (found,) = detections(output[None], least_score=SURE)
        return box_drawing(found, target, classes)


class _DetectionScore(Score):
    def __init__(self) -> None:
        self._sums: AveragePrecision | None = None

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        found = detections(outputs.detach().float().cpu().numpy())
        if self._sums is None:
            self._sums = AveragePrecision(outputs.shape[2] - 4)
        for image, truth in zip(found, targets.cpu().numpy(), strict=True):
            self._sums.add(image, truth)

    def values(self) -> dict[str, float]:
        """See :meth:`Score.values`."""
        each = self._each()
        known = each[:, ~np.isnan(each[0])]
        if not known.size:
            return {"ap50": math.nan, "ap": math.nan, "ap75": math.nan}
        return {
            "ap50": float(known[0].mean()),
            "ap": float(known.mean()),
            "ap75": float(known[5].mean()),
        }

    def by_class(self) -> list[float]:
        """See :meth:`Score.by_class`: AP at an overlap of one half."""
        return [float(value) for value in self._each()[0]]

    def _each(self) -> np.ndarray:
        if self._sums is None:
            raise ValueError("there is nothing to evaluate: the batches are empty")
        return self._sums.by_class()


# ------------------------------------------------------------------------------ geometry


def _cells(count: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Middles (cells, 2) and sides (cells, 1) as shares of the image."""
    import torch

    middle, side = (torch.from_numpy(x).to(like.device, torch.float32) for x in cells_of(count))
    return middle, side


def _coarse(count: int, like: Tensor) -> Tensor:
    """Which cells are of the second grid, (cells,) bool."""
    import torch

    return torch.arange(count, device=like.device) >= grids_of(count)[0] ** 2


def _boxes(outputs: Tensor) -> Tensor:
    """See :func:`nas.tasks.boxes.boxes_of`: (batch, cells, 4)."""
    import torch
    from torch.nn import functional as F

    middle, side = _cells(outputs.shape[1], outputs)
    centre = middle + side * outputs[..., -4:-2]
    half = 0.5 * SIZE_SCALE * side * F.softplus(outputs[..., -2:])
    return torch.cat([centre - half, centre + half], -1)


def _common(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection and union of boxes (..., 4), each (...)."""
    import torch

    first, last = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    common = (last - first).clamp(min=0).prod(-1)
    areas = [(x[..., 2:] - x[..., :2]).clamp(min=0).prod(-1) for x in (a, b)]
    return common, areas[0] + areas[1] - common


def _iou(a: Tensor, b: Tensor) -> Tensor:
    common, union = _common(a, b)
    return common / union.clamp(min=1e-9)


def _giou(a: Tensor, b: Tensor) -> Tensor:
    """Generalised IoU (Rezatofighi et al., CVPR 2019) of boxes (..., 4): (...), -1 to 1."""
    import torch

    common, union = _common(a, b)
    first, last = torch.minimum(a[..., :2], b[..., :2]), torch.maximum(a[..., 2:], b[..., 2:])
    around = (last - first).clamp(min=0).prod(-1).clamp(min=1e-9)
    return common / union.clamp(min=1e-9) - (around - union) / around


def _focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """Quality focal loss (Li et al., NeurIPS 2020, equation 4) with beta 2; same shape."""
    from torch.nn import functional as F

    error = (logits.sigmoid() - wanted).abs()
    return error**2 * F.binary_cross_entropy_with_logits(logits, wanted, reduction="none")


def _owners(cells: int, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Return which box each cell answers for, (batch, cells) int64 or -1, and which do not count.

    The smallest box wins a cell that several ask for. A box has at least the cell nearest to its
    middle, unless a smaller one has it.
    """
    import torch

    middle, side = _cells(cells, targets)
    kinds, corners, crowd = targets[..., 0], targets[..., 1:5], targets[..., 5] > 0
    there = (kinds >= 0) & ~crowd
    size = (corners[..., 2:] - corners[..., :2]).clamp(min=0)
    centre = 0.5 * (corners[..., 2:] + corners[..., :2])
    # (batch, cells, boxes)
    away = ((middle[:, None, :] - centre[:, None]).abs() / side[:, None, :]).amax(-1)
    inside = (
        (middle[:, None] > corners[:, None, :, :2]) & (middle[:, None] < corners[:, None, :, 2:])
    ).all(-1)
    grids = grids_of(cells)
    right = torch.ones_like(inside)
    if len(grids) > 1:
        large = size.amax(-1) * grids[0] > COARSE_FROM
        right = _coarse(cells, targets)[None, :, None] == large[:, None, :]
    nearest = away.masked_fill(~right, math.inf).argmin(1)
    asks = (away <= RADIUS) & inside & right
    asks.scatter_(1, nearest[:, None, :], torch.ones_like(asks[:, :1]))
    asks &= there[:, None, :]
    area = size.prod(-1)[:, None, :].expand_as(away).masked_fill(~asks, math.inf)
    smallest, owner = area.min(-1)
    ignored = (inside & (crowd & (kinds >= 0))[:, None, :]).any(-1)
    return torch.where(smallest.isinf(), torch.full_like(owner, -1), owner), ignored


def _at_cells(teacher: Tensor, cells: int) -> dict[str, Tensor]:
    """Return a teacher's scores and boxes at the places of other cells.

    Of the teacher's grids that of the same level, where the student has as many; otherwise the one
    that is surer at the place.
    """
    import torch

    scores, boxes = teacher[..., :-4].sigmoid(), _boxes(teacher)
    middle, _ = _cells(cells, teacher)
    begin, found = 0, []
    for side in grids_of(teacher.shape[1]):
        place = (middle * side).long().clamp(max=side - 1)
        index = begin + place[:, 1] * side + place[:, 0]
        found.append((scores[:, index], boxes[:, index]))
        begin += side * side
    if len(found) == 1:
        return {"scores": found[0][0], "boxes": found[0][1]}
    (fine, fine_boxes), (coarse, coarse_boxes) = found
    if len(grids_of(cells)) == len(found):
        takes = _coarse(cells, teacher)[None, :, None].expand(len(teacher), -1, 1)
    else:
        takes = coarse.amax(-1, keepdim=True) > fine.amax(-1, keepdim=True)
    return {
        "scores": torch.where(takes, coarse, fine),
        "boxes": torch.where(takes, coarse_boxes, fine_boxes),
    }
