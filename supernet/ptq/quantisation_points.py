"""Where a traced network is quantised, so that an integer runtime never falls back to float.

A layer quantises its own input. A tensor that also goes elsewhere (into a sum, a pool, two
layers) gets a quantiser of its own, at the bits of tensors between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from search_spaces.plan import FLOAT_BITS, STREAM_BITS
from supernet.plain import Source
from supernet.reading.capture import packet

INTEGER = frozenset({"add", "cat", "mean", "adaptive_avg_pool2d", "avg_pool2d", "max_pool2d"})
"""Operations that integer runtimes do on codes."""

VIEWS = frozenset(
    {"flatten", "reshape", "view", "unflatten", "squeeze", "unsqueeze", "permute", "transpose"}
    | {"getitem", "chunk", "split", "split_with_sizes", "unbind", "select", "slice", "expand"}
)
"""Operations that move values and change none."""

SIZES = frozenset({"sym_size"})
"""Operations that look at no values."""

RELU = frozenset({"relu"})


def insert_points(module: fx.GraphModule, layers: Mapping[str, fx.Node]) -> list[fx.Node]:
    """Add quantisers after the tensors that need one, in place; returns their nodes.

    Each is a :class:`~supernet.plain.Source` whose step is not set yet.
    """
    is_layer = set(layers.values())
    points: list[fx.Node] = []
    for node in list(module.graph.nodes):
        if node.op in ("output", "get_attr") or _is_view(node) or not _is_float(node):
            continue
        if _is_relu_next(node):
            continue  # The ReLU's output is quantised instead.
        users = _users(node)
        wanted = [u for u in users if u in is_layer or operation_or_none(u) in INTEGER]
        on_codes = any(u not in is_layer for u in wanted)
        if not wanted or not (on_codes or len(users) > 1):
            continue
        name = f"point_{len(points)}"
        module.add_module(name, Source("none", bits=STREAM_BITS))
        with module.graph.inserting_after(node):
            point = module.graph.call_module(name)
        node.replace_all_uses_with(point)
        point.args = (node,)
        point.meta = dict(node.meta)
        points.append(point)
    module.graph.lint()
    module.recompile()
    return points


def behind_point(node: fx.Node, points: set[fx.Node]) -> bool:
    """Whether the input of a layer's node is quantised already."""
    node = node.all_input_nodes[0]
    while _is_view(node):
        node = node.all_input_nodes[0]
    return node in points


def layer_source(bits: int, *, quantized: bool) -> Source:
    """Return the input quantiser of a layer; ``quantized``: it is behind a point."""
    if bits >= FLOAT_BITS or (quantized and bits >= STREAM_BITS):
        return Source("stream", bits=FLOAT_BITS)
    return Source("none", bits=bits)


def operation_or_none(node: fx.Node) -> str | None:
    """Return the name of a function or method call, None for other nodes."""
    return packet(node) or None


def _users(node: fx.Node) -> list[fx.Node]:
    """Return what uses a tensor, or a view of it."""
    found: dict[fx.Node, None] = {}
    for user in node.users:
        if operation_or_none(user) not in SIZES:
            found.update(dict.fromkeys(_users(user) if _is_view(user) else [user]))
    return list(found)


def _is_float(node: fx.Node) -> bool:
    meta = node.meta.get("tensor_meta")
    return bool(getattr(getattr(meta, "dtype", None), "is_floating_point", False))


def _is_view(node: fx.Node) -> bool:
    return operation_or_none(node) in VIEWS


def _is_relu_next(node: fx.Node) -> bool:
    return len(node.users) == 1 and operation_or_none(next(iter(node.users))) in RELU
