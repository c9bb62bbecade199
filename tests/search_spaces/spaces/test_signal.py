import numpy as np
import pytest

from search_spaces.errors import InputError
from search_spaces.spaces.registry import build_space
from search_spaces.spaces.signal import SignalSpace


def test_layers_run_along_the_length_alone():
    space = build_space("signal", input_channels=3, outputs=4, input_size=(1, 151))
    plan = space.plan(space.largest())
    assert plan.input_shape == (3, 1, 151)
    convolutions = [layer for layer in plan.layers() if layer.kind == "conv"]
    assert all(layer.dimensions == 1 and layer.in_height == 1 for layer in convolutions)
    depthwise = next(layer for layer in convolutions if layer.role == "depthwise")
    assert depthwise.kernel == 33
    assert depthwise.weight_count == depthwise.out_channels * 33
    assert depthwise.macs == depthwise.weight_count * depthwise.out_size
    assert depthwise.kernel_sides == (1, 33)
    assert depthwise.pads == (0, 16)


def test_a_resolution_is_a_share_of_the_data(rng=np.random.default_rng(0)):
    short = build_space("signal", preset="256", input_size=(1, 100))
    genes = short.sample_genes(rng, 50)
    share = np.array([arch["resolution"] for arch in short.decode(genes)])
    assert (short.resolution_column(genes) == np.rint(100 * share)).all()
    assert (short.height_column(genes) == 1).all()
    long = build_space("signal", preset="256", input_size=(1, 400))
    assert long.cardinality() == short.cardinality()
    assert (long.costs(genes)["macs"] > 3 * short.costs(genes)["macs"]).all()


def test_costs_of_one_row_are_counted_once():
    """By hand: the stem of a signal of 64 values with stride 2, beside the same for a square."""
    signal = build_space("signal", preset="256", input_channels=1, input_size=(1, 64))
    stem = next(iter(signal.plan(signal.largest()).layers()))
    assert (stem.in_pixels, stem.out_pixels) == (64, 32)
    assert stem.macs == stem.out_channels * stem.kernel * 32
    square = build_space("mobilenet", preset="28x28", input_channels=1)
    stem = next(iter(square.plan(square.largest()).layers()))
    assert stem.macs == stem.out_channels * stem.kernel**2 * stem.out_size**2


@pytest.mark.parametrize(
    "parameters, message",
    [
        ({"resolutions": [0.5, 2.0]}, "2 is no share of the data's length"),
        ({"resolutions": [1.0, 0.5]}, "ascending"),
        ({"input_size": (28, 28)}, "images of 28 x 28"),
        ({"preset": "28x28"}, "unknown preset"),
    ],
)
def test_values_that_no_signal_space_has_are_refused(parameters, message):
    with pytest.raises(InputError, match=message):
        build_space("signal", **parameters)


def test_stages_may_be_residual():
    stage = {"kind": "residual", "channels": 16, "stride": 2, "depths": [1, 2]}
    space = SignalSpace.from_config(stages=[stage], kernels=[3, 5], expands=[1])
    assert {block.kind for block in space.plan(space.largest()).blocks} == {
        "stem", "residual", "head"
    }  # fmt: skip


@pytest.mark.parametrize("name", ["mobilenet", "resnet"])
def test_networks_keep_the_ratio_of_their_data(name):
    space = build_space(name, preset="32x32", input_channels=1, input_size=(49, 40))
    for width in (24, 28, 32):
        arch = space.arch(dict(space.largest().items) | {"resolution": width})
        plan = space.plan(arch)
        assert plan.input_shape == (1, round(width * 49 / 40), width)
        for layer in plan.layers():
            if layer.kind == "conv" and layer.stride == 2:
                assert layer.out_pixels == -(-layer.in_size // 2) * -(-layer.in_height // 2)
    square = build_space(name, preset="32x32", input_channels=1, input_size=(32, 32))
    assert all(layer.in_height == -1 for layer in square.plan(square.largest()).layers())


def test_spaces_of_square_images_refuse_others():
    with pytest.raises(InputError, match="49 x 40"):
        build_space("hybrid", input_size=(49, 40))
