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
        """The loss of targets and that of a teacher, to which nothing flows back."""
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
        """A distillation loss is least where the student says what the teacher says."""
        teacher = batch[0].detach()
        same = task.distillation_loss(teacher.clone(), teacher)
        assert same <= task.distillation_loss(teacher.flip(0), teacher)

    def test_the_metrics_do_not_depend_on_the_batches(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        """Values are those of all examples; of none there are no values."""
        outputs, targets = batch
        cut = len(outputs) // 3
        whole, parts = task.score(), task.score()
        whole.add(outputs, targets)
        parts.add(outputs[:cut], targets[:cut])
        parts.add(outputs[cut:], targets[cut:])
        values = whole.values()
        assert list(values) == [task.metric_name, *task.further_metrics]
        assert parts.values() == pytest.approx(values, nan_ok=True)
        assert parts.by_class() == pytest.approx(whole.by_class(), nan_ok=True)
        batches = [(outputs[:cut], targets[:cut]), (outputs[cut:], targets[cut:])]
        assert task.evaluate(lambda x: x, batches) == pytest.approx(values[task.metric_name])
        with pytest.raises(ValueError, match="nothing to evaluate"):
            task.score().values()

    def test_a_part_leaves_the_whole_plausible(
        self, task: Task, batch: tuple[Tensor, Tensor]
    ) -> None:
        """A limit is no worse than what was seen, and exact when all was seen."""
        outputs, targets = batch
        if not task.can_stop_early():
            return
        part, whole = task.score(), task.score()
        part.add(outputs[::2], targets[::2])
        whole.add(outputs, targets)
        limit, seen = part.limit(len(targets), 0.01), part.values()[task.metric_name]
        everything = whole.limit(len(targets), 0.01)
        if limit is None or everything is None:
            return  # sums alone say nothing of their spread
        sign = 1.0 if task.higher_is_better else -1.0
        assert sign * limit >= sign * seen - 1e-9
        # Of all examples nothing is left open.
        assert everything == pytest.approx(whole.values()[task.metric_name], abs=1e-6)

    def test_the_metric_is_known_by_its_name(self, task: Task) -> None:
        """A job names it as a goal, with the task's own direction."""
        from nas.fronts.metrics import METRICS, Goal, Metric

        assert METRICS.get(task.metric_name).maximise == task.higher_is_better
        assert Goal(Metric(task.metric_name)).sign == (-1.0 if task.higher_is_better else 1.0)

    def test_decisions_are_one_an_example(self, task: Task, batch: tuple[Tensor, Tensor]) -> None:
        """Where outputs are decisions at all."""
        decided = task.decide(batch[0])
        assert decided is None or len(decided) == len(batch[0])

    def test_classes_add_up_to_the_metric(self, task: Task, batch: tuple[Tensor, Tensor]) -> None:
        """Counts of each class (classes,); a task without classes refuses to count."""
        outputs, targets = batch
        if not task.has_classes:
            with pytest.raises(NotImplementedError):
                task.per_class(outputs, targets)
            return
        right, images = task.per_class(outputs, targets)
        assert right.shape == images.shape == (outputs.shape[1],)
        assert (right <= images).all() and float(images.sum()) == len(targets)
