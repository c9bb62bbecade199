"""Translations of what language models do to numbers of tokens."""

from __future__ import annotations

from typing import Any

from supernet.onnx.graph import Value
from supernet.onnx.operators import OPERATIONS, Context, plain


@OPERATIONS.register("round")
def _round(context: Context, x: Value) -> Value:
    return context.apply("Round", x)


@OPERATIONS.register("long")
def _long(context: Context, x: Value) -> Value:
    from onnx import TensorProto

    return Value(context.graph.node("Cast", [context.name(x)], to=TensorProto.INT64))


@OPERATIONS.register("embedding")
def _embedding(
    context: Context,
    numbers: Value,
    table: Value,
    *rest: Any,
    max_norm: Any = None,
    **of_training: Any,
) -> Value:
    # What else there is concerns gradients alone.
    plain("embedding", {} if max_norm is None else {"max_norm": max_norm})
    names = [context.name(table), context.name(numbers)]
    return Value(context.graph.node("Gather", names, axis=0))
