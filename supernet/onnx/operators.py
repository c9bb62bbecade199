"""Translations of the tensor operations of dataflows to ONNX, by the operation's name.

A dataflow may spell an operation as a function, a method or an operator; all arrive here
under one name (``x + y``, ``torch.add(x, y)`` and ``x.add(y)`` are ``add``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.registry import Registry
from supernet.onnx.graph import GraphBuilder, Value

Translation = Callable[..., Any]

TRACED_BATCH = 2
"""Batch size of the shapes that translations see: not 1, so that it can be told from others."""

OPERATIONS: Registry[Translation] = Registry(
    "tensor operation",
    group="nas.onnx_operations",
    modules=("supernet.onnx.aten", "supernet.onnx.pooling", "supernet.onnx.tokens"),
)
"""``name -> f(context, *arguments)``; tensors among the arguments are :class:`Value`."""


@dataclass(frozen=True)
class Context:
    """What a translation may use.

    Attributes:
        graph: where nodes are added.
        shape: returns the shape of a value of the traced network for :data:`TRACED_BATCH`
            images.
        output_shape: returns the shape of the operation's own result, likewise.
        pattern, output_pattern: the same with None for what the size of the batch is part of,
            where it is known.
    """

    graph: GraphBuilder
    shape: Callable[[Value], tuple[int, ...]]
    output_shape: Callable[[], tuple[int, ...]]
    pattern: Callable[[Value], tuple[int | None, ...]] | None = None
    output_pattern: Callable[[], tuple[int | None, ...]] | None = None
    is_boolean: Callable[[Value], bool] | None = None
    input_name: str = "input"

    def name(self, value: Value | float) -> str:
        """Return the float tensor of a value or of a number."""
        if isinstance(value, Value):
            return self.graph.tensor(value)
        return self.graph.constant(np.float32(value))

    def boolean(self, value: Value) -> bool:
        """Whether a value holds truth values."""
        return self.is_boolean is not None and self.is_boolean(value)

    def apply(self, op: str, *inputs: Value | float, **attributes: Any) -> Value:
        """Add a node on float tensors."""
        return Value(self.graph.node(op, [self.name(x) for x in inputs], **attributes))


def _binary(op: str) -> Translation:
    def translate(context: Context, x: Value | float, y: Value | float, **rest: Any) -> Value:
        plain(op, {key: value for key, value in rest.items() if value not in (1, None)})
        return context.apply(op, x, y)

    return translate


def _unary(op: str, **attributes: Any) -> Translation:
    def translate(context: Context, x: Value, inplace: bool = False) -> Value:
        return context.apply(op, x, **attributes)

    return translate


for _name, _op in (
    ("add", "Add"), ("iadd", "Add"), ("add_", "Add"), ("sub", "Sub"), ("isub", "Sub"),
    ("mul", "Mul"), ("imul", "Mul"), ("mul_", "Mul"), ("truediv", "Div"), ("div", "Div"),
    ("matmul", "MatMul"), ("bmm", "MatMul"), ("maximum", "Max"), ("minimum", "Min"),
):  # fmt: skip
    OPERATIONS.register(_name)(_binary(_op))

for _name, _op, _attributes in (
    ("relu", "Relu", {}),
    ("relu_", "Relu", {}),
    ("hardswish", "HardSwish", {}),
    ("hardsigmoid", "HardSigmoid", {"alpha": 1 / 6, "beta": 0.5}),
    ("sigmoid", "Sigmoid", {}),
    ("tanh", "Tanh", {}),
    ("neg", "Neg", {}),
    ("exp", "Exp", {}),
    ("sqrt", "Sqrt", {}),
    ("abs", "Abs", {}),
):
    OPERATIONS.register(_name)(_unary(_op, **_attributes))


@OPERATIONS.register("silu")
def _silu(context: Context, x: Value, inplace: bool = False) -> Value:
    return context.apply("Mul", x, context.apply("Sigmoid", x))


@OPERATIONS.register("gelu")
def _gelu(context: Context, x: Value, approximate: str = "none") -> Value:
    return context.apply("Gelu", x, approximate=approximate)


@OPERATIONS.register("relu6")
def _relu6(context: Context, x: Value, inplace: bool = False) -> Value:
    return context.apply("Clip", x, 0.0, 6.0)


@OPERATIONS.register("hardtanh")
def _hardtanh(
    context: Context, x: Value, min_val: float = -1, max_val: float = 1, inplace: bool = False
) -> Value:
    return context.apply("Clip", x, float(min_val), float(max_val))


@OPERATIONS.register("softmax")
def _softmax(context: Context, x: Value, dim: int = -1, dtype: Any = None, **rest: Any) -> Value:
    plain("softmax", {"dtype": dtype} if dtype is not None else {})
    return context.apply("Softmax", x, axis=dim)


@OPERATIONS.register("scaled_dot_product_attention")
def _attention(
    context: Context,
    query: Value,
    key: Value,
    value: Value,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Value:
    if enable_gqa:
        raise InputError("scaled_dot_product_attention of grouped queries has no ONNX form here")
    shape = context.shape(query)
    order = [*range(len(shape) - 2), len(shape) - 1, len(shape) - 2]
    turned = context.graph.rearrange(key, transposed(order))
    scaled = context.apply("Mul", query, shape[-1] ** -0.5 if scale is None else scale)
    scores = context.apply("MatMul", scaled, turned)
    if is_causal:
        later = np.triu(np.ones((shape[-2], context.shape(key)[-2]), bool), 1)
        hidden = np.where(later, np.float32(-np.inf), np.float32(0))
        scores = context.apply("Add", scores, Value(context.graph.constant(hidden)))
    if attn_mask is not None:
        if context.boolean(attn_mask):
            hide = Value(context.graph.constant(np.float32(-np.inf)))
            none = Value(context.graph.constant(np.float32(0)))
            attn_mask = context.apply("Where", attn_mask, none, hide)
        scores = context.apply("Add", scores, attn_mask)
    return context.apply("MatMul", context.apply("Softmax", scores, axis=-1), value)


@OPERATIONS.register("dropout")
def _dropout(context: Context, x: Value, *rest: Any, **more: Any) -> Value:
    return x


@OPERATIONS.register("contiguous")
def _contiguous(context: Context, x: Value, **rest: Any) -> Value:
    return x


@OPERATIONS.register("mean")
def _mean(
    context: Context,
    x: Value,
    dim: int | Sequence[int] | None = None,
    keepdim: bool = False,
    axis: int | Sequence[int] | None = None,
    **rest: Any,
) -> Value:
    plain("mean", {key: value for key, value in rest.items() if value is not None})
    dim = axis if dim is None else dim
    rank = len(context.shape(x))
    given = range(rank) if dim is None else [dim] if isinstance(dim, int) else dim
    axes = sorted(d % rank for d in given) or list(range(rank))
    if rank == 4 and axes == [2, 3]:
        # This form has an integer kernel where a mean over axes has none.
        pooled = context.apply("GlobalAveragePool", x)
        return pooled if keepdim else context.graph.rearrange(pooled, _flatten(1))
    mean = context.graph.node(
        "ReduceMean",
        [context.name(x), context.graph.constant(np.array(axes, np.int64))],
        keepdims=int(keepdim),
    )
    return Value(mean)


@OPERATIONS.register("layer_norm")
def _layer_norm(
    context: Context,
    x: Value,
    normalized_shape: Sequence[int],
    weight: Value | None = None,
    bias: Value | None = None,
    eps: float = 1e-5,
) -> Value:
    size = tuple(normalized_shape)
    inputs = [x, weight if weight is not None else _full(context, 1.0, size)]
    if bias is not None:
        inputs.append(bias)
    return context.apply("LayerNormalization", *inputs, axis=-len(size), epsilon=eps)


def _full(context: Context, value: float, shape: tuple[int, ...]) -> Value:
    return Value(context.graph.constant(np.full(shape, value, np.float32)))


@OPERATIONS.register("flatten")
def _flatten_op(context: Context, x: Value, start_dim: int = 0, end_dim: int = -1) -> Value:
    return _reshaped(context, x)


@OPERATIONS.register("reshape")
def _reshape(context: Context, x: Value, *shape: Any) -> Value:
    return _reshaped(context, x)


def gathered(
    context: Context,
    x: Value,
    source: Sequence[int],
    target: Sequence[int],
    factors: Sequence[float] | None = None,
) -> Value:
    """Return ``x`` resized to the nearest pixels, which are picked by index.

    ``factors``: by how much each axis grows, where that is not the ratio of its sizes. Runtimes
    round the ratio of the two sizes each in its own way, so a Resize by a ratio that is not whole
    can lose a row or pick another pixel than torch does.
    """
    import torch
    from torch.nn.functional import interpolate

    def view(graph: GraphBuilder, name: str) -> str:
        for axis in range(2, len(source)):
            pixels = torch.arange(source[axis], dtype=torch.float32)[None, None]
            picked = (
                interpolate(pixels, size=target[axis], mode="nearest")
                if factors is None
                else interpolate(pixels, scale_factor=factors[axis - 2], mode="nearest")
            )
            index = picked.flatten().numpy().astype(np.int64)
            name = graph.node("Gather", [name, graph.constant(index)], axis=axis)
        return name

    return context.graph.rearrange(x, view)


OPERATIONS.register("view")(_reshape)
OPERATIONS.register("unflatten")(_reshape)
OPERATIONS.register("squeeze")(_reshape)
OPERATIONS.register("unsqueeze")(_reshape)


def _reshaped(context: Context, x: Value) -> Value:
    source, target = context.shape(x), context.output_shape()
    if context.pattern is not None and context.output_pattern is not None:
        pattern = context.output_pattern()
        free = [place for place, size in enumerate(pattern) if size is None]
        if len(free) > 1:
            raise InputError(
                f"a reshape of {source} to {target} divides the batch among dimensions; keep it "
                "in one to export the network"
            )
        if free == [0] and context.pattern(x)[:1] == (None,) and source[0] == target[0]:
            target = (0, *target[1:])
        elif free:
            target = tuple(-1 if size is None else size for size in pattern)
    elif source[:1] == (TRACED_BATCH,):
        if target[:1] != (TRACED_BATCH,):
            raise InputError(
                f"a reshape of {source} to {target} mixes the batch with other dimensions; keep "
                "the batch first to export the network"
            )
        # A zero copies the batch from the input, whatever its size.
        target = (0, *target[1:])
    shape = np.array(target, np.int64)

    def view(graph: GraphBuilder, name: str) -> str:
        return graph.node("Reshape", [name, graph.constant(shape)])

    return context.graph.rearrange(x, view)


@OPERATIONS.register("permute")
def _permute(context: Context, x: Value, *dims: Any) -> Value:
    order = list(dims[0]) if len(dims) == 1 and not isinstance(dims[0], int) else list(dims)
    rank = len(context.shape(x))
    return context.graph.rearrange(x, transposed([d % rank for d in order]))


@OPERATIONS.register("transpose")
def _transpose(context: Context, x: Value, first: int, second: int) -> Value:
    order = list(range(len(context.shape(x))))
    order[first], order[second] = order[second], order[first]
    return context.graph.rearrange(x, transposed(order))


@OPERATIONS.register("cat")
def _cat(
    context: Context, tensors: Sequence[Value], dim: int = 0, axis: int | None = None
) -> Value:
    return context.apply("Concat", *tensors, axis=dim if axis is None else axis)


OPERATIONS.register("concat")(_cat)


@OPERATIONS.register("chunk")
def _chunk(context: Context, x: Value, chunks: int, dim: int = 0) -> tuple[Value, ...]:
    size = -(-context.shape(x)[dim] // chunks)
    return _split(context, x, size, dim)


@OPERATIONS.register("split")
def _split(
    context: Context, x: Value, size: int | Sequence[int], dim: int = 0
) -> tuple[Value, ...]:
    total = context.shape(x)[dim]
    if isinstance(size, int):
        size = [min(size, total - start) for start in range(0, total, size)]
    sizes = context.graph.constant(np.array(size, np.int64))
    if x.grid is not None:
        names = context.graph.nodes_out("Split", [x.grid.codes, sizes], len(size), axis=dim)
        from dataclasses import replace

        return tuple(Value(grid=replace(x.grid, codes=name)) for name in names)
    names = context.graph.nodes_out("Split", [context.name(x), sizes], len(size), axis=dim)
    return tuple(Value(name) for name in names)


@OPERATIONS.register("getitem")
def _getitem(context: Context, x: Any, index: Any) -> Any:
    if not isinstance(x, Value):
        return x[index]
    raise InputError(f"indexing a tensor with {index!r} has no ONNX form here; use split or chunk")


def _flatten(axis: int) -> Callable[[GraphBuilder, str], str]:
    return lambda graph, name: graph.node("Flatten", [name], axis=axis)


def transposed(order: list[int]) -> Callable[[GraphBuilder, str], str]:
    """Return a view that puts the axes into ``order``."""
    return lambda graph, name: graph.node("Transpose", [name], perm=order)


def pair(value: Any) -> list[int]:
    """Return a size for both axes of an image."""
    values = [value] if isinstance(value, int) else list(value)
    return values * 2 if len(values) == 1 else values


def plain(op: str, rest: dict[str, Any]) -> None:
    """Refuse options that a translation does not know.

    Raises:
        InputError: there are any.
    """
    if rest:
        raise InputError(f"{op} with {rest} has no ONNX form here; write it without these options")
