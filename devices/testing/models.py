"""Small ONNX files to load, run and convert."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def conv_model(path: Path, *, channels: int = 4, batch: int | str = "n", seed: int = 0) -> Path:
    """Write a two-layer convolutional network with input ``x: (batch, 3, 8, 8)``."""
    import onnx

    helper, tensor = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(seed)
    first = rng.standard_normal((channels, 3, 3, 3)).astype(np.float32)
    second = rng.standard_normal((channels, channels, 1, 1)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node("Conv", ["x", "first"], ["a"], pads=[1, 1, 1, 1]),
            helper.make_node("Relu", ["a"], ["b"]),
            helper.make_node("Conv", ["b", "second"], ["y"]),
        ],
        "net",
        [helper.make_tensor_value_info("x", tensor.FLOAT, [batch, 3, 8, 8])],
        [helper.make_tensor_value_info("y", tensor.FLOAT, None)],
        [onnx.numpy_helper.from_array(w, n) for n, w in (("first", first), ("second", second))],
    )
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), path)
    return path


def quantised_model(path: Path, *, clip: bool = True, seed: int = 0) -> Path:
    """Write an int8 convolution in QDQ form: unsigned activations, weights by channel.

    With ``clip``, its codes are limited to 4 bits, as activations of fewer than 8 bits are.
    """
    import onnx

    helper, tensor = onnx.helper, onnx.TensorProto
    rng = np.random.default_rng(seed)
    values: dict[str, Any] = {
        "codes": rng.integers(-100, 100, (8, 3, 3, 3)).astype(np.int8),
        "scales": rng.uniform(0.002, 0.004, 8).astype(np.float32),
        "zeros": np.zeros(8, np.int8),
        "bias_codes": rng.integers(-500, 500, 8).astype(np.int32),
        "in_scale": np.float32(0.03),
        "in_zero": np.uint8(128),
        "out_scale": np.float32(0.2 if clip else 0.02),
        "out_zero": np.uint8(0),
        "most": np.uint8(15),
    }
    values["bias_scales"] = values["scales"] * values["in_scale"]
    nodes: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("QuantizeLinear", ["x", "in_scale", "in_zero"], "q", {}),
        ("DequantizeLinear", ["q", "in_scale", "in_zero"], "d", {}),
        ("DequantizeLinear", ["codes", "scales", "zeros"], "w", {"axis": 0}),
        ("DequantizeLinear", ["bias_codes", "bias_scales"], "b", {"axis": 0}),
        ("Conv", ["d", "w", "b"], "c", {"pads": [1, 1, 1, 1]}),
        ("QuantizeLinear", ["c", "out_scale", "out_zero"], "r", {}),
        ("Clip", ["r", "", "most"], "l", {}),
        ("DequantizeLinear", ["l" if clip else "r", "out_scale", "out_zero"], "y", {}),
    ]
    graph = helper.make_graph(
        [helper.make_node(op, i, [o], **a) for op, i, o, a in nodes if clip or op != "Clip"],
        "net",
        [helper.make_tensor_value_info("x", tensor.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", tensor.FLOAT, None)],
        [onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in values.items()],
    )
    opset = [helper.make_opsetid("", 19)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), path)
    return path
