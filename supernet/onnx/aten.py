"""Translations of ATen operations, with the arguments in the order of their schemas."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from supernet.onnx.graph import GraphBuilder, Value, View
from supernet.onnx.operators import OPERATIONS, Context, plain, transposed

_END = 2**31 - 1
"""Beyond the end of any axis."""

_SOFTPLUS_IS_X = 16
"""From here on softplus(x) is x in float32."""

for _name, _op in (
    ("erf", "Erf"), ("log", "Log"), ("floor", "Floor"), ("ceil", "Ceil"), ("sin", "Sin"),
    ("cos", "Cos"), ("reciprocal", "Reciprocal"), ("mish", "Mish"), ("softsign", "Softsign"),
):  # fmt: skip

    def _unary(context: Context, x: Value, _op: str = _op) -> Value:
        return context.apply(_op, x)

    OPERATIONS.register(_name)(_unary)


@OPERATIONS.register("rsqrt")
def _rsqrt(context: Context, x: Value) -> Value:
    return context.apply("Reciprocal", context.apply("Sqrt", x))


@OPERATIONS.register("leaky_relu")
def _leaky_relu(
    context: Context, x: Value, negative_slope: float = 0.01, inplace: bool = False
) -> Value:
    return context.apply("LeakyRelu", x, alpha=float(negative_slope))


@OPERATIONS.register("rrelu")
def _rrelu(
    context: Context, x: Value, lower: float = 1 / 8, upper: float = 1 / 3, *rest: Any
) -> Value:
    return context.apply("LeakyRelu", x, alpha=(lower + upper) / 2)


@OPERATIONS.register("elu")
def _elu(context: Context, x: Value, alpha: float = 1.0, *rest: Any) -> Value:
    plain("elu", {"scale": rest} if any(float(v) != 1 for v in rest) else {})
    return context.apply("Elu", x, alpha=float(alpha))


@OPERATIONS.register("prelu")
def _prelu(context: Context, x: Value, weight: Value) -> Value:
    count = context.shape(weight)[0]
    rank = len(context.shape(x))
    shape = [count, *[1] * (rank - 2)] if count > 1 else [1]
    slope = context.graph.node(
        "Reshape", [context.name(weight), context.graph.constant(np.array(shape, np.int64))]
    )
    return context.apply("PRelu", x, Value(slope))


@OPERATIONS.register("pow")
def _pow(context: Context, x: Value | float, y: Value | float) -> Value:
    return context.apply("Mul", x, x) if y == 2 else context.apply("Pow", x, y)


@OPERATIONS.register("rsub")
def _rsub(context: Context, x: Value, y: Value | float, alpha: float = 1) -> Value:
    plain("rsub", {"alpha": alpha} if alpha != 1 else {})
    return context.apply("Sub", y, x)


@OPERATIONS.register("clamp")
def _clamp(context: Context, x: Value, min: Any = None, max: Any = None) -> Value:
    names = [context.name(x), *("" if v is None else context.name(v) for v in (min, max))]
    return Value(context.graph.node("Clip", names))


OPERATIONS.register("clip")(_clamp)


@OPERATIONS.register("clamp_min")
def _clamp_min(context: Context, x: Value, least: float) -> Value:
    return _clamp(context, x, least)


@OPERATIONS.register("log_softmax")
def _log_softmax(context: Context, x: Value, dim: int = -1, dtype: Any = None) -> Value:
    plain("log_softmax", {} if dtype is None else {"dtype": dtype})
    return context.apply("LogSoftmax", x, axis=dim)


@OPERATIONS.register("sum")
def _sum(
    context: Context, x: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Value:
    plain("sum", {} if dtype is None else {"dtype": dtype})
    return _reduced(context, "ReduceSum", x, dim, keepdim)


def _reduced(context: Context, op: str, x: Value, dim: Any, keepdim: bool) -> Value:
    rank = len(context.shape(x))
    axes = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    found = context.graph.constant(np.array(sorted(d % rank for d in axes), np.int64))
    return Value(context.graph.node(op, [context.name(x), found], keepdims=int(keepdim)))


@OPERATIONS.register("group_norm")
def _group_norm(
    context: Context,
    x: Value,
    groups: int,
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
    *rest: Any,
) -> Value:
    # Written with InstanceNormalization, whose meaning is the same in every operator set.
    shape = context.shape(x)
    rows = context.graph.constant(np.array([0, groups, -1], np.int64))
    flat = context.graph.node("Reshape", [context.name(x), rows])
    one, none = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normal = context.graph.node(
        "InstanceNormalization",
        [flat, context.graph.constant(one), context.graph.constant(none)],
        epsilon=float(eps),
    )
    size = context.graph.constant(np.array([0, *shape[1:]], np.int64))
    result = Value(context.graph.node("Reshape", [normal, size]))
    for op, parameter in (("Mul", weight), ("Add", bias)):
        if parameter is not None:
            result = context.apply(op, result, _as_channels(context, parameter, len(shape)))
    return result


def _as_channels(context: Context, parameter: Value, rank: int) -> Value:
    shape = context.graph.constant(np.array([-1, *[1] * (rank - 2)], np.int64))
    return Value(context.graph.node("Reshape", [context.name(parameter), shape]))


@OPERATIONS.register("linear")
def _linear(context: Context, x: Value, weight: Value, bias: Value | None = None) -> Value:
    turned = context.graph.rearrange(weight, transposed([1, 0]))
    product = context.apply("MatMul", x, turned)
    return product if bias is None else context.apply("Add", product, bias)


@OPERATIONS.register("conv_transpose2d")
def _conv_transpose(
    context: Context,
    x: Value,
    weight: Value,
    bias: Value | None = None,
    stride: Any = 1,
    padding: Any = 0,
    output_padding: Any = 0,
    groups: int = 1,
    dilation: Any = 1,
) -> Value:
    rank = len(context.shape(x)) - 2
    pads = _all(padding, rank)
    inputs = [x, weight] if bias is None else [x, weight, bias]
    return context.apply(
        "ConvTranspose", *inputs, strides=_all(stride, rank), pads=[*pads, *pads],
        output_padding=_all(output_padding, rank), group=groups, dilations=_all(dilation, rank),
    )  # fmt: skip


OPERATIONS.register("conv_transpose1d")(_conv_transpose)


def _all(value: Any, rank: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * rank if len(values) == 1 else values


@OPERATIONS.register("constant_pad_nd")
def _pad(context: Context, x: Value, pads: Sequence[int], value: float = 0.0) -> Value:
    rank = len(context.shape(x))
    starts, ends = [0] * rank, [0] * rank
    for place in range(len(pads) // 2):
        starts[rank - 1 - place], ends[rank - 1 - place] = pads[2 * place], pads[2 * place + 1]
    sides = context.graph.constant(np.array([*starts, *ends], np.int64))
    if x.grid is not None and value == 0:
        kind = np.uint8 if x.grid.bits <= 8 else np.uint16
        zero = context.graph.constant(kind(x.grid.zero_point))
        codes = context.graph.node("Pad", [x.grid.codes, sides, zero])
        return Value(grid=replace(x.grid, codes=codes))
    filler = context.graph.constant(np.float32(value))
    return Value(context.graph.node("Pad", [context.name(x), sides, filler]))


@OPERATIONS.register("pad")
def _pad_mode(
    context: Context, x: Value, pads: Sequence[int], mode: str = "constant", value: Any = None
) -> Value:
    if mode != "constant":
        raise InputError(f"pad with mode={mode!r} has no ONNX form here")
    return _pad(context, x, pads, 0.0 if value is None else float(value))


@OPERATIONS.register("expand_as")
@OPERATIONS.register("expand")
def _expand(context: Context, x: Value, *size: Any, implicit: bool = False) -> Value:
    if context.output_pattern is None:
        raise InputError("expand has no ONNX form in a block's dataflow")
    shape = dynamic_shape(context, context.output_pattern(), context.output_shape())
    return Value(context.graph.node("Expand", [context.name(x), shape]))


def _filled(context: Context, value: float) -> Value:
    """Return ``value`` in the shape of the result, whose batch is that of the input."""
    if context.output_pattern is None:
        raise InputError("a tensor that is made in a block's dataflow has no ONNX form")
    shape = dynamic_shape(context, context.output_pattern(), context.output_shape())
    return Value(context.graph.node("Expand", [context.name(float(value)), shape]))


for _name, _value in (("zeros", 0.0), ("ones", 1.0)):

    def _new(context: Context, x: Value, size: Any, _value: float = _value, **kind: Any) -> Value:
        return _filled(context, _value)

    def _like(context: Context, x: Value, _value: float = _value, **kind: Any) -> Value:
        return _filled(context, _value)

    OPERATIONS.register(f"new_{_name}")(_new)
    OPERATIONS.register(f"{_name}_like")(_like)


@OPERATIONS.register("new_full")
def _new_full(context: Context, x: Value, size: Any, fill_value: float, **kind: Any) -> Value:
    return _filled(context, fill_value)


@OPERATIONS.register("full_like")
def _full_like(context: Context, x: Value, fill_value: float, **kind: Any) -> Value:
    return _filled(context, fill_value)


def dynamic_shape(context: Context, pattern: Sequence[int | None], traced: Sequence[int]) -> str:
    """Return the name of an int64 tensor with a shape whose batch is that of the input."""
    from supernet.onnx.operators import TRACED_BATCH

    if None not in pattern:
        return context.graph.constant(np.array(pattern, np.int64))
    parts = []
    for size, example in zip(pattern, traced, strict=True):
        if size is not None:
            parts.append(context.graph.constant(np.array([size], np.int64)))
            continue
        batch = context.graph.node("Shape", [context.input_name], start=0, end=1)
        factor = example // TRACED_BATCH
        if factor > 1:
            by = context.graph.constant(np.array([factor], np.int64))
            batch = context.graph.node("Mul", [batch, by])
        parts.append(batch)
    return context.graph.node("Concat", parts, axis=0)


@OPERATIONS.register("select")
def _select(context: Context, x: Value, dim: int, index: int) -> Value:
    shape = context.shape(x)
    place = np.int64(index % shape[dim])
    return context.graph.rearrange(x, _gather(place, dim % len(shape)))


@OPERATIONS.register("slice")
def _slice(
    context: Context,
    x: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    axis = dim % len(context.shape(x))
    bounds = [np.array([v], np.int64) for v in (start or 0, min(_or_end(end), _END), axis, step)]

    def view(graph: GraphBuilder, name: str) -> str:
        return graph.node("Slice", [name, *(graph.constant(b) for b in bounds)])

    return context.graph.rearrange(x, view)


@OPERATIONS.register("slice_scatter")
def _slice_scatter(
    context: Context,
    x: Value,
    part: Value,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> Value:
    return _written(context, x, context.name(part), dim, slice(start, end, step))


@OPERATIONS.register("select_scatter")
def _select_scatter(context: Context, x: Value, part: Value, dim: int, index: int) -> Value:
    axis = dim % len(context.shape(x))
    place = context.graph.constant(np.array([axis], np.int64))
    raised = context.graph.node("Unsqueeze", [context.name(part), place])
    index %= context.shape(x)[axis]
    return _written(context, x, raised, axis, slice(index, index + 1))


def _written(context: Context, x: Value, part: str, dim: int, place: slice) -> Value:
    """Return ``x`` with ``part`` in ``place`` of an axis: both in a row, picked by index."""
    shape = context.shape(x)
    axis = dim % len(shape)
    if context.pattern is not None and context.pattern(x)[axis] is None:
        raise InputError("a tensor that is written to for some of the batch has no ONNX form here")
    order = np.arange(shape[axis])
    order[place] = shape[axis] + np.arange(len(order[place]))
    both = context.graph.node("Concat", [context.name(x), part], axis=axis)
    return Value(_gather(order.astype(np.int64), axis)(context.graph, both))


def _or_end(end: int | None) -> int:
    return _END if end is None else end


@OPERATIONS.register("narrow")
def _narrow(context: Context, x: Value, dim: int, start: int, length: int) -> Value:
    return _slice(context, x, dim, start, start + length)


@OPERATIONS.register("roll")
def _roll(context: Context, x: Value, shifts: Any, dims: Any = ()) -> Value:
    shape = context.shape(x)
    shifts = [shifts] if isinstance(shifts, int) else list(shifts)
    dims = [dims] if isinstance(dims, int) else list(dims)
    plain("roll", {} if len(dims) == len(shifts) else {"dims": dims})
    for shift, dim in zip(shifts, dims, strict=True):
        order = (np.arange(shape[dim]) - shift) % shape[dim]
        x = context.graph.rearrange(x, _gather(order.astype(np.int64), dim % len(shape)))
    return x


@OPERATIONS.register("flip")
def _flip(context: Context, x: Value, dims: Sequence[int]) -> Value:
    shape = context.shape(x)
    for dim in dims:
        order = np.arange(shape[dim])[::-1].astype(np.int64)
        x = context.graph.rearrange(x, _gather(order, dim % len(shape)))
    return x


@OPERATIONS.register("pixel_shuffle")
def _pixel_shuffle(context: Context, x: Value, factor: int) -> Value:
    *outer, channels, height, width = context.shape(x)
    outer, inner = [0] * len(outer), channels // factor**2
    apart = np.array([*outer, inner, factor, factor, height, width], np.int64)
    whole = np.array([*outer, inner, height * factor, width * factor], np.int64)
    order = [*range(len(outer)), *(len(outer) + i for i in (0, 3, 1, 4, 2))]

    def view(graph: GraphBuilder, name: str) -> str:
        # Each block of pixels is made of channels that lie side by side.
        if name not in graph.codes and len(outer) == 1:
            return graph.node("DepthToSpace", [name], blocksize=factor, mode="CRD")
        # ONNX Runtime up to 1.20 has that operator of floats only.
        name = graph.node("Reshape", [name, graph.constant(apart)])
        name = graph.node("Transpose", [name], perm=order)
        return graph.node("Reshape", [name, graph.constant(whole)])

    return context.graph.rearrange(x, view)


def _gather(index: Any, axis: int) -> View:
    return lambda graph, name: graph.node("Gather", [name, graph.constant(index)], axis=axis)


@OPERATIONS.register("t")
def _t(context: Context, x: Value) -> Value:
    rank = len(context.shape(x))
    return context.graph.rearrange(x, transposed(list(range(rank))[::-1]))


@OPERATIONS.register("stack")
def _stack(context: Context, tensors: Sequence[Value], dim: int = 0) -> Value:
    axis = dim % len(context.output_shape())
    place = context.graph.constant(np.array([axis], np.int64))
    raised = [Value(context.graph.node("Unsqueeze", [context.name(x), place])) for x in tensors]
    return context.apply("Concat", *raised, axis=axis)


@OPERATIONS.register("split_with_sizes")
def _split_with_sizes(context: Context, x: Value, sizes: Sequence[int], dim: int = 0) -> Any:
    return OPERATIONS.get("split")(context, x, list(sizes), dim)


@OPERATIONS.register("repeat")
def _repeat(context: Context, x: Value, repeats: Sequence[int]) -> Value:
    rank = len(context.shape(x))
    raised = list(range(len(repeats) - rank))
    name = context.name(x)
    if raised:
        name = context.graph.node(
            "Unsqueeze", [name, context.graph.constant(np.array(raised, np.int64))]
        )
    if context.pattern is not None and context.output_pattern is not None:
        own = [1] * len(raised) + list(context.pattern(x))
        # A count that the batch is part of: the size is, and was not before.
        counts = [
            None if new is None and old is not None else count
            for count, old, new in zip(repeats, own, context.output_pattern(), strict=True)
        ]
        times = dynamic_shape(context, counts, repeats)
    else:
        times = context.graph.constant(np.array(repeats, np.int64))
    return Value(context.graph.node("Tile", [name, times]))


@OPERATIONS.register("linalg_vector_norm")
def _vector_norm(
    context: Context,
    x: Value,
    ord: float = 2,
    dim: Any = None,
    keepdim: bool = False,
    dtype: Any = None,
) -> Value:
    plain("linalg_vector_norm", {} if dtype is None and ord == 2 else {"ord": ord})
    return _reduced(context, "ReduceL2", x, dim, keepdim)


@OPERATIONS.register("einsum")
def _einsum(context: Context, equation: str, tensors: Sequence[Value], path: Any = None) -> Value:
    return context.apply("Einsum", *tensors, equation=equation)


@OPERATIONS.register("addcmul")
def _addcmul(context: Context, x: Value, a: Value, b: Value, value: float = 1) -> Value:
    plain("addcmul", {} if value == 1 else {"value": value})
    return context.apply("Add", x, context.apply("Mul", a, b))


@OPERATIONS.register("unbind")
def _unbind(context: Context, x: Value, dim: int = 0) -> tuple[Value, ...]:
    count = context.shape(x)[dim]
    return tuple(_select(context, x, dim, index) for index in range(count))


@OPERATIONS.register("glu")
def _glu(context: Context, x: Value, dim: int = -1) -> Value:
    first, second = OPERATIONS.get("chunk")(context, x, 2, dim)
    return context.apply("Mul", first, context.apply("Sigmoid", second))


@OPERATIONS.register("softplus")
def _softplus(context: Context, x: Value, beta: float = 1, threshold: float = 20) -> Value:
    # Beyond the threshold torch gives x itself, which from there on differs by no digit.
    known = beta == 1 and threshold >= _SOFTPLUS_IS_X
    plain("softplus", {} if known else {"beta": beta, "threshold": threshold})
    return context.apply("Softplus", x)
