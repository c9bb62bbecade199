"""Pre-processing inside the model: uint8 pixels in, and where one is right a class out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.graph import inputs_of

if TYPE_CHECKING:
    import onnx

PIXELS, CLASS = "pixels", "class"
"""Names of the input and of the added output."""


def with_preprocessing(model: onnx.ModelProto, preprocessing: Mapping[str, Any]) -> onnx.ModelProto:
    """Return ``model`` with its scaling before it and the class after it.

    The new input holds uint8 pixels (batch, channels, height, width); float32
    ``(pixels * pixel_scale - mean) / std`` goes into the network, as in training. The outputs of
    the network stay. Where one class is right, an int64 output ``class`` (batch,), the largest
    one's number, is added.

    Args:
        model: with one input of rank 4.
        preprocessing: ``pixel_scale``, ``mean`` and ``std`` with an entry a channel, in units of
            scaled pixels, and perhaps ``one_class``.

    Raises:
        InputError: the input is no image, or what is recorded does not fit it.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    if preprocessing.get("channel_order", "rgb") != "rgb":
        raise InputError(
            "pre-processing of channels in the order blue, green, red cannot be embedded; export "
            "it without --embed-preprocessing, and reverse the channels before the network"
        )
    inputs = inputs_of(model.graph)
    shape = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else []
    mean, std = (np.array(preprocessing.get(key) or [], np.float32) for key in ("mean", "std"))
    scale = preprocessing.get("pixel_scale")
    if len(shape) != 4 or scale is None or not mean.size:
        raise InputError(
            "only the pre-processing of images can be embedded, and the run must record it; this "
            "model's is not: export it without --embed-preprocessing"
        )
    if scale == 1:
        raise InputError(
            "the inputs of this model are values as they are, such as of signals, and embedded "
            "pre-processing takes bytes, which would cut them off: export it without "
            "--embed-preprocessing"
        )
    channels = shape[1].dim_value
    if mean.size not in (1, channels) or std.size != mean.size or (std == 0).any():
        raise InputError(
            f"the recorded mean and std have {mean.size} and {std.size} entries for "
            f"{channels} channels; the results of the run were changed"
        )
    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    source = next(item for item in graph.input if item.name == inputs[0].name)
    dims = [dim.dim_param or dim.dim_value for dim in shape]
    name = source.name
    graph.input.remove(source)
    graph.input.append(helper.make_tensor_value_info(PIXELS, TensorProto.UINT8, dims))
    values = {
        "preprocessing.scale": np.float32(scale).reshape(1),
        "preprocessing.mean": mean.reshape(1, -1, 1, 1),
        "preprocessing.std": std.reshape(1, -1, 1, 1),
    }
    graph.initializer.extend(numpy_helper.from_array(v, k) for k, v in values.items())
    before = [
        helper.make_node("Cast", [PIXELS], ["pixels.float"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["pixels.float", "preprocessing.scale"], ["pixels.scaled"]),
        helper.make_node("Sub", ["pixels.scaled", "preprocessing.mean"], ["pixels.centred"]),
        helper.make_node("Div", ["pixels.centred", "preprocessing.std"], [name]),
    ]
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*before, *nodes])
    # Cards of earlier versions are all of classifications.
    if preprocessing.get("one_class", True):
        logits = graph.output[0].name
        graph.node.append(helper.make_node("ArgMax", [logits], [CLASS], axis=1, keepdims=0))
        graph.output.append(helper.make_tensor_value_info(CLASS, TensorProto.INT64, dims[:1]))
    onnx.checker.check_model(made)
    return made


def prepared(pixels: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Return float32 inputs (n, channels, height, width) of uint8 pixels, as training has them."""
    mean, std = (
        np.array(preprocessing[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std")
    )
    scaled = pixels.astype(np.float32) * np.float32(preprocessing["pixel_scale"])
    return (scaled - mean) / std
