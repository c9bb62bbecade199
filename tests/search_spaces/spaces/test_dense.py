import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from search_spaces.testing import PlannedSpaceContract


class TestDetector(PlannedSpaceContract):
    @pytest.fixture
    def space(self):
        return build_space("detector", preset="48x48", input_channels=1, outputs=9)


class TestDetectorWithLayersOfTheirOwnBits(PlannedSpaceContract):
    @pytest.fixture
    def space(self):
        return build_space(
            "detector", preset="96x96", outputs=14, granularity="layer", weight_bits=[2, 4, 8]
        )


class TestSegmenter(PlannedSpaceContract):
    @pytest.fixture
    def space(self):
        return build_space("segmenter", preset="48x48", input_channels=1, outputs=5)


class TestDeepSegmenter(PlannedSpaceContract):
    @pytest.fixture
    def space(self):
        return build_space("segmenter", preset="96x96", outputs=11, granularity="layer")


def test_a_detector_predicts_for_the_cells_of_its_scales():
    space = build_space("detector", preset="96x96", input_channels=1, outputs=14)
    largest = space.largest()
    cells = {"coarse": 6 * 6, "fine": 12 * 12, "both": 12 * 12 + 6 * 6}
    for scales, count in cells.items():
        plan = space.plan(
            space.parse(str(largest).replace("end.scales=both", f"end.scales={scales}"))
        )
        found = [layer for layer in plan.layers() if layer.role.endswith("predict")]
        assert sum(layer.tokens for layer in found) == count
        assert ("fork" in {block.kind for block in plan.blocks}) == (scales != "coarse")


def test_one_kind_of_head_alone_is_no_choice():
    space = build_space("detector", scales=["coarse"], end_depths=[1])
    assert all(not c.name.startswith("end.fine") for c in space.choices)
    roles = {layer.role for layer in space.plan(space.largest()).layers()}
    assert "lateral" not in roles and "coarse_predict" in roles


def test_a_kept_map_lives_until_it_is_joined():
    """By hand: while the coarse stage runs, the map of the fine one is in memory beside it."""
    stages = [
        {"channels": 16, "stride": 2, "depths": [1]},
        # So wide that the peak is in its second block.
        {"channels": 64, "stride": 2, "depths": [2], "expands": [6]},
    ]
    space = build_space(
        "detector", preset="48x48", input_channels=1, outputs=9, resolutions=[48], widths=[1.0],
        stages=stages,
    )  # fmt: skip
    text = str(space.largest())
    both, fine, coarse = (
        space.plan(space.parse(text.replace("end.scales=both", f"end.scales={s}"))).peak_memory_kib
        for s in ("both", "fine", "coarse")
    )
    # Input and output of the depthwise convolution, and the block's input for the sum.
    assert coarse == (2 * 6 * 64 * 6 * 6 + 64 * 6 * 6) / 1024
    assert both == fine == coarse + 16 * 12 * 12 / 1024


@pytest.mark.parametrize(
    "name, parameters, message",
    [
        ("detector", {"resolutions": [90]}, "90 is no multiple of 16"),
        ("detector", {"scales": ["both", "fine"]}, "in the order coarse, fine, both"),
        ("detector", {"scales": ["huge"]}, "not one of"),
        ("detector", {"fine_stage": 3}, "fine_stage=3"),
        ("detector", {"fine_stage": 1}, "half as large"),
        ("detector", {"end_depths": [4]}, "end_depths=4"),
        ("detector", {"head_channels": 64}, "leave them out"),
        ("segmenter", {"kept_stages": [2, 3]}, "kept_stages=3"),
        ("segmenter", {"end_steps": [3]}, "end_steps=3"),
        ("segmenter", {"preset": "48x48", "stages": [
            {"channels": 8, "stride": 1, "depths": [1]},
            {"channels": 8, "stride": 1, "depths": [1]},
            {"channels": 8, "stride": 2, "depths": [1]}]}, "smaller than the next"),
        ("segmenter", {"input_size": (48, 64)}, "square images"),
    ],
)  # fmt: skip
def test_values_that_no_such_space_has_are_refused(name, parameters, message):
    with pytest.raises(InputError, match=message):
        build_space(name, **parameters)


def test_decoders_end_at_the_map_of_their_last_step():
    space = build_space("segmenter", preset="96x96", input_channels=3, outputs=11)
    genes = space.sample_genes(np.random.default_rng(0), 20)
    for arch in space.decode(genes):
        last = list(space.plan(arch).layers())[-1]
        stride = {1: 8, 2: 4}[arch["end.steps"]]
        assert last.out_size == arch["resolution"] // stride
