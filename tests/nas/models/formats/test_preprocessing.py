"""Pre-processing inside the model gives what pre-processing outside it gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.data.audio import LogMel
from nas.models.formats.preprocessing import prepared, raw_inputs, with_preprocessing
from search_spaces.errors import InputError

RECORDED = {"pixel_scale": 1 / 255, "mean": [0.4, 0.5, 0.3], "std": [0.2, 0.3, 0.25]}


def network(rank: int = 4) -> onnx.ModelProto:
    weights = np.random.default_rng(0).standard_normal((5, 3, 1, 1)).astype(np.float32)
    shape = ["batch", 3, 4, 6][:rank]
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["image", "w"], ["features"]),
            helper.make_node("GlobalAveragePool", ["features"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "network",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", 5])],
        [numpy_helper.from_array(weights, "w")],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


def test_pixels_go_in_and_the_class_comes_out():
    pixels = np.random.default_rng(1).integers(0, 256, (7, 3, 4, 6)).astype(np.uint8)
    session = onnxruntime.InferenceSession(network().SerializeToString())
    expected = session.run(None, {"image": prepared(pixels, RECORDED)})[0]
    made = with_preprocessing(network(), RECORDED).SerializeToString()
    logits, classes = onnxruntime.InferenceSession(made).run(None, {"pixels": pixels})
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(classes, expected.argmax(1))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"mean": []}, "only the pre-processing of images"),
        ({"pixel_scale": None}, "only the pre-processing of images"),
        ({"mean": [0.1, 0.2], "std": [1.0, 1.0]}, "2 and 2 entries for 3 channels"),
        ({"std": [0.2, 0.0, 0.1]}, "3 and 3 entries for 3 channels"),
    ],
)
def test_what_does_not_fit_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        with_preprocessing(network(), {**RECORDED, **changes})


def test_what_has_no_places_is_refused():
    with pytest.raises(InputError, match="only the pre-processing of images"):
        with_preprocessing(network(3), RECORDED)


def run(model: onnx.ModelProto, raw: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString())
    return session.run(None, {session.get_inputs()[0].name: raw})


def test_values_go_in_as_they_are_measured():
    # Of signals: below 0 and above 255 bytes would cut them off.
    as_they_are = {**RECORDED, "pixel_scale": 1.0}
    raw, inputs = raw_inputs((3, 3, 4, 6), as_they_are, 0)
    assert raw.dtype == np.float32 and raw.min() < 0
    logits, classes = run(with_preprocessing(network(), as_they_are), raw)
    expected = run(network(), inputs)[0]
    np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-6)
    assert np.array_equal(classes, expected.argmax(1))


def test_pixels_of_one_unit_are_pixels_where_the_data_are():
    rule = {**RECORDED, "pixel_scale": 1.0, "bytes": True, "channel_order": "bgr"}
    raw, inputs = raw_inputs((3, 3, 4, 6), rule, 0)
    assert raw.dtype == np.uint8
    # The network takes blue, green, red; pixels are red, green, blue.
    expected = (raw[:, ::-1].astype(np.float32) - np.reshape(RECORDED["mean"], (1, 3, 1, 1))) / (
        np.reshape(RECORDED["std"], (1, 3, 1, 1))
    )
    np.testing.assert_allclose(inputs, expected, rtol=1e-5)
    logits, _ = run(with_preprocessing(network(), rule), raw)
    np.testing.assert_allclose(logits, run(network(), inputs)[0], rtol=1e-5, atol=1e-5)


def spectrograms(front: LogMel) -> onnx.ModelProto:
    """A network that gives its input back, of spectrograms."""
    sides = [front.frames, front.bins]
    graph = helper.make_graph(
        [helper.make_node("Identity", ["x"], ["y"])],
        "network",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["batch", 1, *sides])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 1, *sides])],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)


@pytest.mark.parametrize("front", [LogMel(), LogMel(8000, 0.4, 16, 25.0, 12.5)])
def test_recordings_go_in_and_become_the_spectrograms_of_training(front):
    rule = {
        "pixel_scale": 1.0, "mean": [-6.0], "std": [3.0], "one_class": False,
        "sound": front.to_json(),
    }  # fmt: skip
    raw, inputs = raw_inputs((3, 1, front.frames, front.bins), rule, 0)
    assert raw.dtype == np.int16 and raw.shape == (3, front.samples)
    sound = raw[0].astype(np.float32) / 32768
    np.testing.assert_allclose(inputs[0, 0], (front(sound) + 6) / 3, rtol=1e-5, atol=1e-5)
    (found,) = run(with_preprocessing(spectrograms(front), rule), raw)
    np.testing.assert_allclose(found, inputs, atol=2e-3)
    # Floats, for runtimes that have no other numbers.
    made = with_preprocessing(spectrograms(front), rule, floats=True)
    np.testing.assert_allclose(run(made, raw.astype(np.float32))[0], inputs, atol=2e-3)


def test_spectrograms_of_another_size_are_refused():
    rule = {"pixel_scale": 1.0, "mean": [0.0], "std": [1.0], "sound": LogMel(bins=20).to_json()}
    with pytest.raises(
        InputError, match="become 49 x 20 spectrograms, and the model takes 49 x 40"
    ):
        with_preprocessing(spectrograms(LogMel()), rule)


def test_a_class_comes_out_only_where_one_is_right():
    made = with_preprocessing(network(), {**RECORDED, "one_class": False})
    assert [output.name for output in made.graph.output] == [network().graph.output[0].name]
