"""What a network is trained for: its data, its loss and the number that says how good it is.

A task is registered under the name that a job's ``task`` holds; other packages add
theirs through the entry point ``nas.tasks``. A task object belongs to one run.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING

from search_spaces.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.schema import DataConfig

TASKS: Registry[type[Task]] = Registry("task", group="nas.tasks")


class Task(ABC):
    """The base of every task.

    The search maximises the metric; a metric that is better when smaller sets
    ``higher_is_better`` to False and is turned round by the caller.

    Args:
        label_smoothing: of the job; a task without classes ignores it.
    """

    metric_name: str = "accuracy"
    higher_is_better: bool = True

    def __init__(self, *, label_smoothing: float = 0.0) -> None:
        self.label_smoothing = label_smoothing

    @abstractmethod
    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """Return the data, divided by ``seed``.

        Raises:
            InputError: the data is not what the task expects.
            EnvironmentProblem: the data is not on this machine.
        """

    @abstractmethod
    def outputs(self, splits: DataSplits) -> int:
        """Return how many units the last layer has."""

    @abstractmethod
    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the mean loss, a scalar. outputs: (batch, units); targets: (batch, ...)."""

    @abstractmethod
    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the mean loss against a teacher, a scalar; both (batch, units).

        The teacher's outputs are treated as constants.
        """

    @abstractmethod
    def metric(self, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Return (sum, weight) of the metric over a batch.

        Sums and weights of all batches are added; the metric is their quotient.
        """

    def per_class(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (right answers, images) of each class: two (classes,) float64 tensors.

        A task with classes overrides it; then results tell the metric of each class, training
        is guarded against collapse and studies may ask how sure a network is of its answer.
        """
        raise NotImplementedError(f"{type(self).__name__} has no classes")

    @property
    def has_classes(self) -> bool:
        """Whether targets are numbers of classes: whether :meth:`per_class` is there."""
        return type(self).per_class is not Task.per_class

    def evaluate(
        self, network: Callable[[Tensor], Tensor], batches: Iterable[tuple[Tensor, Tensor]]
    ) -> float:
        """Return the metric over ``batches`` of (images, targets)."""
        import torch

        total = weight = 0.0
        with torch.inference_mode():
            for images, targets in batches:
                part, part_weight = self.metric(network(images), targets)
                total += part
                weight += part_weight
        if weight == 0:
            raise ValueError("there is nothing to evaluate: the batches are empty")
        return total / weight


@TASKS.register("image_classification")
class ImageClassification(Task):
    """One class an image: cross-entropy, soft-target distillation, top-1 accuracy (0 to 1)."""

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits

        return load_splits(config, seed)

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

    def metric(self, outputs: Tensor, targets: Tensor) -> tuple[float, float]:
        """Return (right answers, images). outputs: (batch, classes); targets: (batch,)."""
        return float((outputs.argmax(dim=1) == targets).sum()), float(len(targets))

    def per_class(self, outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Return (right answers, images) of each class: two (classes,) float64 tensors."""
        import torch

        classes = outputs.shape[1]
        right = targets[outputs.argmax(dim=1) == targets]
        return (
            torch.bincount(right, minlength=classes).double(),
            torch.bincount(targets, minlength=classes).double(),
        )
