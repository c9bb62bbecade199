"""Pre-processing inside the model gives what pre-processing outside it gives."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from nas.models.formats.preprocessing import prepared, with_preprocessing
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


def test_only_images_have_pixels():
    with pytest.raises(InputError, match="only the pre-processing of images"):
        with_preprocessing(network(3), RECORDED)
    # Values of signals are no bytes: below 0 and above 255 they would be cut off.
    with pytest.raises(InputError, match="values as they are, such as of signals"):
        with_preprocessing(network(), {**RECORDED, "pixel_scale": 1.0})


def test_a_class_comes_out_only_where_one_is_right():
    made = with_preprocessing(network(), {**RECORDED, "one_class": False})
    assert [output.name for output in made.graph.output] == [network().graph.output[0].name]
