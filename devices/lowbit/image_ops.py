"""Operators of images on NumPy arrays: pools, padding, cutting, transposed convolution, norms.

Each is the ONNX operator of its name on float32 (batch, channels, ...); those that only move values
take codes too. They are what networks of users have beside layers, and none of them is fast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from search_spaces.errors import InputError

_F = np.float32
Attributes = dict[str, Any]


def windows(
    x: np.ndarray, kernel: Any, strides: Any, pads: Any, dilations: Any, fill: float
) -> np.ndarray:
    """Return (batch, channels, out height, out width, kernel height, kernel width)."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = sliding_window_view(x, spans, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def max_pool(a: Attributes, x: np.ndarray) -> np.ndarray:
    """ONNX MaxPool over one or two axes."""
    found = _pooled(a, x, -np.inf).max((-2, -1))
    return found[:, :, 0] if x.ndim == 3 else found


def average_pool(a: Attributes, x: np.ndarray) -> np.ndarray:
    """ONNX AveragePool over one or two axes."""
    found = _pooled(a, x, 0)
    if a.get("count_include_pad") and not a.get("ceil_mode"):
        mean = found.mean((-2, -1), dtype=_F)
    else:
        mean = (found.sum((-2, -1), dtype=_F) / counted(a, x.shape[2:])).astype(_F)
    return mean[:, :, 0] if x.ndim == 3 else mean


def counted(a: Attributes, shape: Sequence[int]) -> np.ndarray:
    """Return how many values each window of an average pool counts, float32 (out height, width).

    These are the image's, and those of its padding if told; never those that rounding up adds.

    Args:
        a: attributes of ONNX's AveragePool.
        shape: (height, width) of its input, or (length,).
    """
    ones = np.ones((1, 1, *shape), _F)
    inside = _pooled(a, ones, 0, padding=1.0 if a.get("count_include_pad") else 0.0)
    return np.asarray(inside.sum((-2, -1))[0, 0])


def _pooled(a: Attributes, x: np.ndarray, fill: float, padding: float | None = None) -> np.ndarray:
    """Return the windows of a pool; ``padding`` fills what the pool pads, ``fill`` the rest."""
    kernel = list(a["kernel_shape"])
    rank = len(kernel)
    if str(a.get("auto_pad", "NOTSET")) != "NOTSET" or rank > 2:
        raise InputError("the low-bit runtime pools over one or two axes with pads as numbers")
    strides = list(a.get("strides", [1] * rank))
    dilations = list(a.get("dilations", [1] * rank))
    pads = list(a.get("pads", [0] * 2 * rank))
    if rank == 1:  # A signal is an image one pixel high.
        x, kernel, strides, dilations = x[:, :, None], [1, *kernel], [1, *strides], [1, *dilations]
        pads = [0, pads[0], 0, pads[1]]
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    further = rounding_up(x.shape[2:], spans, strides, pads) if a.get("ceil_mode") else (0, 0)
    if padding is not None:
        sides = ((pads[0], pads[2]), (pads[1], pads[3]))
        x = np.pad(x, ((0, 0), (0, 0), *sides), constant_values=padding)
        pads = [0, 0, 0, 0]
    pads = [*pads[:2], pads[2] + further[0], pads[3] + further[1]]
    return windows(x, kernel, strides, pads, dilations, fill)


def rounding_up(
    shape: Sequence[int], spans: Sequence[int], strides: Sequence[int], pads: Sequence[int]
) -> tuple[int, int]:
    """Return the rows and columns that the last windows of a pool that rounds up lie outside.

    Args:
        shape: (height, width) of the image.
        spans: (height, width) of a window.
        strides: of the windows.
        pads: top, left, bottom, right.
    """
    found = []
    for i, size in enumerate(shape):
        span = size + pads[i] + pads[i + 2] - spans[i]
        count = -(-span // strides[i])
        # No window begins in what lies behind the image.
        count -= count * strides[i] >= size + pads[i]
        found.append(max(0, count * strides[i] - span))
    return found[0], found[1]


def pool_pads(node: Attributes, shape: Sequence[int]) -> list[int]:
    """Return top, left, bottom and right of a packed pool, with what rounding up adds.

    Args:
        node: ``max_pool`` or ``average_pool`` of two axes, of
            :mod:`devices.lowbit.integers.rewriting`.
        shape: (height, width) of its input.
    """
    pads = list(node["pads"])
    if node.get("counting", {}).get("ceil_mode"):
        bottom, right = rounding_up(shape, node["kernel"], node["strides"], pads)
        pads = [*pads[:2], pads[2] + bottom, pads[3] + right]
    return pads


def pool_shares(node: Attributes, shape: Sequence[int]) -> np.ndarray | None:
    """Return what the means over all of each window are multiplied by, float32 (out height, width).

    Args:
        node: ``average_pool`` of two axes, of :mod:`devices.lowbit.integers.rewriting`.
        shape: (height, width) of its input.

    Returns:
        None where that is 1 everywhere.
    """
    if "counting" not in node:
        return None
    shares = _F(np.prod(node["kernel"])) / counted(node["counting"], shape)
    if node["shares"] is not None:
        shares = (shares * node["shares"]).astype(_F)
    return None if (shares == 1).all() else shares


def conv_transpose(
    a: Attributes, x: np.ndarray, w: np.ndarray, bias: np.ndarray | None = None
) -> np.ndarray:
    """ONNX ConvTranspose of images: a convolution of the image with zeros between its pixels."""
    if x.ndim != 4 or str(a.get("auto_pad", "NOTSET")) != "NOTSET" or a.get("output_shape"):
        raise InputError("the low-bit runtime has ConvTranspose of images with pads as numbers")
    strides, dilations = a.get("strides", [1, 1]), a.get("dilations", [1, 1])
    pads, more, groups = a.get("pads", [0] * 4), a.get("output_padding", [0, 0]), a.get("group", 1)
    batch, channels, height, width = x.shape
    sizes = [(n - 1) * s + 1 for n, s in zip((height, width), strides, strict=True)]
    wide = np.zeros((batch, channels, *sizes), _F)
    wide[:, :, :: strides[0], :: strides[1]] = x
    kernel = w.shape[2:]
    reach = [(k - 1) * d for k, d in zip(kernel, dilations, strict=True)]
    around = [reach[0] - pads[0], reach[1] - pads[1],
              reach[0] - pads[2] + more[0], reach[1] - pads[3] + more[1]]  # fmt: skip
    cut = [max(0, -p) for p in around]
    wide = wide[:, :, cut[0] : sizes[0] - cut[2], cut[1] : sizes[1] - cut[3]]
    found = windows(wide, kernel, [1, 1], [max(0, p) for p in around], dilations, 0)
    found = found.reshape(batch, groups, channels // groups, *found.shape[2:])
    turned = w[:, :, ::-1, ::-1].reshape(groups, channels // groups, *w.shape[1:])
    y = np.einsum("bgchvij,gcoij->bgohv", found, turned, optimize=True)
    y = y.reshape(batch, -1, *y.shape[3:])
    return (y if bias is None else y + bias.reshape(-1, 1, 1)).astype(_F)


def padded(
    a: Attributes,
    x: np.ndarray,
    pads: np.ndarray | None = None,
    value: np.ndarray | None = None,
    axes: np.ndarray | None = None,
) -> np.ndarray:
    """ONNX Pad; negative numbers cut."""
    chosen = range(x.ndim) if axes is None else [int(i) % x.ndim for i in np.ravel(axes)]
    given = np.ravel(np.asarray(a["pads"] if pads is None else pads)).astype(int).tolist()
    sides = [(0, 0)] * x.ndim
    for i, axis in enumerate(chosen):
        sides[axis] = given[i], given[i + len(given) // 2]
    cut = tuple(slice(max(0, -b), n - max(0, -e)) for (b, e), n in zip(sides, x.shape, strict=True))
    wider = [(max(0, b), max(0, e)) for b, e in sides]
    mode = str(a.get("mode", "constant"))
    if mode == "constant":
        fill = a.get("value", 0) if value is None or np.size(value) == 0 else np.ravel(value)[0]
        return np.pad(x[cut], wider, constant_values=fill)
    if mode == "edge":
        return np.pad(x[cut], wider, mode="edge")
    return np.pad(x[cut], wider, mode="reflect" if mode == "reflect" else "wrap")


def cut(
    a: Attributes,
    x: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    axes: np.ndarray | None = None,
    steps: np.ndarray | None = None,
) -> np.ndarray:
    """ONNX Slice."""
    begin, end = np.ravel(starts).astype(np.int64), np.ravel(ends).astype(np.int64)
    along = range(len(begin)) if axes is None else np.ravel(axes).astype(int)
    by = np.ones(len(begin), int) if steps is None else np.ravel(steps).astype(int)
    index = [slice(None)] * x.ndim
    for first, last, axis, step in zip(
        begin.tolist(), end.tolist(), along, by.tolist(), strict=True
    ):
        size = x.shape[axis]
        # Going back, an end before the first element is none.
        stop = None if step < 0 and last < -size else last
        index[axis] = slice(first, stop, step)
    return x[tuple(index)]


def split(a: Attributes, x: np.ndarray, sizes: np.ndarray | None = None) -> list[np.ndarray]:
    """ONNX Split into parts of these sizes, or into equal ones."""
    axis = a.get("axis", 0)
    given = a.get("split") if sizes is None else np.ravel(sizes).astype(int).tolist()
    if given is None:
        each = -(-x.shape[axis] // a["num_outputs"])
        return np.split(x, range(each, x.shape[axis], each), axis)
    return np.split(x, np.cumsum(given)[:-1], axis)


def depth_to_space(a: Attributes, x: np.ndarray) -> np.ndarray:
    """ONNX DepthToSpace, either mode."""
    size, (batch, channels, height, width) = a["blocksize"], x.shape
    inner = channels // size**2
    if str(a.get("mode", "DCR")) == "CRD":
        parts = x.reshape(batch, inner, size, size, height, width).transpose(0, 1, 4, 2, 5, 3)
    else:
        parts = x.reshape(batch, size, size, inner, height, width).transpose(0, 3, 4, 1, 5, 2)
    return parts.reshape(batch, inner, height * size, width * size)


def space_to_depth(a: Attributes, x: np.ndarray) -> np.ndarray:
    """ONNX SpaceToDepth."""
    size, (batch, channels, height, width) = a["blocksize"], x.shape
    parts = x.reshape(batch, channels, height // size, size, width // size, size)
    return parts.transpose(0, 3, 5, 1, 2, 4).reshape(
        batch, channels * size**2, height // size, width // size
    )


def instance_norm(a: Attributes, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """ONNX InstanceNormalization: each channel of each image has mean 0 and deviation 1."""
    axes = tuple(range(2, x.ndim))
    column = (-1, *[1] * (x.ndim - 2))
    return (_standard(x, axes, a) * scale.reshape(column) + bias.reshape(column)).astype(_F)


def group_norm(a: Attributes, x: np.ndarray, scale: np.ndarray, bias: np.ndarray) -> np.ndarray:
    """ONNX GroupNormalization; scale and bias of each channel, or of each group (opset 18)."""
    groups = a["num_groups"]
    y = _standard(x.reshape(x.shape[0], groups, -1), (2,), a).reshape(x.shape)
    column = (-1, *[1] * (x.ndim - 2))
    scale, bias = (np.repeat(v, x.shape[1] // len(v)).reshape(column) for v in (scale, bias))
    return (y * scale + bias).astype(_F)


def batch_norm(a: Attributes, x: np.ndarray, *numbers: np.ndarray) -> np.ndarray:
    """ONNX BatchNormalization with its stored statistics."""
    column = (-1, *[1] * (x.ndim - 2))
    scale, bias, mean, variance = (np.asarray(v, _F).reshape(column) for v in numbers)
    return ((x - mean) / np.sqrt(variance + _F(a.get("epsilon", 1e-5))) * scale + bias).astype(_F)


def _standard(x: np.ndarray, axes: tuple[int, ...], a: Attributes) -> np.ndarray:
    centred = x - x.mean(axes, keepdims=True, dtype=np.float64)
    variance = np.square(centred).mean(axes, keepdims=True)
    return np.asarray(centred / np.sqrt(variance + a.get("epsilon", 1e-5)))


def reduction(function: Callable[..., Any]) -> Callable[..., np.ndarray]:
    """Return an ONNX reduction over the axes that an attribute or an input names."""

    def reduce(a: Attributes, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
        named = a.get("axes") if axes is None else np.asarray(axes).reshape(-1).tolist()
        if not named and a.get("noop_with_empty_axes"):
            return x
        chosen = tuple(int(i) for i in named) if named else None
        return np.asarray(function(x, axis=chosen, keepdims=bool(a.get("keepdims", 1))), _F)

    return reduce


def axes_added(a: Attributes, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    """ONNX Unsqueeze."""
    return np.expand_dims(x, tuple(_axes(a, axes)))


def axes_dropped(a: Attributes, x: np.ndarray, axes: np.ndarray | None = None) -> np.ndarray:
    """ONNX Squeeze."""
    chosen = _axes(a, axes)
    return x.squeeze(tuple(chosen) if chosen else None)


def _axes(a: Attributes, axes: np.ndarray | None) -> Sequence[int]:
    named = a.get("axes", []) if axes is None else np.asarray(axes).reshape(-1).tolist()
    return [int(i) for i in named]
