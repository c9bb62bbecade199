"""Numbers to predict: of images and of signals, one or several an example."""

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
    import torch
    from torch import Tensor

    from nas.data.splits import DataSplits
    from nas.job.sections.data import DataConfig


class Regression(Task):
    """Numbers to predict: squared error, distillation by squared error, root mean squared error.

    The network works on targets of mean 0 and deviation 1 over the training set, each output
    on its own; metrics are in the targets' own units.

    Attributes:
        mean, std: of the training targets, (outputs,) float32.
    """

    from_data = True
    metric_name = "rmse"
    higher_is_better = False
    further_metrics = {  # noqa: RUF012
        "mae": MetricKind(""),
        "r2": MetricKind("", maximise=True),
    }

    mean: torch.Tensor
    std: torch.Tensor

    def load(self, config: DataConfig, seed: int) -> DataSplits:
        """See :meth:`Task.load`."""
        from nas.data.splits import load_splits
        from nas.data.targets import refuse_constant

        splits = expect(load_splits(config, seed, kind="values"), "values", self)
        targets = splits.train.labels[splits.train.indices].float()
        refuse_constant(targets.numpy(), splits.classes, splits.origin)
        self.mean, self.std = targets.mean(0), targets.std(0)
        return splits

    def outputs(self, splits: DataSplits) -> int:
        """Return how many numbers are predicted."""
        return len(splits.classes)

    def loss(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error on the scale of the network. Both (batch, outputs)."""
        from torch.nn import functional as F

        return F.mse_loss(outputs, self._scaled(targets))

    def distillation_loss(self, outputs: Tensor, teacher_outputs: Tensor) -> Tensor:
        """Return the squared distance to the teacher's outputs; both (batch, outputs)."""
        from torch.nn import functional as F

        return F.mse_loss(outputs, teacher_outputs.detach())

    def terms(self, outputs: Tensor, targets: Tensor) -> Tensor:
        """Return the squared error in the targets' units, its mean over outputs: (batch,)."""
        return (self.decode(outputs).double() - targets.double()).pow(2).mean(1)

    def finish(self, mean: float) -> float:
        """Return the root mean squared error."""
        return math.sqrt(max(0.0, mean))

    def constant(self, splits: DataSplits) -> float:
        """See :meth:`Task.constant`: the error of the mean of the training targets."""
        import torch

        targets = splits.validation.labels[splits.validation.indices]
        return self.finish(float(self.terms(torch.zeros(targets.shape), targets).mean()))

    def decode(self, outputs: Tensor) -> Tensor:
        """Return outputs of a network in the targets' own units, (batch, outputs)."""
        return outputs.float() * self.std.to(outputs.device) + self.mean.to(outputs.device)

    def score(self) -> Score:
        """See :meth:`Task.score`."""
        return _RegressionScore(self)

    def drawing(self, output: np.ndarray, target: np.ndarray, classes: tuple[str, ...]) -> Drawing:
        """See :meth:`Task.drawing`: each value that is told, and the right one."""
        told = output * self.std.numpy() + self.mean.numpy()
        parts = [
            f"{name} {value:.4g} ({right:.4g})"
            for name, value, right in zip(classes, told.tolist(), target.tolist(), strict=True)
        ]
        return Drawing(caption=", ".join(parts))

    def output_text(self, splits: DataSplits) -> str:
        """See :meth:`Task.output_text`."""
        each = "; ".join(
            f"{name} = {std:.8g} * output[{i}] + {mean:.8g}"
            for i, (name, mean, std) in enumerate(
                zip(splits.classes, self.mean.tolist(), self.std.tolist(), strict=True)
            )
        )
        return f"standardised values; in their own units: {each}."

    def _scaled(self, targets: Tensor) -> Tensor:
        return (targets.float() - self.mean.to(targets.device)) / self.std.to(targets.device)


class _RegressionScore(WholeScore):
    """Root mean squared error with its spread; mean absolute error and R squared beside it."""

    def __init__(self, task: Regression) -> None:
        super().__init__(self._of, by_class=self._each)
        from nas.tasks.scores import MeanScore

        self._task, self._mean = task, MeanScore(task)

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """See :meth:`Score.add`."""
        super().add(self._task.decode(outputs), targets)
        self._mean.add(outputs, targets)

    def limit(self, total: int, risk: float) -> float | None:
        """See :meth:`Score.limit`."""
        return self._mean.limit(total, risk)

    def _of(self, values: np.ndarray, targets: np.ndarray) -> dict[str, float]:
        error = values.astype(float) - targets
        spread = ((targets - targets.mean(0)) ** 2).sum(0)
        r2 = 1 - (error**2).sum(0) / np.where(spread > 0, spread, np.nan)
        return {
            **self._mean.values(),
            "mae": float(np.abs(error).mean()),
            # Constant outputs explain nothing, and of one example nothing is known.
            "r2": float(np.nanmean(r2)) if np.isfinite(r2).any() else math.nan,
        }

    def _each(self, values: np.ndarray, targets: np.ndarray) -> list[float]:
        return [float(v) for v in np.sqrt(((values.astype(float) - targets) ** 2).mean(0))]


@TASKS.register("image_regression")
class ImageRegression(Regression):
    """Numbers to predict from an image."""


@TASKS.register("signal_regression")
class SignalRegression(Regression):
    """Numbers to predict from a signal."""
