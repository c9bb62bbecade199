"""Images of other sizes are PyTorch's, to half a code."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from devices.lowbit.integers.gates import of_codes, of_floats
from devices.lowbit.integers.resampling import image_taps, matrix_taps, resampled
from search_spaces.errors import InputError


def matrix(size: int, out: int, mode: str, corners: bool) -> np.ndarray:
    """Return what interpolation does along one axis, (out, size)."""
    eye = torch.eye(size)[None, :, :, None].expand(1, size, size, 4)
    made = F.interpolate(eye, size=(out, 4), mode=mode, align_corners=corners)
    return made[0, :, :, 1].T.numpy()


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("corners", [True, False])
@pytest.mark.parametrize("sides", [(10, 14), (15, 7), (3, 21)])
def test_it_is_what_pytorch_computes(mode, corners, sides):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 3, 5, 7)).astype(np.float32)
    grid = {"scale": 0.03, "zero_point": 110, "bits": 8}
    axes = [
        matrix_taps(matrix(size, out, mode, corners))
        for size, out in zip((5, 7), sides, strict=True)
    ]
    rows, columns = image_taps(axes, (5, 7), "y")
    found = resampled(of_floats(6.0, None), x, rows, columns, grid)
    wanted = F.interpolate(torch.from_numpy(x), size=sides, mode=mode, align_corners=corners)
    exact = np.clip(wanted.numpy() / 0.03 + 110, 0, 255)
    assert found.shape == exact.shape
    assert np.abs(found - exact).max() <= 0.501


def test_codes_are_lengthened_and_negative_results_cut():
    rng = np.random.default_rng(0)
    given = {"scale": 0.05, "zero_point": 100, "bits": 8}
    codes = rng.integers(0, 256, (1, 2, 4, 4)).astype(np.uint8)
    rows, columns = image_taps((matrix_taps(matrix(4, 8, "bilinear", False)), None), (4, 4), "y")
    grid = {"scale": 0.04, "zero_point": 5, "bits": 8}
    found = resampled(of_codes(given, None), codes, rows, columns, grid, positive=True)
    values = torch.from_numpy((codes.astype(np.float32) - 100) * 0.05)
    wanted = F.interpolate(values, size=(8, 4), mode="bilinear").relu().numpy()
    exact = np.clip(wanted / 0.04 + 5, 0, 255)
    assert np.abs(found - exact).max() <= 0.501 and found.min() == 5


def test_matrices_that_mix_many_places_are_no_taps():
    assert matrix_taps(np.full((3, 8), 1 / 8)) is None
    assert matrix_taps(2 * np.eye(4)) is None
    assert matrix_taps(np.zeros((2, 4))) is None


def test_matrices_for_another_image_are_refused():
    taps = matrix_taps(np.eye(5))
    with pytest.raises(InputError, match=r"y: matrices that resize another image than .*\(4, 4\)"):
        image_taps((taps, None), (4, 4), "y")
