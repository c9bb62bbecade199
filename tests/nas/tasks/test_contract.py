"""Every built-in task keeps what :class:`nas.testing.TaskContract` asks of tasks."""

import pytest
import torch

from nas.data.text.tokens import ByteTokens
from nas.tasks import (
    TASKS,
    AnomalyDetection,
    AudioClassification,
    AudioEmbedding,
    ImageClassification,
    ImageEmbedding,
    ImageRegression,
    LanguageModelling,
    MultiLabelClassification,
    ObjectDetection,
    SemanticSegmentation,
    SequenceToSequence,
    SignalClassification,
    SignalEmbedding,
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


class TestImageEmbedding(TaskContract):
    @pytest.fixture
    def task(self):
        return ImageEmbedding()

    @pytest.fixture
    def batch(self):
        return torch.randn(40, 8), torch.arange(40) % 5


class TestAnomalyDetection(TaskContract):
    @pytest.fixture
    def task(self):
        return AnomalyDetection()

    @pytest.fixture
    def batch(self):
        outputs = torch.randn(40, 16, 1, 4)
        kinds = torch.arange(40.0)[:, None] % 3  # normal, an anomaly, one to hold errors against
        return outputs, torch.cat([kinds, torch.randn(40, 64)], 1)


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
    tested |= {ObjectDetection, SemanticSegmentation, AnomalyDetection}
    tested |= {ImageEmbedding, AudioEmbedding, SignalEmbedding}
    tested |= {LanguageModelling, SequenceToSequence}
    built_in = {TASKS.get(name) for name in TASKS if TASKS.get(name).__module__.startswith("nas.")}
    assert built_in == tested


class TestObjectDetection(TaskContract):
    @pytest.fixture
    def task(self):
        return ObjectDetection()

    @pytest.fixture
    def batch(self):
        targets = torch.zeros(12, 3, 6)
        targets[:, :, 0] = torch.randint(0, 4, (12, 3)).float()
        corner = 0.6 * torch.rand(12, 3, 2)
        targets[:, :, 1:3], targets[:, :, 3:5] = corner, corner + 0.1 + 0.3 * torch.rand(12, 3, 2)
        targets[0, :, 0] = -1  # background alone
        targets[1, 0, 5] = 1  # neither to be found nor wrong to be found
        return torch.randn(12, 20, 8), targets


class TestSemanticSegmentation(TaskContract):
    @pytest.fixture
    def task(self):
        return SemanticSegmentation()

    @pytest.fixture
    def batch(self):
        masks = torch.randint(0, 5, (9, 16, 16)).to(torch.uint8)
        masks[0, :4] = 255
        return torch.randn(9, 5, 8, 8), masks


class TestLanguageModelling(TaskContract):
    @pytest.fixture
    def task(self):
        task = LanguageModelling(label_smoothing=0.1)
        task.tokens = ByteTokens()
        return task

    @pytest.fixture
    def batch(self):
        return torch.randn(12, 6, 256), torch.randint(0, 256, (12, 6))


class TestSequenceToSequence(TaskContract):
    @pytest.fixture
    def task(self):
        return SequenceToSequence(label_smoothing=0.1)

    @pytest.fixture
    def batch(self):
        targets = torch.randint(1, 6, (12, 5))
        targets[:, 4] = 0
        targets[1, 2:] = 0
        outputs = torch.randn(12, 5, 6)
        # Some answers are right.
        outputs[:4] += 9 * torch.nn.functional.one_hot(targets[:4], 6)
        return outputs, targets
