"""Channels in the order of their importance, so that the first ones are the best to keep.

A narrower layer of a supernet takes the first channels of a wider one. In a trained network the
first are no better than the last; put in order, they are, and the network computes what it did,
since whatever reads a channel is reordered alike. As in Once-for-All (Cai et al., ICLR 2020,
section 3.3), with the importance of a channel measured at both ends: the size of the weights that
make it (Li et al., "Pruning Filters for Efficient ConvNets", ICLR 2017), batch norm folded in,
times the size of those that read it.
"""

from __future__ import annotations

import torch
from torch import Tensor, fx, nn

from supernet.own_model.graph import ModuleGraph
from supernet.own_model.widths import Width
from supernet.reading.normal_form import affine_of


@torch.no_grad()
def sort_channels(graph: ModuleGraph) -> int:
    """Reorder the channels of every width that can vary, in place; outputs stay the same.

    Returns:
        How many widths were reordered.
    """
    widths = graph.free_widths()
    free = [width for width in widths if not width.pinned]
    for width in free:
        order = torch.argsort(channel_importance(graph, width), descending=True, stable=True)
        _reorder(graph, width, order)
    return len(free)


@torch.no_grad()
def channel_importance(graph: ModuleGraph, width: Width) -> Tensor:
    """Return the importance of each channel of a width, (channels,), larger for what matters."""
    made = torch.zeros(width.size)
    read = torch.zeros(width.size)
    for node, repeat in _readers(graph, width):
        read += _columns(graph, node, repeat).square().sum((1, 2))
    for node in _makers(graph, width):
        made += _rows(graph, node).square().sum(1)
    return made.sqrt() * (read.sqrt() if bool(read.any()) else 1.0)


def _makers(graph: ModuleGraph, width: Width) -> list[fx.Node]:
    return [n for n in graph.layer_nodes() if graph.layers[str(n.target)] in width.layers]


def _readers(graph: ModuleGraph, width: Width) -> list[tuple[fx.Node, int]]:
    found = []
    for node in graph.layer_nodes():
        index, repeat = graph.input_width(node)
        if index is not None and graph.widths[index] is width and not _depthwise(graph, node):
            found.append((node, repeat))
    return found


def _depthwise(graph: ModuleGraph, node: fx.Node) -> bool:
    layer = graph.modules[graph.layers[str(node.target)]]
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def _rows(graph: ModuleGraph, node: fx.Node) -> Tensor:
    """Weights of each output channel as they are after batch norm: (out, weights)."""
    layer = graph.modules[graph.layers[str(node.target)]]
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    rows = layer.weight.detach().flatten(1)
    norm = graph.norms.get(str(node.target))
    if norm is None:
        return rows
    batch_norm = graph.modules[norm]
    assert isinstance(batch_norm, nn.BatchNorm2d)
    return rows * affine_of(batch_norm)[0][:, None]


def _columns(graph: ModuleGraph, node: fx.Node, repeat: int) -> Tensor:
    """Weights of each input channel: (channels, repeat, weights)."""
    layer = graph.modules[graph.layers[str(node.target)]]
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    columns = layer.weight.detach().transpose(0, 1).flatten(1)
    return columns.unflatten(0, (-1, repeat))


def _reorder(graph: ModuleGraph, width: Width, order: Tensor) -> None:
    readers = _readers(graph, width)
    for node in _makers(graph, width):
        role = str(node.target)
        _take(graph.modules[graph.layers[role]], ("weight", "bias"), order)
        if role in graph.norms:
            names = ("weight", "bias", "running_mean", "running_var")
            _take(graph.modules[graph.norms[role]], names, order)
    for node in graph.operator_nodes():
        path = graph.operators[str(node.target)]
        index = graph.output_width(node)
        if path in graph.modules and index is not None and graph.widths[index] is width:
            _take(graph.modules[path], ("weight", "bias"), order)
    for node, repeat in readers:
        layer = graph.modules[graph.layers[str(node.target)]]
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        places = (order[:, None] * repeat + torch.arange(repeat)).flatten()
        layer.weight.copy_(layer.weight[:, places].clone())


def _take(module: nn.Module, names: tuple[str, ...], order: Tensor) -> None:
    for name in names:
        value = getattr(module, name)
        if value is not None:
            value.copy_(value[order].clone())
