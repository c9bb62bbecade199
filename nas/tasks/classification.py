"""One class an example: images and signals."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nas.tasks.base import TASKS, Task
from nas.tasks.data import expect
from nas.tasks.overlays import Drawing

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig


class Classification(Task):
    """One class an example: cross-entropy, soft-target distillation, top-1 accuracy (0 to 1)."""

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        return expect(load_splits(config, seed, kind="classes"), "classes", self)

    def outputs(self, splits: DataSplits) -> int:
        """Return the number of classes."""
        return len(splits.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the cross-entropy. outputs: (batch, classes); targets: (batch,) int64."""
        from torch.nn import functional as F

        return F.cross_entropy(outputs, targets, label_smoothing=self.label_smoothing)

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the cross-entropy against the teacher's probabilities (Hinton et al., 2015).

        Temperature 1, as the in-place distillation of US-Nets (Yu and Huang, 2019).
        outputs, teacher_outputs: (batch, classes).
        """
        from torch.nn import functional as F

        return F.cross_entropy(outputs, teacher_outputs.detach().softmax(dim=1))

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return 1 for each right answer and 0 for each wrong one, (batch,)."""
        return (outputs.argmax(dim=1) == targets).double()

    def per_class(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (right answers, examples) of each class: two (classes,) float64 tensors."""
        import torch

        classes = outputs.shape[1]
        right = targets[outputs.argmax(dim=1) == targets]
        return (
            torch.bincount(right, minlength=classes).double(),
            torch.bincount(targets, minlength=classes).double(),
        )

    def decide(self, outputs: Tensor) -> Tensor:
        """Return the class of each example, (batch,)."""
        return outputs.argmax(dim=1)

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: the class that is told, and the right one where it is not."""
        told, right = classes[int(output.argmax())], classes[int(target)]
        return Drawing(caption=told if told == right else f"{told}, but it is {right}")

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        return (
            "one value a class before softmax; the class is that of the largest. Classes in "
            f"order: {', '.join(splits.classes)}."
        )


@TASKS.register("image_classification")
class ImageClassification(Classification):
    """One class an image."""


@TASKS.register("audio_classification")
class AudioClassification(Classification):
    """One class a sound, from its spectrogram."""


@TASKS.register("signal_classification")
class SignalClassification(Classification):
    """One class a signal: a window of one or more channels."""
