"""What the network is given: the job's mean and deviation, range and order, or the data's own."""

from __future__ import annotations

import pytest
import torch

from nas.data.batches import Subset
from nas.data.images import MemoryImages
from nas.data.normalisation import normalisation_of
from nas.job.sections.data import DataConfig
from search_spaces.errors import InputError


def subset(channels=3, *, values=False):
    generator = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (10, channels, 4, 4), dtype=torch.uint8, generator=generator)
    pixels = pixels.float() if values else pixels
    return Subset(MemoryImages(pixels), torch.zeros(10, dtype=torch.int64), torch.arange(10))


def made(given, part=None):
    config = DataConfig.model_validate({"name": "digits", "normalisation": given})
    part = part or subset()
    pixels = part.at(torch.arange(10))[0]
    return normalisation_of(config, part, pixels.shape[1])(pixels), pixels.float()


def test_left_out_it_is_that_of_the_data():
    found, _ = made(None)
    torch.testing.assert_close(found.mean((0, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-4, rtol=0)


def test_imagenet_is_that_of_torchvision():
    from torchvision.transforms.functional import normalize

    found, pixels = made("imagenet")
    expected = normalize(pixels / 255, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    torch.testing.assert_close(found, expected)


def test_bytes_are_taken_as_they_are_and_one_entry_is_for_all():
    found, pixels = made({"mean": [127.5], "deviation": [127.5], "range": "bytes"})
    torch.testing.assert_close(found, pixels / 127.5 - 1)


def test_bgr_reverses_the_channels_and_mean_follows_the_network():
    found, pixels = made({"mean": [0, 10, 20], "deviation": [1, 2, 4], "range": "bytes",
                          "order": "bgr"})  # fmt: skip
    torch.testing.assert_close(found[:, 0], pixels[:, 2])
    torch.testing.assert_close(found[:, 2], (pixels[:, 0] - 20) / 4)


@pytest.mark.parametrize(
    ("given", "part", "message"),
    [
        ({"mean": [0.5, 0.5], "deviation": [0.5]}, subset(), "2 and 1 entries, and the data have"),
        ("imagenet", subset(1), "have 3 and 3 entries, and the data have 1 channels"),
        ({"mean": [0.5], "deviation": [1], "order": "bgr"}, subset(1), "bgr is for 3 channels"),
        ("imagenet", subset(values=True), "the data are values, no pixels"),
    ],
)
def test_what_does_not_fit_is_told(given, part, message):
    with pytest.raises(InputError, match=message):
        made(given, part)


@pytest.mark.parametrize("value", [0.0, 0.1, -5e4])
def test_channels_that_never_change_are_named(value):
    values = torch.randn(10, 4, 1, 50, dtype=torch.float64)
    values[:, 1], values[:, 3] = value, value
    part = Subset(MemoryImages(values), torch.zeros(10, dtype=torch.int64), torch.arange(10))
    with pytest.raises(
        InputError, match=r"channels 1, 3 of 4, counted from 0, have the same value"
    ):
        made(None, part)
    black = subset()
    black.images.pixels[:, 2] = 7
    with pytest.raises(InputError, match=r"channel 2 of 3.*data.normalisation"):
        made(None, black)
