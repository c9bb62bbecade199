"""A class for every pixel of an image."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from nas.data.annotations.arrays import IGNORE
from nas.fronts.metrics import MetricKind
from nas.tasks.base import TASKS, Task
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing
from nas.tasks.scores import Score

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig

DICE_WEIGHT = 1.0
"""Weight of the Dice loss beside the cross-entropy."""


@TASKS.register("semantic_segmentation")
class SemanticSegmentation(Task):
    """A class a pixel: cross-entropy and Dice of every pixel, mean IoU.

    Cross-entropy alone says little about classes of few pixels, which the mean over classes counts
    as much as the background (Milletari et al., 3DV 2016, section 3).

    Networks answer on a grid coarser than the image. The metric enlarges their values to the size
    of the masks, bilinearly, as whoever uses the file does. The losses count each pixel at the cell
    it lies in, which is what values enlarged by nearest neighbours lose: at the size of the masks
    they would take several times as long as a small network does. Distillation is cross-entropy
    against the teacher's probabilities, brought to the student's grid.
    """

    metric_name = "mean_iou"
    metric_is_share = True
    answers = "grid"
    further_metrics: ClassVar[dict[str, MetricKind]] = {
        "pixel_accuracy": MetricKind("", maximise=True, share=True),
    }

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        return expect(load_splits(config, seed, kind="masks"), "masks", self)

    def outputs(self, splits: DataSplits) -> int:
        """Return the number of classes."""
        return len(splits.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy plus the Dice loss.

        outputs: (batch, classes, height, width); targets: (batch, rows, columns) uint8.
        """
        from torch.nn import functional as F

        classes = outputs.shape[1]
        counts = pixel_counts(targets, classes, (outputs.shape[-2], outputs.shape[-1]))
        logs = F.log_softmax(outputs.permute(0, 2, 3, 1), dim=-1)
        smooth = self.label_smoothing
        wanted = (1 - smooth) * counts + smooth / classes * counts.sum(-1, keepdim=True)
        # Of a batch without a pixel that counts the mean would be 0 / 0.
        total = -(wanted * logs).sum() / counts.sum().clamp(min=1)
        return total + DICE_WEIGHT * _dice(logs.exp(), counts)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the cross-entropy against the teacher's probabilities.

        Both (batch, classes, height, width); the grids may differ.
        """
        from torch.nn import functional as F

        size = (outputs.shape[-2], outputs.shape[-1])
        taught = teacher_outputs.detach()
        if tuple(taught.shape[-2:]) != size:
            taught = F.interpolate(
                taught, size, mode="bilinear", antialias=True, align_corners=False
            )
        return F.cross_entropy(outputs, taught.softmax(dim=1))

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _MaskScore()

    def constant(self, splits: DataSplits) -> float | None:
        """See :meth:`Task.constant`: every pixel of the most frequent class."""
        import torch

        masks = splits.validation.labels[splits.validation.indices].flatten()
        count = torch.bincount(masks[masks != IGNORE].int(), minlength=len(splits.classes))
        there = int((count > 0).sum())
        return float(count.max() / count.sum() / there) if there else None

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the class of each place of the grid: (batch, height, width)."""
        return outputs.argmax(dim=1)

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        return (
            f"(batch, {len(splits.classes)}, height, width): a value a class before softmax for "
            "every place of a grid over the image. Enlarge it bilinearly to the image's size "
            "(pixel centres aligned, not corners); the class of a pixel is that of the largest "
            f"value. Classes in order: {', '.join(splits.classes)}."
        )

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: the mask that was found."""
        import torch

        size = (target.shape[-2], target.shape[-1])
        found = enlarged(torch.from_numpy(output)[None].float(), size).argmax(1)[0].numpy()
        counted = target != IGNORE
        right = float((found == target)[counted].mean()) if counted.any() else math.nan
        return Drawing(mask=found.astype(np.uint8), caption=f"{100 * right:.0f} % of pixels right")


def enlarged(outputs: Tensor, size: tuple[int, int]) -> Tensor:
    """Return values (batch, classes, height, width) at another size, bilinearly."""
    from torch.nn import functional as F

    if tuple(outputs.shape[-2:]) == size:
        return outputs
    return F.interpolate(outputs, size, mode="bilinear", align_corners=False)


def pixel_counts(masks: Tensor, classes: int, grid: tuple[int, int]) -> Tensor:
    """Return how many pixels of each class every cell of a grid has: (batch, *grid, classes).

    Args:
        masks: (batch, rows, columns) uint8; pixels of :data:`IGNORE` count for nothing.
        classes: how many there are.
        grid: cells in height and width. A grid finer than the masks has cells without pixels.
    """
    import torch

    batch, rows, columns = masks.shape
    height, width = grid
    down = torch.arange(rows, device=masks.device) * height // rows
    right = torch.arange(columns, device=masks.device) * width // columns
    place = torch.arange(batch, device=masks.device)[:, None, None] * (height * width)
    place = place + down[:, None] * width + right
    kind = masks.long()
    kind = torch.where(kind == IGNORE, classes, kind)
    found = torch.bincount(
        (place * (classes + 1) + kind).flatten(), minlength=batch * height * width * (classes + 1)
    )
    return found.view(batch, height, width, classes + 1)[..., :classes].float()


def _dice(shares: Tensor, counts: Tensor) -> Tensor:
    """Return one less the mean soft Dice over the classes of a batch, a scalar from 0 to 1.

    Args:
        shares: probabilities of the classes, (batch, height, width, classes).
        counts: pixels of each class, of the same shape.
    """
    common = (shares * counts).sum((0, 1, 2))
    wanted = counts.sum((0, 1, 2))
    both = (shares * counts.sum(-1, keepdim=True)).sum((0, 1, 2)) + wanted
    there = wanted > 0
    each = 1 - 2 * common / both.clamp(min=1.0)
    return (each * there).sum() / there.sum().clamp(min=1)


class _MaskScore(Score):
    """Sums of pixels by (class that is there, class that was told)."""

    def __init__(self) -> None:
        self._counts: np.ndarray | None = None

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        import torch

        classes = outputs.shape[1]
        if self._counts is None:
            self._counts = np.zeros((classes, classes), dtype=np.int64)
        truth = targets.long()
        # A few images at once: values at the size of the masks are large.
        for values, wanted in zip(outputs.split(32), truth.split(32), strict=True):
            told = enlarged(values.float(), (wanted.shape[-2], wanted.shape[-1])).argmax(1)
            counted = wanted != IGNORE
            pairs = wanted[counted] * classes + told[counted]
            found = torch.bincount(pairs, minlength=classes**2)
            self._counts += found.reshape(classes, classes).cpu().numpy()

    def values(self) -> dict[str, float]:
        """See :meth:`Score.values`."""
        counts = self._known()
        each = [value for value in self.by_class() if not math.isnan(value)]
        total = counts.sum()
        return {
            "mean_iou": float(np.mean(each)) if each else math.nan,
            "pixel_accuracy": float(np.trace(counts) / total) if total else math.nan,
        }

    def by_class(self) -> list[float]:
        """See :meth:`Score.by_class`: IoU of each class that is in a mask or was told."""
        counts = self._known()
        both = np.diag(counts).astype(float)
        either = counts.sum(0) + counts.sum(1) - both
        return [b / e if e else math.nan for b, e in zip(both, either, strict=True)]

    def _known(self) -> np.ndarray:
        if self._counts is None:
            raise ValueError("there is nothing to evaluate: the batches are empty")
        return self._counts
