import copy

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from search_spaces.errors import InputError
from search_spaces.sparsity import NO_SPARSITY, parse_sparsity
from supernet.onnx.export import export_onnx
from supernet.ptq.adaround import RoundingRecipe
from supernet.ptq.quantize import quantize_post_training
from supernet.sparsity.masks import magnitude_mask, zero_shares
from tests.supernet.sparsity.patterns import obeys

HALF, TWO, ONE = (parse_sparsity(text) for text in ("50%", "2:4", "1:4"))


def test_the_largest_weights_stay():
    weight = torch.tensor([[3.0, -1.0, 0.5, -4.0], [0.1, 0.2, -0.3, 5.0]])
    assert magnitude_mask(weight, HALF).tolist() == [
        [True, True, False, True], [False, False, False, True],
    ]  # fmt: skip
    assert magnitude_mask(weight, TWO).tolist() == [
        [True, False, False, True], [False, False, True, True],
    ]  # fmt: skip
    assert magnitude_mask(weight, NO_SPARSITY).all()


@pytest.mark.parametrize("pattern", [HALF, TWO, ONE], ids=str)
def test_masks_of_convolutions_run_along_the_inputs(pattern):
    torch.manual_seed(0)
    weight = torch.randn(5, 8, 3, 3)
    mask = magnitude_mask(weight, pattern)
    assert mask.shape == weight.shape
    assert int((~mask).sum()) == pattern.zeros(weight.numel())
    assert obeys(weight * mask, pattern) and not obeys(weight, pattern)
    if pattern.of:
        # By hand: each place of the kernel by itself, inputs in fours.
        for place in ((0, 0), (2, 1)):
            for start in (0, 4):
                row = weight[3, start : start + 4, place[0], place[1]].abs()
                kept = mask[3, start : start + 4, place[0], place[1]]
                assert kept.sum() == pattern.kept
                assert row[kept].min() >= row[~kept].max()


def test_equal_weights_leave_as_many():
    assert magnitude_mask(torch.ones(4, 8), HALF).sum() == 16
    assert magnitude_mask(torch.ones(4, 8), TWO).sum(1).tolist() == [4, 4, 4, 4]


def test_inputs_that_are_no_groups_are_refused():
    with pytest.raises(InputError, match="3 input channels"):
        magnitude_mask(torch.randn(4, 3, 3, 3), TWO)


def network():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(),
        nn.Conv2d(8, 16, 1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    ).eval()  # fmt: skip


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (2, 8), ("nf4", 8), (32, 32)], ids=str)
@pytest.mark.parametrize("steps", [("mse",), ("compensate", "bias"), ("equalize", "adaround")])
def test_zeros_are_in_the_network_and_in_the_file(tmp_path, bits, steps):
    images = torch.randn(32, 1, 8, 8)
    quantised = quantize_post_training(
        network(), [images], bits, steps=steps, sparsity=TWO,
        rounding=RoundingRecipe(iterations=20),
    )  # fmt: skip
    shares = zero_shares(quantised)
    layers = {layer.layer.name: layer for layer in quantised.plain_layers()}
    names = list(layers)
    # The first and the last stay, and the depthwise one cannot.
    for name in (names[1], names[3]):
        assert shares[name] >= 0.5 and obeys(layers[name].op.weight, TWO)
    assert shares[names[2]] < 0.5 or bits[0] == 2
    export_onnx(quantised, tmp_path / "a.onnx", weight_storage="int8")
    if bits[0] not in (8, 4, 2):
        return
    model = onnx.load(tmp_path / "a.onnx")
    stored = [numpy_helper.to_array(t) for t in model.graph.initializer]
    codes = [c for c in stored if c.dtype == np.int8 and c.shape == (8, 8, 3, 3)]
    assert len(codes) == 1 and obeys(torch.from_numpy(codes[0].astype(np.float32)), TWO)


def test_layers_have_patterns_of_their_own():
    images = torch.randn(16, 1, 8, 8)
    quantised = quantize_post_training(
        network(), [images], (8, 8), steps=("mse",), sparsity={"2": ONE, "4": HALF}
    )
    shares = zero_shares(quantised)
    assert shares["2"] >= 0.75 and shares["4"] >= 0.5 and shares["6"] < 0.2


@pytest.mark.parametrize(
    ("bits", "sparsity", "why"),
    [
        ((8, 8), {"4": TWO}, "4 cannot have the sparsity 2:4: .* 1 input channel"),
        ((8, 8), {"nothing": TWO}, "no such layer"),
        (("shift3", 8), {"2": HALF}, "no zero"),
    ],
)
def test_what_cannot_be_sparse_is_refused(bits, sparsity, why):
    with pytest.raises(InputError, match=why):
        quantize_post_training(
            network(), [torch.randn(4, 1, 8, 8)], bits, steps=("mse",), sparsity=sparsity
        )


def test_making_up_for_what_is_pruned_is_nearer_than_leaving_it_out():
    torch.manual_seed(1)
    module = network()
    # Inputs of a layer that depend on each other leave something to make up with.
    images = torch.randn(64, 1, 8, 8).cumsum(-1)
    with torch.no_grad():
        wanted = module(images)
    errors = {}
    for step in ("mse", "compensate"):
        found = quantize_post_training(
            copy.deepcopy(module), [images], (8, 8), steps=(step,), sparsity=HALF
        )
        with torch.no_grad():
            errors[step] = float((found(images) - wanted).norm())
    assert errors["compensate"] < errors["mse"]
