"""Pools and resizings in ONNX, exactly as torch computes them at the traced size.

Where ONNX has no operator of the same meaning, or runtimes disagree about it (rounding up, what
padding counts), the operation is written with one that has a single meaning: a pool with explicit
padding, a correction by a constant map, or products with constant matrices, since averaging and
resizing are linear along each axis.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.onnx.graph import Value
from supernet.onnx.operators import OPERATIONS, Context, gathered, pair, plain, transposed
from supernet.onnx.tracing import reshaped


@OPERATIONS.register("max_pool2d")
def _max_pool(
    context: Context,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    return_indices: bool = False,
) -> Value:
    plain("max_pool2d", {"return_indices": True} if return_indices else {})
    kernel, dilations = pair(kernel_size), pair(dilation)
    strides, pads = _strides(kernel, stride), pair(padding)
    ends = _ends(context, x, kernel, strides, pads, dilations)
    return context.apply(
        "MaxPool", x, kernel_shape=kernel, strides=strides, pads=[*pads, *ends],
        dilations=dilations if dilations != [1, 1] else None,
    )  # fmt: skip


@OPERATIONS.register("avg_pool2d")
def _avg_pool(
    context: Context,
    x: Value,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    ceil_mode: bool = False,
    count_include_pad: bool = True,
    divisor_override: int | None = None,
) -> Value:
    kernel = pair(kernel_size)
    strides, pads = _strides(kernel, stride), pair(padding)
    ends = _ends(context, x, kernel, strides, pads, [1, 1])
    pooled = context.apply(
        "AveragePool", x, kernel_shape=kernel, strides=strides, pads=[*pads, *ends],
        count_include_pad=1,
    )  # fmt: skip
    # What torch divides by at each place, over the size of the window that ONNX divides by.
    ones = torch.ones(1, 1, *context.shape(x)[-2:])
    wanted = F.avg_pool2d(
        ones, kernel, strides, pads, ceil_mode, count_include_pad, divisor_override
    )
    padded = F.pad(ones, (pads[1], ends[1], pads[0], ends[0]))
    ratio = wanted / F.avg_pool2d(padded, kernel, strides)
    if torch.allclose(ratio, torch.ones(())):
        return pooled
    return context.apply("Mul", pooled, Value(context.graph.constant(ratio.numpy())))


@OPERATIONS.register("adaptive_avg_pool2d")
def _adaptive_avg_pool(context: Context, x: Value, output_size: Any) -> Value:
    sizes, target = context.shape(x)[-2:], context.output_shape()[-2:]
    if tuple(target) == (1, 1):
        return context.apply("GlobalAveragePool", x)
    if all(size % wanted == 0 for size, wanted in zip(sizes, target, strict=True)):
        kernel = [size // wanted for size, wanted in zip(sizes, target, strict=True)]
        return context.apply("AveragePool", x, kernel_shape=kernel, strides=kernel)
    return _along_axes(
        context, x, lambda rows, axis: F.adaptive_avg_pool1d(rows, target[axis])
    )  # fmt: skip


@OPERATIONS.register("adaptive_max_pool2d")
def _adaptive_max_pool(
    context: Context, x: Value, output_size: Any, return_indices: bool = False
) -> Value:
    plain("adaptive_max_pool2d", {"return_indices": True} if return_indices else {})
    sizes, target = context.shape(x)[-2:], context.output_shape()[-2:]
    if tuple(target) == (1, 1):
        return context.apply("GlobalMaxPool", x)
    if any(size % wanted for size, wanted in zip(sizes, target, strict=True)):
        # Windows of two sizes: the shorter repeat their last pixel, which changes no maximum.
        name = context.name(x)
        for axis, size, wanted in zip((2, 3), sizes, target, strict=True):
            starts = np.arange(wanted) * size // wanted
            ends = -(-(np.arange(wanted) + 1) * size // wanted)
            index = starts[:, None] + np.arange((ends - starts).max())
            pixels = context.graph.constant(np.minimum(index, ends[:, None] - 1))
            windows = context.graph.node("Gather", [name, pixels], axis=axis)
            last = context.graph.constant(np.array([axis + 1], np.int64))
            name = context.graph.node("ReduceMax", [windows, last], keepdims=0)
        return Value(name)
    kernel = [size // wanted for size, wanted in zip(sizes, target, strict=True)]
    return context.apply("MaxPool", x, kernel_shape=kernel, strides=kernel)


@OPERATIONS.register("interpolate")
def _interpolate(
    context: Context,
    x: Value,
    size: Any = None,
    scale_factor: Any = None,
    mode: str = "nearest",
    align_corners: bool | None = None,
    recompute_scale_factor: bool | None = None,
    antialias: bool = False,
) -> Value:
    if mode == "nearest":
        own = scale_factor is None or recompute_scale_factor
        return _nearest(context, x, None if own else _two(scale_factor))
    if mode not in ("bilinear", "bicubic"):
        raise InputError(f"interpolate with mode={mode!r} has no ONNX form here")
    factors = None if scale_factor is None else _two(scale_factor)
    return _resized(context, x, mode, factors, align_corners, antialias)


@OPERATIONS.register("upsample_nearest2d")
def _upsample_nearest(context: Context, x: Value, size: Any, *factors: Any, **more: Any) -> Value:
    return _nearest(context, x, _factors(factors))


@OPERATIONS.register("upsample_bilinear2d")
def _upsample_bilinear(
    context: Context, x: Value, size: Any, align_corners: bool, *factors: Any, **more: Any
) -> Value:
    return _resized(context, x, "bilinear", _factors(factors), align_corners, False)


@OPERATIONS.register("upsample_bicubic2d")
def _upsample_bicubic(
    context: Context, x: Value, size: Any, align_corners: bool, *factors: Any, **more: Any
) -> Value:
    return _resized(context, x, "bicubic", _factors(factors), align_corners, False)


def _factors(given: tuple[Any, ...]) -> list[float] | None:
    if len(given) == 1 and isinstance(given[0], (list, tuple)):
        given = tuple(given[0])
    return [float(f) for f in given] if given and given[0] is not None else None


def _two(value: Any) -> list[float]:
    return [float(v) for v in value] if isinstance(value, (list, tuple)) else [float(value)] * 2


def _resized(
    context: Context,
    x: Value,
    mode: str,
    factors: list[float] | None,
    align_corners: bool | None,
    antialias: bool,
) -> Value:
    target = context.output_shape()[-2:]

    def along(rows: Tensor, axis: int) -> Tensor:
        # A column of pixels for each row of the matrix; the other axis has one pixel.
        column = rows.unsqueeze(-1)
        size: dict[str, Any] = {"size": (target[axis], 1)}
        if factors is not None:
            size = {"scale_factor": (factors[axis], 1.0)}
        return F.interpolate(
            column, mode=mode, align_corners=bool(align_corners), antialias=antialias, **size
        ).squeeze(-1)

    return _along_axes(context, x, along)


def _along_axes(context: Context, x: Value, along: Callable[[Tensor, int], Tensor]) -> Value:
    """Apply an operation that is linear along the last two axes as two matrix products.

    ``along(rows, axis)``: (1, n, n) identity -> (1, n, m), what becomes of each pixel.
    """
    height, width = context.shape(x)[-2:]
    columns = along(torch.eye(width)[None], 1)[0]
    rows = along(torch.eye(height)[None], 0)[0].T
    right = Value(context.graph.constant(columns.contiguous().numpy()))
    left = Value(context.graph.constant(rows.contiguous().numpy()))
    return context.apply("MatMul", left, context.apply("MatMul", x, right))


def _nearest(context: Context, x: Value, factors: list[float] | None) -> Value:
    source, target = context.shape(x), context.output_shape()
    if source == target:
        return x
    ratios = [b / a for a, b in zip(source[2:], target[2:], strict=True)]
    if factors is not None and factors != ratios:
        return gathered(context, x, source, target, factors)
    if any(b % a for a, b in zip(source[2:], target[2:], strict=True)):
        return gathered(context, x, source, target)
    scales = np.array([1.0, 1.0, *ratios], np.float32)
    return context.graph.rearrange(
        x,
        lambda graph, name: graph.node(
            "Resize", [name, "", graph.constant(scales)],
            mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor",
        ),
    )  # fmt: skip


@OPERATIONS.register("grid_sampler")
def _grid_sampler(
    context: Context, x: Value, grid: Value, mode: int, padding: int, align_corners: bool
) -> Value:
    return context.apply(
        "GridSample", x, grid, mode=("linear", "nearest", "cubic")[mode],
        padding_mode=("zeros", "border", "reflection")[padding], align_corners=int(align_corners),
    )  # fmt: skip


@OPERATIONS.register("affine_grid_generator")
def _affine_grid(context: Context, theta: Value, size: Any, align_corners: bool) -> Value:
    height, width = context.output_shape()[1:3]
    plain("affine_grid_generator", {} if len(context.output_shape()) == 4 else {"size": size})
    places = F.affine_grid(torch.eye(2, 3)[None], [1, 1, height, width], align_corners)
    places = torch.cat([places.flatten(0, 2), torch.ones(height * width, 1)], 1)
    turned = context.graph.rearrange(theta, transposed([0, 2, 1]))
    moved = context.apply("MatMul", Value(context.graph.constant(places.numpy())), turned)
    return context.graph.rearrange(moved, reshaped((0, height, width, 2)))


def _strides(kernel: list[int], stride: Any) -> list[int]:
    return kernel if stride is None or stride == [] else pair(stride)


def _ends(
    context: Context,
    x: Value,
    kernel: list[int],
    strides: list[int],
    pads: list[int],
    dilations: list[int],
) -> list[int]:
    """Return the padding after each axis that gives the size torch gives, rounded up or not."""
    sizes, target = context.shape(x)[-2:], context.output_shape()[-2:]
    return [
        max(pad, (wanted - 1) * stride + dilation * (side - 1) + 1 - size - pad)
        for size, wanted, side, stride, pad, dilation in zip(
            sizes, target, kernel, strides, pads, dilations, strict=True
        )
    ]
