"""Images at other sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from supernet.resolution import resize_images


def test_the_same_size_is_the_same_tensor():
    x = torch.randn(2, 3, 8, 8)
    assert resize_images(x, 8) is x


@pytest.mark.parametrize("size", [4, 7, 12, 16])
def test_sizes_and_means_are_kept(size):
    x = torch.rand(2, 3, 16, 12)
    y = resize_images(x, size)
    assert y.shape == (2, 3, size, size)
    flat = torch.full((1, 1, 16, 16), 0.7)
    torch.testing.assert_close(resize_images(flat, size), torch.full((1, 1, size, size), 0.7))


@pytest.mark.parametrize("size", [5, 8, 13, 24])
def test_it_is_what_an_image_library_does(size):
    image = np.random.default_rng(0).random((16, 16)).astype(np.float32)
    expected = np.asarray(Image.fromarray(image).resize((size, size), Image.BILINEAR))
    ours = resize_images(torch.from_numpy(image)[None, None], size)[0, 0].numpy()
    np.testing.assert_allclose(ours, expected, atol=1e-5)
