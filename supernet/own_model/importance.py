"""Channels in the order of their importance, so that the first ones are the best to keep.

A narrower layer of a supernet takes the first channels of a wider one. In a trained network the
first are no better than the last; put in order, they are, and the network computes what it did,
since whatever reads a channel is reordered alike (as in Once-for-All, Cai et al., ICLR 2020,
section 3.3).

What a layer loses with a channel is the variance that the channel brings to its outputs: the mean
comes back with the batch norm's statistics. So the importance of a channel is its variance times
the squares of the weights that read it, over all layers that do, each in units of its own outputs'
deviation. Behind a batch norm a channel has the mean and deviation that the norm gives it, and a
normal distribution as far as anybody knows (Arpit et al., "Normalization Propagation", ICML 2016,
section 3); a ReLU's variance follows. Without a norm, the weights that make the channel stand in.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from supernet.own_model.graph import ModuleGraph
from supernet.own_model.widths import Width
from supernet.reading.normal_form import affine_of
from supernet.reading.operations import ACTIVATIONS, KINDS, named, packet

# By the names of operations, and by those that quantisers have in plans.
_CUTTING = named("cutting") | {name for name, op in ACTIVATIONS.items() if KINDS[op].cutting}


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
    makers = _makers(graph, width)
    found = torch.zeros(width.size)
    readers = _readers(graph, width)
    for reader in readers:
        behind = _layers_behind(graph, reader.node)
        direct = [maker for maker in makers if maker in behind]
        weights = _columns(graph, reader, width.size).square().sum((1, 2))
        found += _variance(graph, direct) * weights
    return found if readers else _variance(graph, makers)


def _layers_behind(graph: ModuleGraph, node: fx.Node) -> set[fx.Node]:
    """Return the layers whose outputs reach a node without passing another layer."""
    found: set[fx.Node] = set()
    seen, todo = {node}, list(node.all_input_nodes)
    while todo:
        before = todo.pop()
        if before in seen:
            continue
        seen.add(before)
        if before.target in graph.layers:
            found.add(before)
        else:
            todo += before.all_input_nodes
    return found


def _variance(graph: ModuleGraph, makers: list[fx.Node]) -> Tensor:
    """Return the variance of each channel of the sum of what the layers make: (channels,)."""
    parts = []
    for node in makers:
        norm = graph.norms.get(str(node.target))
        if norm is None:
            parts.append(_rows(graph, node).square().sum(1))
            continue
        batch_norm = graph.modules[norm]
        assert isinstance(batch_norm, nn.BatchNorm2d)
        gain, shift = batch_norm.weight.detach(), batch_norm.bias.detach()
        # What several layers make is added up before anything is cut off.
        cut = len(makers) == 1 and _is_activated(graph, node)
        parts.append(_cut_variance(gain, shift) if cut else gain.square())
    return torch.stack(parts).sum(0) if parts else torch.tensor(0.0)


def _cut_variance(gain: Tensor, shift: Tensor) -> Tensor:
    """Return the variance of a ReLU of normal variables of deviation ``gain``, mean ``shift``."""
    deviation = gain.abs().clamp(min=1e-6)
    ratio = shift / deviation
    density = torch.exp(-ratio.square() / 2) / math.sqrt(2 * math.pi)
    above = 0.5 * (1 + torch.erf(ratio / math.sqrt(2)))
    mean = shift * above + deviation * density
    square = (shift.square() + deviation.square()) * above + shift * deviation * density
    return (square - mean.square()).clamp(min=0)


def _is_activated(graph: ModuleGraph, node: fx.Node) -> bool:
    """Whether what is negative is cut off, or nearly so, behind a layer."""
    names = set()
    for user in node.users:
        role = str(user.target)
        names.add(graph.points.get(role) or graph.sources.get(role) or packet(user))
    return bool(names & _CUTTING)


def _makers(graph: ModuleGraph, width: Width) -> list[fx.Node]:
    return [n for n in graph.layer_nodes() if graph.layers[str(n.target)] in width.layers]


@dataclass(frozen=True)
class _Reader:
    """A layer that reads channels of a width: from the place ``begin`` of its inputs on."""

    node: fx.Node
    begin: int
    repeat: int


def _readers(graph: ModuleGraph, width: Width) -> list[_Reader]:
    found = []
    for node in graph.layer_nodes():
        if _depthwise(graph, node):
            continue
        begin = 0
        for part in graph.input_parts(node):
            if graph.widths[part.width] is width:
                found.append(_Reader(node, begin, part.repeat))
            begin += graph.widths[part.width].size * part.repeat
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


def _columns(graph: ModuleGraph, reader: _Reader, size: int) -> Tensor:
    """Weights of each of ``size`` input channels, after batch norm: (size, repeat, weights)."""
    layer = graph.modules[graph.layers[str(reader.node.target)]]
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    columns = _rows(graph, reader.node).view_as(layer.weight).transpose(0, 1).flatten(1)
    columns = columns[reader.begin : reader.begin + size * reader.repeat]
    return columns.unflatten(0, (size, reader.repeat))


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
    for reader in readers:
        layer = graph.modules[graph.layers[str(reader.node.target)]]
        assert isinstance(layer, (nn.Conv2d, nn.Linear))
        places = (order[:, None] * reader.repeat + torch.arange(reader.repeat)).flatten()
        own = layer.weight[:, reader.begin : reader.begin + len(places)]
        own.copy_(own[:, places].clone())


def _take(module: nn.Module, names: tuple[str, ...], order: Tensor) -> None:
    for name in names:
        value = getattr(module, name)
        if value is not None:
            value.copy_(value[order].clone())
