"""What the low-bit file leaves to floats, in NumPy: right on every machine, and slow.

A convolutional network of codes needs none of this. Attention and layers of 32-bit weights do,
until they have kernels; their names stand in
:attr:`devices.lowbit.network.LowBitNetwork.float_operations`. Norms, softmax, GELU and SiLU along
the last axis are the library's, see :mod:`devices.lowbit.float_ops`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial, reduce
from typing import Any

import numpy as np

from devices.lowbit import image_ops
from devices.lowbit.float_ops import native_operation, run_native
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel

REARRANGING = (
    "flatten", "reshape", "transpose", "resize", "pad", "slice", "depth_to_space",
    "space_to_depth", "shuffle",
)  # fmt: skip
"""Operations of a packed model that move values and change none."""

_F = np.float32
Attributes = dict[str, Any]
Operation = Callable[..., Any]


def _gelu(a: Attributes, x: np.ndarray) -> np.ndarray:
    if a.get("approximate", "none") == "tanh":
        inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
        return (0.5 * x * (1 + np.tanh(inner))).astype(_F)
    return (0.5 * x * (1 + _erf(x / math.sqrt(2)))).astype(_F)


def _erf(x: np.ndarray) -> np.ndarray:
    # Abramowitz and Stegun, 7.1.26: to 1.5e-7.
    t = 1 / (1 + 0.3275911 * np.abs(x))
    series = 1.061405429
    for c in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        series = series * t + c
    return np.sign(x) * (1 - series * t * np.exp(-np.square(x)))


def _sigmoid(x: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return _F(1) / (_F(1) + np.exp(-x))


def _elu(x: np.ndarray, alpha: float, width: float = 1.0) -> np.ndarray:
    return np.where(x < 0, _F(alpha) * np.expm1(np.minimum(x, 0) / _F(width)), x).astype(_F)


UNARY: dict[str, Operation] = {
    "Relu": lambda a, x: np.maximum(x, _F(0)),
    "HardSwish": lambda a, x: x * np.clip(x * _F(1 / 6) + _F(0.5), _F(0), _F(1)),
    "HardSigmoid": lambda a, x: np.clip(
        _F(a.get("alpha", 0.2)) * x + _F(a.get("beta", 0.5)), _F(0), _F(1)
    ),
    "Sigmoid": lambda a, x: _sigmoid(x),
    "Tanh": lambda a, x: np.tanh(x),
    "Gelu": _gelu,
    "Swish": lambda a, x: x * _sigmoid(_F(a.get("alpha", 1.0)) * x),
    "LeakyRelu": lambda a, x: np.where(x < 0, _F(a.get("alpha", 0.01)) * x, x),
    "Elu": lambda a, x: _elu(x, a.get("alpha", 1.0)),
    "Celu": lambda a, x: _elu(x, a.get("alpha", 1.0), a.get("alpha", 1.0)),
    "Selu": lambda a, x: (
        _F(a.get("gamma", 1.0507010221481323)) * _elu(x, a.get("alpha", 1.6732631921768188))
    ),
    "Softplus": lambda a, x: np.logaddexp(x, _F(0)),
    "Mish": lambda a, x: x * np.tanh(np.logaddexp(x, _F(0))),
    "Softsign": lambda a, x: x / (1 + np.abs(x)),
    "Abs": lambda a, x: np.abs(x),
    "Neg": lambda a, x: -x,
}
"""ONNX operators of one number; between codes and codes they are tables."""


def _layer_norm(
    a: Attributes, x: np.ndarray, scale: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    axes = tuple(range(a.get("axis", -1) % x.ndim, x.ndim))
    centred = x - x.mean(axes, keepdims=True)
    variance = np.square(centred).mean(axes, keepdims=True)
    y = centred / np.sqrt(variance + a.get("epsilon", 1e-5)) * scale
    return (y if bias is None else y + bias).astype(_F)


def _rms_norm(a: Attributes, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    axes = tuple(range(a.get("axis", -1) % x.ndim, x.ndim))
    squares = np.square(x).mean(axes, keepdims=True)
    return (x / np.sqrt(squares + a.get("epsilon", 1e-5)) * scale).astype(_F)


def _softmax(a: Attributes, x: np.ndarray) -> np.ndarray:
    axis = a.get("axis", -1)
    powers = np.exp(x - x.max(axis, keepdims=True))
    return powers / powers.sum(axis, keepdims=True)


def _resize(
    a: Attributes,
    x: np.ndarray,
    roi: np.ndarray | None = None,
    scales: np.ndarray | None = None,
    sizes: np.ndarray | None = None,
) -> np.ndarray:
    form = tuple(
        str(a.get(key, default))
        for key, default in (
            ("mode", "nearest"),
            ("coordinate_transformation_mode", "half_pixel"),
            ("nearest_mode", "round_prefer_floor"),
        )
    )
    if form != ("nearest", "asymmetric", "floor"):
        raise InputError(f"the low-bit runtime resizes by nearest neighbours, not {form}")
    if sizes is not None and np.size(sizes):
        ratios = np.asarray(sizes) / np.array(x.shape)
    else:
        ratios = np.asarray(scales)
    for axis, ratio in enumerate(ratios.tolist()):
        # Trainers and runtimes alike compute these places in float32.
        places = np.arange(int(x.shape[axis] * ratio + 1e-6), dtype=_F) / _F(ratio)
        x = x.take(np.minimum(places.astype(np.int64), x.shape[axis] - 1), axis)
    return x


_TYPES = {1: np.float32, 6: np.int32, 7: np.int64}
"""ONNX's numbers of types that a Cast may give."""

_OTHERS: dict[str, Operation] = {
    "Resize": _resize,
    "Add": lambda a, x, y: (x + y).astype(_F),
    "Sub": lambda a, x, y: (x - y).astype(_F),
    "Mul": lambda a, x, y: (x * y).astype(_F),
    "Div": lambda a, x, y: (x / y).astype(_F),
    "MatMul": lambda a, x, y: np.matmul(x, y),
    "Clip": lambda a, x, low=None, high=None: np.clip(x, low, high).astype(_F),
    "PRelu": lambda a, x, slope: np.where(x < 0, slope * x, x).astype(_F),
    "Pow": lambda a, x, y: np.power(x, y).astype(_F),
    "Max": lambda a, *x: reduce(np.maximum, x).astype(_F),
    "Min": lambda a, *x: reduce(np.minimum, x).astype(_F),
    "Sum": lambda a, *x: reduce(np.add, x).astype(_F),
    "Sqrt": lambda a, x: np.sqrt(x),
    "Exp": lambda a, x: np.exp(x),
    "Log": lambda a, x: np.log(x),
    "Erf": lambda a, x: _erf(x).astype(_F),
    "Reciprocal": lambda a, x: _F(1) / x,
    "GlobalAveragePool": lambda a, x: x.mean(tuple(range(2, x.ndim)), keepdims=True, dtype=_F),
    "GlobalMaxPool": lambda a, x: x.max(tuple(range(2, x.ndim)), keepdims=True),
    "MaxPool": image_ops.max_pool,
    "AveragePool": image_ops.average_pool,
    "ConvTranspose": image_ops.conv_transpose,
    "Pad": image_ops.padded,
    "Slice": image_ops.cut,
    "DepthToSpace": image_ops.depth_to_space,
    "SpaceToDepth": image_ops.space_to_depth,
    "InstanceNormalization": image_ops.instance_norm,
    "GroupNormalization": image_ops.group_norm,
    "BatchNormalization": image_ops.batch_norm,
    "Squeeze": image_ops.axes_dropped,
    "Unsqueeze": image_ops.axes_added,
    "ReduceMean": image_ops.reduction(partial(np.mean, dtype=_F)),
    "ReduceSum": image_ops.reduction(np.sum),
    "ReduceMax": image_ops.reduction(np.max),
    "ReduceMin": image_ops.reduction(np.min),
    "ReduceL2": image_ops.reduction(lambda x, **how: np.sqrt(np.sum(np.square(x), **how))),
    "Expand": lambda a, x, shape: x * np.ones(np.asarray(shape).tolist(), x.dtype),
    "LayerNormalization": _layer_norm,
    "RMSNormalization": _rms_norm,
    "SimplifiedLayerNormalization": _rms_norm,
    "Softmax": _softmax,
    "Split": image_ops.split,
    "Flatten": lambda a, x: x.reshape(math.prod(x.shape[: a.get("axis", 1)]), -1),
    "Reshape": lambda a, x, shape: x.reshape(_resolved(np.asarray(shape).tolist(), x.shape)),
    "Transpose": lambda a, x: x.transpose(a.get("perm")),
    "Concat": lambda a, *x: np.concatenate(x, a["axis"]),
    "Identity": lambda a, x: x,
    "Round": lambda a, x: np.rint(x),
    "Cast": lambda a, x: x.astype(_TYPES[a["to"]]),
    "Gather": lambda a, x, places: x.take(places.astype(np.int64), a.get("axis", 0)),
}

_POINTWISE = (
    "Add", "Sub", "Mul", "Div", "Clip", "PRelu", "Pow", "Max", "Min", "Sum", "Sqrt", "Exp", "Log",
    "Erf", "Reciprocal", "Identity", "Round",
)  # fmt: skip
"""Operators whose values follow from those of their inputs at the same place."""


def elementwise(op: str) -> Operation | None:
    """Return an ONNX operator that computes number by number; None of others."""
    return UNARY.get(op) or (_OTHERS[op] if op in _POINTWISE else None)


def operation(node: dict[str, Any], model: PackedModel) -> Operation:
    """Return the function of a node's inputs, float32 arrays in ONNX's order of axes.

    Raises:
        InputError: there is none.
    """
    op, attributes = node["op"], node.get("attributes", {})
    if op in ("conv", "linear"):
        return _layer(node, model)
    if op in REARRANGING:
        return lambda x: rearranged(node, x)
    if op == "concat":
        return lambda *x: np.concatenate(x, node["axis"])
    run = UNARY.get(op) or _OTHERS.get(op)
    if run is None:
        raise InputError(
            f"the low-bit runtime has no operation {op!r} ({node['output']}); use the runtime "
            "onnxruntime for this network"
        )

    def either(x: np.ndarray, *arguments: Any) -> Any:
        if native_operation(op, attributes, x.ndim) and x.size:
            return run_native(op, attributes, x, *arguments)
        return run(attributes, x, *arguments)

    return either


def view_shape(node: dict[str, Any], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return the shape after an operation of ``REARRANGING``."""
    if node["op"] in _MOVES:
        return rearranged(node, np.broadcast_to(np.uint8(0), shape)).shape
    if node["op"] == "resize":
        rows, columns = node["factors"]
        return shape[0], shape[1], shape[2] * rows, shape[3] * columns
    if node["op"] == "flatten":
        return math.prod(shape[: node["axis"]]), math.prod(shape[node["axis"] :])
    if node["op"] == "transpose":
        return tuple(shape[i] for i in node["order"])
    return _resolved(node["shape"], shape)


_MOVES: dict[str, Callable[[dict[str, Any], np.ndarray, float], np.ndarray]] = {
    "pad": lambda node, x, zero: image_ops.padded(
        node, x, node["pads"], np.array(zero), node["axes"]
    ),
    "slice": lambda node, x, zero: image_ops.cut(
        {}, x, *(np.array(node[key]) for key in ("starts", "ends", "axes", "steps"))
    ),
    "depth_to_space": lambda node, x, zero: image_ops.depth_to_space(
        {**node, "blocksize": node["size"]}, x
    ),
    "shuffle": lambda node, x, zero: (
        x.reshape(len(x), node["groups"], -1, *x.shape[2:]).swapaxes(1, 2).reshape(x.shape)
    ),
    "space_to_depth": lambda node, x, zero: image_ops.space_to_depth(
        {"blocksize": node["size"]}, x
    ),
}


def rearranged(node: dict[str, Any], x: np.ndarray, zero: float = 0) -> np.ndarray:
    """Return an array (batch, channels, ...) after an operation of ``REARRANGING``.

    Args:
        node: of a packed model.
        x: floats or codes.
        zero: what stands for nothing among ``x``.
    """
    if node["op"] in _MOVES:
        return _MOVES[node["op"]](node, x, zero)
    if node["op"] == "resize":
        rows, columns = node["factors"]
        return x.repeat(rows, 2).repeat(columns, 3)
    if node["op"] == "transpose":
        return x.transpose(node["order"])
    return x.reshape(view_shape(node, x.shape))


def _resolved(wanted: list[int], shape: tuple[int, ...]) -> tuple[int, ...]:
    """Return ONNX's target of a reshape with its zeros (keep) and -1 (the rest) filled in."""
    sizes = [shape[i] if size == 0 else size for i, size in enumerate(wanted)]
    if -1 in sizes:
        known = math.prod(size for size in sizes if size != -1)
        sizes[sizes.index(-1)] = math.prod(shape) // max(1, known)
    return tuple(sizes)


def _layer(node: dict[str, Any], model: PackedModel) -> Operation:
    """A layer of floats: its weights are dequantised once."""
    weights, tensors = node["weights"], model.tensors
    if "weight" in weights:
        w = tensors[weights["weight"]].astype(_F)
    else:
        codes = model.codes(weights).astype(_F)
        w = codes * tensors[weights["scale"]].reshape(-1, *[1] * (codes.ndim - 1))
    bias = tensors[weights["bias"]].astype(_F)
    if weights["fill"] is not None:
        raise InputError(f"{node['output']}: an integer layer has no float input")
    if node["op"] == "linear":
        return lambda x: x @ w.T + bias
    groups = node["groups"]
    if len(node["kernel"]) != 2:
        raise InputError(
            f"{node['output']}: a convolution over {len(node['kernel'])} axes; the low-bit runtime "
            "has those of images, so export signals as images one pixel high"
        )

    def conv(x: np.ndarray) -> np.ndarray:
        view = image_ops.windows(
            x, node["kernel"], node["strides"], node["pads"], node["dilations"], 0
        )
        b, c, h, v = view.shape[:4]
        view = view.reshape(b, groups, c // groups, h, v, *view.shape[4:])
        split = w.reshape(groups, -1, *w.shape[1:])
        y = np.einsum("bgchvij,gocij->bgohv", view, split, optimize=True)
        return (y.reshape(b, -1, h, v) + bias.reshape(-1, 1, 1)).astype(_F)

    return conv
