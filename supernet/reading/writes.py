"""Values written into parts of a tensor (``y[:, :2] = z``), as calls that return a new tensor."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, fx

from supernet.reading.operations import alike, packet

aten = torch.ops.aten


def spell_out_writes(graph: fx.Graph) -> None:
    """Replace the copies of a captured graph by what they copy, in place.

    ``copy(place, values)`` is ``values`` in the shape and type of ``place``; what is written over
    the whole of a tensor is the tensor from then on.
    """
    for node in list(graph.nodes):
        name = packet(node)
        if name not in ("copy", "slice_scatter"):
            continue
        place, values = node.args[:2]
        if not isinstance(place, fx.Node) or not isinstance(values, fx.Node):
            continue
        if name == "copy":
            values = _as_written(graph, node, place, values)
        elif not alike(values, node):
            continue
        node.replace_all_uses_with(values)
        graph.erase_node(node)


def _as_written(graph: fx.Graph, node: fx.Node, place: fx.Node, values: fx.Node) -> fx.Node:
    there, own = place.meta.get("val"), values.meta.get("val")
    with graph.inserting_before(node):
        if isinstance(there, Tensor) and isinstance(own, Tensor) and there.dtype != own.dtype:
            kind: dict[str, Any] = {"dtype": there.dtype}
            values = graph.call_function(aten._to_copy.default, (values,), kind)
            values.meta = {**node.meta, "val": own.to(there.dtype)}
        if not alike(values, node):
            values = graph.call_function(aten.expand_as.default, (values, place))
            values.meta = dict(node.meta)
    return values
