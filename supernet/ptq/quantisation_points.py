"""Where a traced network is quantised, so that an integer runtime never falls back to float.

A layer quantises its own input. A tensor that also goes elsewhere (into a sum, a pool, two
layers) gets a quantiser of its own, at the bits of tensors between blocks.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import fx

from search_spaces.plan import FLOAT_BITS, STREAM_BITS
from supernet.plain import Source
from supernet.reading.operations import kind_of, packet


def insert_points(module: fx.GraphModule, layers: Mapping[str, fx.Node]) -> list[fx.Node]:
    """Add quantisers after the tensors that need one, in place; returns their nodes.

    Each is a :class:`~supernet.plain.Source` whose step is not set yet.
    """
    is_layer = set(layers.values())
    points: list[fx.Node] = []
    for node in list(module.graph.nodes):
        if node.op in ("output", "get_attr") or kind_of(node).view or not _is_float(node):
            continue
        if relu_follows(node):
            continue  # The ReLU's output is quantised instead.
        users = _users(node)
        wanted = [u for u in users if u in is_layer or kind_of(u).integer]
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
    while kind_of(node).view:
        node = node.all_input_nodes[0]
    return node in points


def layer_source(bits: int, *, quantized: bool) -> Source:
    """Return the input quantiser of a layer; ``quantized``: it is behind a point."""
    if bits >= FLOAT_BITS or (quantized and bits >= STREAM_BITS):
        return Source("stream", bits=FLOAT_BITS)
    return Source("none", bits=bits)


def _users(node: fx.Node) -> list[fx.Node]:
    """Return what uses a tensor, or a view of it."""
    found: dict[fx.Node, None] = {}
    for user in node.users:
        if not kind_of(user).sizes:
            found.update(dict.fromkeys(_users(user) if kind_of(user).view else [user]))
    return list(found)


def _is_float(node: fx.Node) -> bool:
    meta = node.meta.get("tensor_meta")
    return bool(getattr(getattr(meta, "dtype", None), "is_floating_point", False))


def relu_follows(node: fx.Node) -> bool:
    """Whether a ReLU is all that reads a tensor."""
    return [packet(user) for user in node.users] == ["relu"]
