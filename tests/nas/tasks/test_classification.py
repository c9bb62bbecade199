import pytest
import torch
from torch.nn import functional as F

from nas.job.sections.data import DataConfig
from nas.tasks import TASKS, ImageClassification, Task
from nas.testing import TaskContract


class Denoising(Task):
    metric_name, higher_is_better = "error", False

    def load(self, config, seed):
        raise NotImplementedError

    def outputs(self, splits):
        return 1

    def loss(self, outputs, targets):
        return F.mse_loss(outputs, targets)

    def distillation_loss(self, outputs, teacher_outputs):
        return F.mse_loss(outputs, teacher_outputs.detach())

    def metric(self, outputs, targets):
        return float(((outputs - targets) ** 2).sum()), float(len(targets))


@pytest.fixture
def task() -> ImageClassification:
    return ImageClassification()


class TestClassification(TaskContract):
    @pytest.fixture
    def task(self):
        return ImageClassification(label_smoothing=0.1)

    @pytest.fixture
    def batch(self):
        return torch.randn(40, 5), torch.randint(4, (40,))


class TestWithoutClasses(TaskContract):
    @pytest.fixture
    def task(self):
        return Denoising()

    @pytest.fixture
    def batch(self):
        return torch.randn(40, 1), torch.randn(40, 1)


def test_the_default_task_is_registered():
    assert TASKS.get("image_classification") is ImageClassification


def test_loss_is_cross_entropy_with_smoothing():
    outputs, targets = torch.randn(6, 4), torch.randint(4, (6,))
    log_p = outputs.log_softmax(1)
    plain = -log_p[torch.arange(6), targets]
    torch.testing.assert_close(ImageClassification().loss(outputs, targets), plain.mean())
    smooth = ImageClassification(label_smoothing=0.2).loss(outputs, targets)
    torch.testing.assert_close(smooth, (0.8 * plain - 0.2 * log_p.mean(1)).mean())


def test_distillation_is_least_where_the_student_agrees(task):
    teacher = torch.randn(8, 5, requires_grad=True)
    student = teacher.detach().clone().requires_grad_()
    loss = task.distillation_loss(student, teacher)
    loss.backward()
    torch.testing.assert_close(student.grad, torch.zeros_like(student), atol=1e-6, rtol=0)
    assert teacher.grad is None
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(loss, entropy)
    assert task.distillation_loss(student.detach() + torch.randn(8, 5), teacher) > loss


def test_the_metric_adds_up_over_uneven_batches(task):
    outputs, targets = torch.randn(10, 3), torch.randint(3, (10,))
    whole, count = task.metric(outputs, targets)
    whole /= count

    def network(images: torch.Tensor) -> torch.Tensor:
        return images

    batches = [(outputs[:7], targets[:7]), (outputs[7:], targets[7:])]
    assert task.evaluate(network, batches) == pytest.approx(whole)
    assert 0.0 <= whole <= 1.0
    with pytest.raises(ValueError, match="empty"):
        task.evaluate(network, [])


def test_per_class_accuracy_sums_to_the_accuracy(task):
    outputs, targets = torch.randn(40, 5), torch.randint(4, (40,))  # class 4 never occurs
    right, images = task.per_class(outputs, targets)
    assert right.shape == images.shape == (5,)
    assert (float(right.sum()), float(images.sum())) == task.metric(outputs, targets)
    assert images[4] == 0


def test_outputs_follow_the_data(task):
    splits = task.load(DataConfig(name="digits"), seed=0)
    assert task.outputs(splits) == 10


def test_a_task_of_another_package_needs_only_the_interface():
    batches = [(torch.ones(4, 1), torch.zeros(4, 1)), (torch.zeros(4, 1), torch.zeros(4, 1))]
    assert Denoising().evaluate(lambda x: x, batches) == 0.5
