"""What every task must do: losses that can be trained on and a metric that adds up."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from nas.tasks import Task

if TYPE_CHECKING:
    from torch import Tensor


class TaskContract:
    """The promises of :class:`~nas.tasks.Task`, on outputs and targets that the author gives."""

    @pytest.fixture
    def task(self) -> Task:
        """The task under test."""
        raise NotImplementedError("give the suite a fixture 'task'")

    @pytest.fixture
    def batch(self) -> tuple[Tensor, Tensor]:
        """Outputs (batch, units) of a network and targets (batch, ...), at least 8."""
        raise NotImplementedError("give the suite a fixture 'batch'")

    def test_the_losses_are_finite_scalars_with_gradients(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        outputs, targets = batch[0].detach().clone().requires_grad_(), batch[1]
        task.loss(outputs, targets).backward()
        assert outputs.grad is not None and outputs.grad.isfinite().all() and outputs.grad.any()
        teacher = batch[0].detach().flip(0).requires_grad_()
        student = batch[0].detach().clone().requires_grad_()
        loss = task.distillation_loss(student, teacher)
        assert loss.shape == () and bool(loss.isfinite())
        loss.backward()
        assert student.grad is not None and student.grad.isfinite().all()
        assert teacher.grad is None, "the teacher's outputs are constants"

    def test_a_student_that_agrees_has_the_least_loss(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        teacher = batch[0].detach()
        same = task.distillation_loss(teacher.clone(), teacher)
        assert same <= task.distillation_loss(teacher.flip(0), teacher)

    def test_the_metric_adds_up_over_uneven_batches(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        outputs, targets = batch
        cut = len(outputs) // 3
        whole, weight = task.metric(outputs, targets)
        parts = [task.metric(outputs[i:j], targets[i:j]) for i, j in ((0, cut), (cut, None))]
        assert weight > 0
        assert sum(part for part, _ in parts) == pytest.approx(whole)
        assert sum(w for _, w in parts) == pytest.approx(weight)
        batches = [(outputs[:cut], targets[:cut]), (outputs[cut:], targets[cut:])]
        assert task.evaluate(lambda x: x, batches) == pytest.approx(whole / weight)

    def test_classes_add_up_to_the_metric(self, task: Task, batch: tuple[Tensor, Tensor]) -> None:
        outputs, targets = batch
        if not task.has_classes:
            with pytest.raises(NotImplementedError):
                task.per_class(outputs, targets)
            return
        right, images = task.per_class(outputs, targets)
        assert right.shape == images.shape == (outputs.shape[1],)
        assert (right <= images).all() and float(images.sum()) == len(targets)
