"""Every built-in task keeps what :class:`nas.testing.TaskContract` asks of tasks."""

import pytest
import torch

from nas.tasks import (
    TASKS,
    AudioClassification,
    ImageClassification,
    ImageRegression,
    MultiLabelClassification,
    SignalClassification,
    SignalRegression,
)
from nas.testing import TaskContract


@pytest.fixture(autouse=True)
def seeded():
    torch.manual_seed(0)


class OneClass(TaskContract):
    @pytest.fixture
    def batch(self):
        return torch.randn(40, 5), torch.arange(40) % 5


class TestImageClassification(OneClass):
    @pytest.fixture
    def task(self):
        return ImageClassification(label_smoothing=0.1)


class TestAudioClassification(OneClass):
    @pytest.fixture
    def task(self):
        return AudioClassification()


class TestSignalClassification(OneClass):
    @pytest.fixture
    def task(self):
        return SignalClassification()


class TestMultiLabel(TaskContract):
    @pytest.fixture
    def task(self):
        return MultiLabelClassification(label_smoothing=0.1)

    @pytest.fixture
    def batch(self):
        return torch.randn(40, 3), (torch.rand(40, 3) < 0.4).float()


class Values(TaskContract):
    KIND = ImageRegression

    @pytest.fixture
    def task(self):
        task = self.KIND()
        task.mean, task.std = torch.tensor([10.0, -3.0]), torch.tensor([4.0, 0.5])
        return task

    @pytest.fixture
    def batch(self):
        return torch.randn(40, 2), torch.randn(40, 2) * 3 + 8


class TestImageRegression(Values):
    pass


class TestSignalRegression(Values):
    KIND = SignalRegression


def test_every_built_in_task_is_here():
    tested = {ImageClassification, SignalClassification, MultiLabelClassification}
    tested |= {ImageRegression, SignalRegression, AudioClassification}
    built_in = {TASKS.get(name) for name in TASKS if TASKS.get(name).__module__.startswith("nas.")}
    assert built_in == tested
