import numpy as np
import pytest
import torch

from search_spaces.spaces.registry import build_space
from supernet.network import Supernet
from supernet.testing import SupernetContract


class TestDetector(SupernetContract):
    @pytest.fixture(scope="class")
    def space(self):
        return build_space(
            "detector", preset="48x48", input_channels=1, outputs=9, activation_bits=[4, 8]
        )


class TestSegmenter(SupernetContract):
    @pytest.fixture(scope="class")
    def space(self):
        return build_space(
            "segmenter", preset="48x48", input_channels=1, outputs=5, activation_bits=[4, 8]
        )


@pytest.mark.parametrize("scales, cells", [("coarse", 36), ("fine", 144), ("both", 180)])
def test_a_detector_answers_for_each_cell(scales, cells):
    space = build_space(
        "detector", preset="48x48", input_channels=1, outputs=9, activation_bits=[4, 8]
    )
    text = str(space.largest()).replace("end.scales=both", f"end.scales={scales}")
    out = Supernet(space)(torch.randn(2, 1, 48, 48), space.parse(text))
    assert out.shape == (2, cells, 9)


def test_cells_are_told_row_by_row():
    """A bright spot moves the answers of the cells around it and not those far away."""
    torch.manual_seed(0)
    space = build_space("detector", preset="48x48", input_channels=1, outputs=3, weight_bits=[32],
                        activation_bits=[32])  # fmt: skip
    text = str(space.smallest()).replace("resolution=32", "resolution=48")
    arch = space.parse(text)
    supernet = Supernet(space)
    dark = torch.zeros(1, 1, 48, 48)
    spot = dark.clone()
    spot[0, 0, 2:6, 42:46] = 5.0
    statistics = supernet.statistics(arch, [torch.randn(8, 1, 48, 48)])
    both = [supernet.evaluate(x, arch, statistics) for x in (dark, spot)]
    moved = (both[0] - both[1]).abs().sum(-1).reshape(6, 6)
    assert moved[0, 5] > 0 and moved.argmax() in (5, 4, 11)
    np.testing.assert_allclose(moved[5, 0], 0, atol=1e-5)
