import numpy as np
import pytest
import torch

from nas.data.sources import DATA_SOURCES, ImageArrays, RawData
from nas.job.sections.data import DataConfig
from nas.tasks import ImageClassification, ImageRegression
from search_spaces.errors import InputError


@pytest.fixture
def source(monkeypatch):
    """Return a function that registers a source of the given targets for the test."""

    def add(values: np.ndarray, names: tuple[str, ...], targets: str = "values") -> DataConfig:
        images = np.random.default_rng(0).normal(size=(len(values), 1, 6, 6))
        raw = RawData(ImageArrays(images, values), None, names, 1, 6, "made up", targets=targets)
        monkeypatch.setitem(DATA_SOURCES._parts, "made_up", lambda config: raw)
        return DataConfig(name="made_up")

    return add


def test_metrics_are_in_the_targets_own_units():
    rng = np.random.default_rng(0)
    truth = rng.normal(50, 20, (60, 2)).astype(np.float32)
    guess = truth + rng.normal(0, 3, truth.shape).astype(np.float32)
    task = ImageRegression()
    task.mean, task.std = torch.tensor([50.0, 40.0]), torch.tensor([20.0, 10.0])
    outputs = (torch.from_numpy(guess) - task.mean) / task.std
    score = task.score()
    score.add(outputs, torch.from_numpy(truth))
    error = guess.astype(float) - truth
    found = score.values()
    assert found["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=1e-5)
    assert found["mae"] == pytest.approx(np.abs(error).mean(), rel=1e-5)
    spread = ((truth - truth.mean(0)) ** 2).sum(0)
    assert found["r2"] == pytest.approx((1 - (error**2).sum(0) / spread).mean(), rel=1e-4)
    assert score.by_class() == pytest.approx(np.sqrt((error**2).mean(0)).tolist(), rel=1e-5)


def test_targets_are_standardised_over_the_training_set_alone(source):
    values = np.random.default_rng(1).normal([5, -2], [2, 9], (60, 2))
    task = ImageRegression()
    splits = task.load(source(values, ("a", "b")), seed=0)
    train = values[splits.train.indices.numpy()]
    np.testing.assert_allclose(task.mean.numpy(), train.mean(0), rtol=1e-5)
    np.testing.assert_allclose(task.std.numpy(), train.std(0, ddof=1), rtol=1e-5)
    # The constant mean has a loss of about 1 whatever the units.
    loss = task.loss(torch.zeros(len(train), 2), torch.from_numpy(train).float())
    assert loss == pytest.approx(1.0, abs=0.05)
    assert task.outputs(splits) == 2
    text = task.output_text(splits)
    assert f"a = {task.std[0]:.8g} * output[0] + {task.mean[0]:.8g}" in text


def test_a_target_that_never_changes_is_named(source):
    values = np.stack([np.arange(40.0), np.full(40, 3.0)], axis=1)
    with pytest.raises(InputError, match=r"width has the same value.*targets: \[height\]"):
        ImageRegression().load(source(values, ("height", "width")), seed=0)


def test_data_of_another_kind_name_the_tasks_that_suit_them(source):
    with pytest.raises(InputError, match=r"numbers to predict.*image_regression"):
        ImageClassification().load(source(np.ones((40, 1)), ("a",)), seed=0)
    with pytest.raises(InputError, match=r"one class an example.*image_classification"):
        ImageRegression().load(source(np.arange(40) % 2, ("a", "b"), "classes"), seed=0)
