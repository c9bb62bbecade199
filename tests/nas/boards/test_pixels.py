"""Pixels become inputs as the model's file says, and what looks like pixels is told."""

import json

import numpy as np
import onnx
import pytest

from nas.boards.deployment import read_images
from nas.boards.pixels import as_inputs, preprocessing_in
from search_spaces.errors import InputError

RULE = {"pixel_scale": 1 / 255, "mean": [0.2, 0.5, 0.7], "std": [0.1, 0.2, 0.25],
        "layout": "NCHW", "channel_order": "rgb"}  # fmt: skip


def pixels():
    """Pictures with the mean and deviation that the rule says, as bytes."""
    noise = np.random.default_rng(0).normal(size=(40, 3, 6, 6))
    levels = noise * np.reshape(RULE["std"], (1, 3, 1, 1)) + np.reshape(RULE["mean"], (1, 3, 1, 1))
    return np.clip(np.round(255 * levels), 0, 255).astype(np.uint8)


def expected(order=slice(None)):
    scaled = pixels()[:, order].astype(float) / 255
    return (scaled - np.reshape(RULE["mean"], (1, 3, 1, 1))) / np.reshape(RULE["std"], (1, 3, 1, 1))


@pytest.mark.parametrize("kind", [np.uint8, np.int64])
def test_whole_numbers_are_pixels(kind):
    values, told, doubt = as_inputs(pixels().astype(kind), RULE, "a.npz")
    np.testing.assert_allclose(values, expected(), rtol=1e-4, atol=1e-5)
    assert "normalised as the model's file says" in told and not doubt
    swapped, _, _ = as_inputs(pixels().astype(kind), {**RULE, "channel_order": "bgr"}, "a.npz")
    np.testing.assert_allclose(swapped, expected(slice(None, None, -1)), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("scale", "said"), [(1.0, "pixels of 0 to 255"), (255.0, "0 to 1")])
def test_floats_are_taken_as_they_are_and_pixels_among_them_told(scale, said):
    given = pixels().astype(np.float32) / scale
    values, told, doubt = as_inputs(given, RULE, "a.npz")
    assert (values == given).all() and told == "a.npz"
    assert said in doubt and "0.2, 0.5, 0.7" in doubt


def test_inputs_of_the_model_are_not_doubted():
    assert as_inputs(expected(), RULE, "a.npz")[2] == ""
    # Nor is one picture of all, nor anything of a file that does not say how inputs are made.
    assert as_inputs(expected()[:1], RULE, "a.npz")[2] == ""
    values, _, doubt = as_inputs(pixels(), {}, "a.npz")
    assert (values == pixels()).all() and not doubt


def test_the_rule_is_read_from_the_file(tmp_path):
    value = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["n", 3, 6, 6])
    out = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["n", 3, 6, 6])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [value], [out]))
    path = tmp_path / "m.onnx"
    onnx.save(model, path)
    assert preprocessing_in(path) == {}
    onnx.helper.set_model_props(model, {"preprocessing": json.dumps(RULE)})
    onnx.save(model, path)
    assert preprocessing_in(path) == RULE
    np.savez(tmp_path / "a.npz", images=pixels(), labels=np.arange(40))
    read = read_images(tmp_path / "a.npz", (3, 6, 6), limit=7, model=path)
    np.testing.assert_allclose(read.pixels, expected()[:7], rtol=1e-4, atol=1e-5)
    np.savez(tmp_path / "f.npz", images=pixels() / 255)
    assert "pixels of 0 to 1" in read_images(tmp_path / "f.npz", (3, 6, 6), model=path).doubt
    onnx.helper.set_model_props(model, {"preprocessing": "none"})
    onnx.save(model, path)
    with pytest.raises(InputError, match="is no JSON object"):
        preprocessing_in(path)
