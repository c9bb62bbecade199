"""Statistics of a batch, pooled over batches, frozen."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from supernet.batchnorm import (
    EPSILON,
    BatchStatistics,
    FrozenStatistics,
    MomentRecorder,
    record_statistics,
)


def parameters(channels: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.rand(channels) + 0.5, torch.randn(channels)


def test_batch_statistics_are_those_of_a_training_layer():
    x = torch.randn(4, 3, 5, 5)
    layer = nn.BatchNorm2d(3, eps=EPSILON)
    weight, bias = parameters(3)
    layer.load_state_dict({"weight": weight, "bias": bias}, strict=False)
    assert torch.equal(BatchStatistics()("a", x, weight, bias), layer(x))


@given(st.lists(st.integers(1, 5), min_size=1, max_size=4), st.integers(0, 1000))
def test_pooled_moments_are_those_of_all_images_together(sizes, seed):
    torch.manual_seed(seed)
    batches = [torch.randn(n, 3, 4, 4) * (1 + i) + 3 * i for i, n in enumerate(sizes)]
    recorder = MomentRecorder()
    for batch in batches:
        recorder("layer", batch, *parameters(3))
    mean, variance = recorder.statistics()["layer"]
    everything = torch.cat(batches).double().transpose(0, 1).flatten(1)
    torch.testing.assert_close(mean.double(), everything.mean(1), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        variance.double(), everything.var(1, unbiased=False), rtol=1e-4, atol=1e-4
    )


def test_recording_normalises_as_training_does_and_keeps_layers_apart():
    recorder, x = MomentRecorder(), torch.randn(4, 3, 5, 5)
    weight, bias = parameters(3)
    expected = BatchStatistics()("a", x, weight, bias)
    torch.testing.assert_close(recorder("a", x, weight, bias), expected)
    recorder("b", x[:, :2] + 1, weight[:2], bias[:2])
    found = recorder.statistics()
    assert sorted(found) == ["a", "b"] and found["b"][0].shape == (2,)
    torch.testing.assert_close(found["b"][0], found["a"][0][:2] + 1)


def test_a_constant_channel_has_no_negative_variance():
    recorder = MomentRecorder()
    recorder("a", torch.full((2, 1, 2, 2), 1000.0), torch.ones(1), torch.zeros(1))
    variance = recorder.statistics()["a"][1].item()
    assert 0 <= variance < 1e-3


def test_frozen_statistics_are_those_of_an_evaluation_layer():
    x = torch.randn(4, 3, 5, 5)
    weight, bias = parameters(3)
    mean, variance = torch.randn(3), torch.rand(3) + 0.1
    layer = nn.BatchNorm2d(3, eps=EPSILON).eval()
    layer.load_state_dict(
        {"weight": weight, "bias": bias, "running_mean": mean, "running_var": variance},
        strict=False,
    )
    frozen = FrozenStatistics({"a": (mean, variance)})
    assert torch.equal(frozen("a", x, weight, bias), layer(x))
    assert torch.equal(frozen("a", x[:1], weight, bias), layer(x)[:1])
    with pytest.raises(KeyError, match="b"):
        frozen("b", x, weight, bias)


def test_recording_runs_every_batch_without_gradients():
    weight = torch.ones(3, requires_grad=True)
    seen = []

    def forward(x, norm):
        y = norm("a", x, weight, torch.zeros(3))
        seen.append((len(x), y.requires_grad))

    statistics = record_statistics(forward, [torch.randn(2, 3, 2, 2), torch.randn(5, 3, 2, 2)])
    assert seen == [(2, False), (5, False)] and list(statistics) == ["a"]
