"""Inputs of ``nas bits`` are those that the network was trained with, and of its shape."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from nas.bits.source import module_source
from nas.job.sections.data import IMAGENET
from search_spaces.errors import InputError

onnx = pytest.importorskip("onnx")


def small():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))


def known():
    network = small()
    network.default_cfg = {"mean": (0.25,), "std": (0.5,), "input_size": (1, 8, 8)}
    return network


def test_inputs_are_normalised_as_asked():
    name = f"{__name__}:small"
    own = module_source(name, data="digits", images=64)
    told = module_source(name, data="digits", images=64, normalisation={
        "mean": [0.5], "deviation": [0.25]})  # fmt: skip
    assert own.from_data and not told.from_data
    mean, deviation = own.about["mean"][0], own.about["deviation"][0]
    pixels = own.calibration[0] * deviation + mean
    torch.testing.assert_close(told.calibration[0], (pixels - 0.5) / 0.25)


def test_inputs_are_those_that_a_network_says_it_was_trained_with():
    found = module_source(f"{__name__}:known", data="digits", images=64)
    assert found.about["mean"] == (0.25,) and not found.from_data
    own = module_source(f"{__name__}:known", data="digits", images=64, normalisation="data")
    assert own.about["mean"] != (0.25,) and not own.from_data


def test_torchvision_s_networks_take_imagenet_s(tmp_path):
    from PIL import Image

    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.new("RGB", (32, 32), (i, 2 * i, 0)).save(tmp_path / label / f"{i}.png")
    found = module_source(
        "torchvision.models:squeezenet1_1", data="image_folder", data_path=tmp_path, image_size=32,
        images=4,
    )  # fmt: skip
    assert found.about["mean"] == tuple(IMAGENET.mean)


def grey():
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )


def test_a_folder_is_data_and_its_pictures_become_what_the_network_takes(tmp_path):
    from PIL import Image

    for label in "ab":
        (tmp_path / label).mkdir()
        for i in range(10):
            Image.new("RGB", (20, 20), (i, 2 * i, 0)).save(tmp_path / label / f"{i}.png")
    found = module_source(f"{__name__}:grey", data=str(tmp_path), images=4)
    # One channel, and as large as they are: not three, nor the side of photographs.
    assert found.calibration[0].shape == (4, 1, 20, 20)
    told = " ".join(found.told)
    assert "made grey" in told and "made 20 pixels wide" in told
    asked = module_source(f"{__name__}:grey", data=str(tmp_path), images=4, image_size=24)
    assert asked.calibration[0].shape == (4, 1, 24, 24) and len(asked.told) == 1
    with pytest.raises(InputError, match="neither a folder nor a data set"):
        module_source(f"{__name__}:grey", data=str(tmp_path / "nowhere"))


def test_arrays_of_another_shape_are_told(tmp_path):
    np.save(tmp_path / "x.npy", np.zeros((4, 1, 9, 9), np.float32))
    with pytest.raises(InputError, match=r"x.npy: the network does not take its inputs of 1x9x9"):
        module_source(f"{__name__}:small", array=tmp_path / "x.npy")


def test_pixels_of_an_array_are_normalised_as_asked_or_refused(tmp_path):
    path = tmp_path / "x.npy"
    pixels = np.random.default_rng(0).integers(0, 256, (4, 1, 8, 8), dtype=np.uint8)
    np.save(path, pixels)
    name = f"{__name__}:small"
    told = {"mean": [0.5], "deviation": [0.25]}
    found = module_source(name, array=path, normalisation=told).calibration[0]
    np.testing.assert_allclose(found.numpy(), (pixels / 255 - 0.5) / 0.25, rtol=1e-5, atol=1e-6)
    with pytest.raises(InputError, match="uint8: pixels, and nobody says"):
        module_source(name, array=path)
    np.save(path, pixels.astype(np.float32))
    assert (module_source(name, array=path).calibration[0].numpy() == pixels).all()
    with pytest.raises(InputError, match="--normalisation is not used"):
        module_source(name, array=path, normalisation=told)


def last_channels(path, *, beside: bool = False):
    """Write a file that takes (batch, height, width, channels), as TensorFlow's exporters do."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    weight = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype(np.float32)
    nodes = [
        helper.make_node("Transpose", ["img"], ["t"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["t", "w"], ["c"], auto_pad="SAME_UPPER", strides=[2, 2]),
        helper.make_node("GlobalAveragePool", ["c"], ["p"]),
        helper.make_node("Squeeze", ["p"], ["y"], axes=[2, 3]),
    ]
    graph = helper.make_graph(
        nodes, "g", [helper.make_tensor_value_info("img", kind, ["unk__0", 8, 8, 3])],
        [helper.make_tensor_value_info("y", kind, ["unk__0", 4])],
        [onnx.numpy_helper.from_array(weight, "w")],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)], ir_version=7)
    onnx.save(model, path, save_as_external_data=beside, size_threshold=0, location="w.bin")


@pytest.mark.parametrize("beside", [False, True])
def test_files_of_other_exporters_are_read(tmp_path, beside):
    onnxruntime = pytest.importorskip("onnxruntime")
    last_channels(tmp_path / "m.onnx", beside=beside)
    assert (tmp_path / "w.bin").exists() == beside
    x = np.random.default_rng(1).normal(size=(4, 8, 8, 3)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    source = module_source(str(tmp_path / "m.onnx"), array=tmp_path / "x.npy")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    (expected,) = session.run(None, {"img": x})
    np.testing.assert_allclose(source.module(torch.from_numpy(x)), expected, rtol=1e-4, atol=1e-5)
    np.save(tmp_path / "other.npy", x.transpose(0, 3, 1, 2))
    with pytest.raises(InputError, match=r"inputs of 3x8x8: it takes 8x8x3"):
        module_source(str(tmp_path / "m.onnx"), array=tmp_path / "other.npy")


def test_constants_beside_a_file_that_are_not_there_are_told(tmp_path):
    last_channels(tmp_path / "m.onnx", beside=True)
    (tmp_path / "w.bin").unlink()
    with pytest.raises(InputError, match="a file of its constants is missing"):
        module_source(str(tmp_path / "m.onnx"), array=tmp_path / "x.npy")
