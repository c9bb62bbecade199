"""Pre-processing inside the model: pixels, recordings or values in, and a class out.

What is embedded is what training did: bytes are scaled, mean and deviation are taken off, channels
are put in order, a recording becomes a log-mel spectrogram. Only operators are used that every
runtime which reads or converts ONNX files here has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.graph import inputs_of

if TYPE_CHECKING:
    import onnx

PIXELS, SOUND, VALUES, CLASS = "pixels", "sound", "values", "class"
"""Names of the inputs and of the added output."""

_PCM = 1 / 32768
"""A unit of 16-bit samples."""


def kind_of(preprocessing: Mapping[str, Any]) -> str:
    """Return what goes into a model with its pre-processing: pixels, sound or values.

    Args:
        preprocessing: of a card. Where a pixel is one unit, ``bytes`` says whether the data are
            pixels all the same; values, such as those of signals, are not cut to bytes.
    """
    if preprocessing.get("sound"):
        return SOUND
    as_they_are = preprocessing.get("pixel_scale") == 1 and not preprocessing.get("bytes")
    return VALUES if as_they_are else PIXELS


def input_text(preprocessing: Mapping[str, Any], *, floats: bool = False) -> str:
    """Return in words what goes into a model with its pre-processing, and what comes out.

    Args:
        preprocessing: see :func:`with_preprocessing`.
        floats: whole numbers go in as floats, and no class comes out.
    """
    inputs = {
        PIXELS: f"{'float32' if floats else 'uint8'} pixels",
        SOUND: f"{'float32 samples of 16 bits' if floats else 'int16 samples'} of a recording",
        VALUES: "float32 values as they are measured",
    }[kind_of(preprocessing)]
    one = preprocessing.get("one_class", True) and not floats
    return f"{inputs} in; the outputs{' and the class' if one else ''} out"


def with_preprocessing(
    model: onnx.ModelProto,
    preprocessing: Mapping[str, Any],
    *,
    floats: bool = False,
    with_class: bool = True,
) -> onnx.ModelProto:
    """Return ``model`` with its pre-processing before it and the class after it.

    The new input is ``pixels``, uint8 (batch, channels, height, width), ``sound``, int16 (batch,
    samples), or ``values``, float32 of the network's own shape; see :func:`kind_of`. Float32
    ``(x * pixel_scale - mean) / std`` goes into the network, as in training, of a recording x being
    its spectrogram. The outputs of the network stay. Where one class is right, an int64 output
    ``class`` (batch,), the largest one's number, is added.

    Args:
        model: with one input of rank 4.
        preprocessing: ``pixel_scale``, ``mean`` and ``std`` with an entry a channel, in units of
            scaled pixels, and perhaps ``one_class``, ``channel_order``, ``sound`` and ``bytes``.
        floats: pixels and samples go in as float32 numbers, for runtimes without others.
        with_class: add the class where one is right.

    Raises:
        InputError: the input is no image, or what is recorded does not fit it.
    """
    import onnx
    from onnx import TensorProto, helper

    inputs = inputs_of(model.graph)
    shape = inputs[0].type.tensor_type.shape.dim if len(inputs) == 1 else []
    mean, std = (np.array(preprocessing.get(key) or [], np.float32) for key in ("mean", "std"))
    scale = preprocessing.get("pixel_scale")
    if len(shape) != 4 or scale is None or not mean.size:
        raise InputError(
            "only the pre-processing of images, sounds and signals can be embedded, and the run "
            "must record it; this model's is not: export it without --embed-preprocessing"
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
    builder = _Nodes(graph)
    kind = kind_of(preprocessing)
    whole = {PIXELS: TensorProto.UINT8, SOUND: TensorProto.INT16}.get(kind)
    name = kind
    if whole is not None and not floats:
        name = builder.add("Cast", [name], to=TensorProto.FLOAT)
    if kind == SOUND:
        name, samples = _spectrogram(builder, name, preprocessing["sound"], dims[2:])
        dims = [dims[0], samples]
    elif preprocessing.get("channel_order", "rgb") != "rgb":
        # Products with 1 and 0 are exact, and every runtime has them.
        swap = np.eye(channels, dtype=np.float32)[::-1].reshape(channels, channels, 1, 1)
        name = builder.add(
            "Conv", [name, builder.constant(np.ascontiguousarray(swap))],
            kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4,
        )  # fmt: skip
    if scale != 1:
        name = builder.add("Mul", [name, builder.constant(np.float32(scale).reshape(1))])
    name = builder.add("Sub", [name, builder.constant(mean.reshape(1, -1, 1, 1))])
    builder.add("Div", [name, builder.constant(std.reshape(1, -1, 1, 1))], output=source.name)
    graph.input.remove(source)
    given = TensorProto.FLOAT if whole is None or floats else whole
    graph.input.append(helper.make_tensor_value_info(kind, given, dims))
    nodes = list(graph.node)
    del graph.node[:]
    graph.node.extend([*builder.nodes, *nodes])
    # Cards of earlier versions are all of classifications.
    if with_class and preprocessing.get("one_class", True):
        logits = graph.output[0].name
        graph.node.append(helper.make_node("ArgMax", [logits], [CLASS], axis=1, keepdims=0))
        graph.output.append(helper.make_tensor_value_info(CLASS, TensorProto.INT64, dims[:1]))
    onnx.checker.check_model(made)
    return made


class _Nodes:
    """Nodes in front of a graph, and their constants within it."""

    def __init__(self, graph: onnx.GraphProto) -> None:
        self.graph = graph
        self.nodes: list[onnx.NodeProto] = []

    def constant(self, value: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"preprocessing.c{len(self.graph.initializer)}"
        self.graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    def add(self, op: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        from onnx import helper

        output = output or f"preprocessing.{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, inputs, [output], **attributes))
        return output


def _spectrogram(
    nodes: _Nodes, name: str, sound: Mapping[str, Any], sides: list[Any]
) -> tuple[str, int]:
    """Add what makes log-mel spectrograms (batch, 1, frames, bins) of 16-bit samples.

    The Fourier transform is a convolution with the window times sines and cosines, the bands one
    of a single place: products that every runtime has, and more of them than a fast transform.

    Returns:
        name of the result, and how many samples go in.
    """
    from nas.data.audio import FLOOR, LogMel

    front = LogMel(**sound)
    if sides != [front.frames, front.bins]:
        raise InputError(
            f"the recorded sounds become {front.frames} x {front.bins} spectrograms, and the model "
            f"takes {sides[0]} x {sides[1]}; the results of the run were changed"
        )
    angles = np.outer(np.arange(front.fft // 2 + 1), np.arange(front.window)) * 2 * np.pi
    waves = np.concatenate([np.cos(angles / front.fft), np.sin(angles / front.fft)])
    waves = (waves * np.hanning(front.window)).astype(np.float32)
    bands = np.concatenate([front.filters, front.filters], axis=1).astype(np.float32)
    shape = nodes.constant(np.array([0, 1, 1, front.samples], np.int64))
    name = nodes.add("Reshape", [name, shape])
    name = nodes.add("Mul", [name, nodes.constant(np.float32(_PCM).reshape(1))])
    name = nodes.add(
        "Conv", [name, nodes.constant(waves[:, None, None])],
        kernel_shape=[1, front.window], strides=[1, front.hop], pads=[0] * 4,
    )  # fmt: skip
    name = nodes.add("Mul", [name, name])
    name = nodes.add(
        "Conv", [name, nodes.constant(bands[:, :, None, None])],
        kernel_shape=[1, 1], strides=[1, 1], pads=[0] * 4,
    )  # fmt: skip
    name = nodes.add("Add", [name, nodes.constant(np.float32(FLOOR).reshape(1))])
    name = nodes.add("Log", [name])
    return nodes.add("Transpose", [name], perm=[0, 2, 3, 1]), front.samples


def prepared(values: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Return float32 inputs (n, channels, height, width) as training has them.

    Args:
        values: pixels or values (n, channels, height, width), or int16 samples (n, samples).
        preprocessing: see :func:`with_preprocessing`; channels are in its order already.
    """
    mean, std = (
        np.array(preprocessing[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std")
    )
    if preprocessing.get("sound"):
        from nas.data.audio import LogMel

        front = LogMel(**preprocessing["sound"])
        values = np.stack([front(one.astype(np.float32) * np.float32(_PCM)) for one in values])
        values = values[:, None]
    scaled = values.astype(np.float32) * np.float32(preprocessing["pixel_scale"])
    return (scaled - mean) / std


def raw_inputs(
    shape: tuple[int, ...], preprocessing: Mapping[str, Any], seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return seeded inputs for a model with its pre-processing, and for the one without.

    Args:
        shape: of the inputs of the network, (n, channels, height, width).
        preprocessing: see :func:`with_preprocessing`.

    Returns:
        uint8 pixels, int16 samples or float32 values; float32 inputs of ``shape``.
    """
    rng = np.random.default_rng(seed)
    kind = kind_of(preprocessing)
    if kind == SOUND:
        from nas.data.audio import LogMel

        # Noise of every loudness, with a tone in it.
        count = LogMel(**preprocessing["sound"]).samples
        loud = 10.0 ** rng.uniform(1, 3.5, (shape[0], 1))
        tone = np.sin(np.arange(count) * rng.uniform(0.05, 1.5, (shape[0], 1)))
        raw = (loud * (rng.standard_normal((shape[0], count)) + 2 * tone)).clip(-32768, 32767)
        return raw.astype(np.int16), prepared(raw.astype(np.int16), preprocessing)
    if kind == VALUES:
        mean, std = (
            np.array(preprocessing[key], np.float32).reshape(1, -1, 1, 1) for key in ("mean", "std")
        )
        values = (mean + std * rng.standard_normal(shape)).astype(np.float32)
        return values, prepared(values, preprocessing)
    pixels = rng.integers(0, 256, shape).astype(np.uint8)
    turned = preprocessing.get("channel_order", "rgb") != "rgb"
    return pixels, prepared(pixels[:, ::-1] if turned else pixels, preprocessing)
