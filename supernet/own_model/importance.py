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
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, fx, nn

from supernet.own_model.graph import ModuleGraph
from supernet.own_model.widths import Part, Width
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
        # Channels of one group stay together, in the order that they have.
        groups = channel_importance(graph, width).unflatten(0, (-1, width.unit)).sum(1)
        order = torch.argsort(groups, descending=True, stable=True)
        _reorder(graph, width, (order[:, None] * width.unit + torch.arange(width.unit)).flatten())
    return len(free)


@torch.no_grad()
def channel_importance(graph: ModuleGraph, width: Width) -> Tensor:
    """Return the importance of each channel of a width, (channels,), larger for what matters."""
    makers = _makers(graph, width)
    found = torch.zeros(width.size)
    readers = _readers(graph, width)
    for reader in readers:
        behind = _layers_behind(graph, reader.node)
        direct = [maker for maker in makers if maker.node in behind]
        weights = _columns(graph, reader, width.size).square().sum((1, 2))
        found += _variance(graph, direct, width.size) * weights
    return found if readers else _variance(graph, makers, width.size)


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


def _variance(graph: ModuleGraph, makers: list[_Span], size: int) -> Tensor:
    """Return the variance of each channel of the sum of what the layers make: (size,)."""
    parts = []
    for maker in makers:
        node = maker.node
        norm = graph.norms.get(str(node.target))
        if norm is None:
            found = _rows(graph, node).square().sum(1)
        else:
            batch_norm = graph.modules[norm]
            assert isinstance(batch_norm, nn.BatchNorm2d)
            gain, shift = batch_norm.weight.detach(), batch_norm.bias.detach()
            # What several layers make is added up before anything is cut off.
            cut = len(makers) == 1 and _is_activated(graph, node)
            found = _cut_variance(gain, shift) if cut else gain.square()
            found = found.repeat_interleave(len(_layer(graph, node).weight) // len(found))
        found = found[maker.begin : maker.begin + size * maker.repeat]
        parts.append(found.unflatten(0, (size, maker.repeat)).sum(1))
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


@dataclass(frozen=True)
class _Span:
    """Channels of a width among those of a layer or a norm: from the place ``begin`` on.

    Each of them takes ``repeat`` places.
    """

    node: fx.Node
    begin: int
    repeat: int


def _makers(graph: ModuleGraph, width: Width) -> list[_Span]:
    """Return where layers make the channels of a width."""
    nodes = graph.layer_nodes()
    return [span for n in nodes for span in _spans(graph, width, n, graph.output_parts(n))]


def _readers(graph: ModuleGraph, width: Width) -> list[_Span]:
    """Return where layers read them, but for those in groups, which are chosen as their outputs."""
    nodes = (node for node in graph.layer_nodes() if not _grouped(graph, node))
    return [span for n in nodes for span in _spans(graph, width, n, graph.input_parts(n))]


def _spans(
    graph: ModuleGraph, width: Width, node: fx.Node, parts: Sequence[Part]
) -> Iterator[_Span]:
    begin = 0
    for part in parts:
        if graph.widths[part.width] is width:
            yield _Span(node, begin, part.repeat)
        begin += graph.widths[part.width].size * part.repeat


def _layer(graph: ModuleGraph, node: fx.Node) -> nn.Conv2d | nn.Linear:
    layer = graph.modules[graph.layers[str(node.target)]]
    assert isinstance(layer, (nn.Conv2d, nn.Linear))
    return layer


def _grouped(graph: ModuleGraph, node: fx.Node) -> bool:
    layer = _layer(graph, node)
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def _rows(graph: ModuleGraph, node: fx.Node) -> Tensor:
    """Weights of each output channel as they are after batch norm: (out, weights)."""
    rows = _layer(graph, node).weight.detach().flatten(1)
    norm = graph.norms.get(str(node.target))
    if norm is None:
        return rows
    batch_norm = graph.modules[norm]
    assert isinstance(batch_norm, nn.BatchNorm2d)
    gain = affine_of(batch_norm)[0]
    return rows * gain.repeat_interleave(len(rows) // len(gain))[:, None]


def _columns(graph: ModuleGraph, reader: _Span, size: int) -> Tensor:
    """Weights of each of ``size`` input channels, after batch norm: (size, repeat, weights)."""
    weight = _layer(graph, reader.node).weight
    columns = _rows(graph, reader.node).view_as(weight).transpose(0, 1).flatten(1)
    columns = columns[reader.begin : reader.begin + size * reader.repeat]
    return columns.unflatten(0, (size, reader.repeat))


def _reorder(graph: ModuleGraph, width: Width, order: Tensor) -> None:
    readers = _readers(graph, width)
    for maker in _makers(graph, width):
        role, layer = str(maker.node.target), _layer(graph, maker.node)
        _take(layer, ("weight", "bias"), maker, order)
        if role in graph.norms:
            norm = graph.modules[graph.norms[role]]
            assert isinstance(norm, nn.BatchNorm2d)
            shared = len(layer.weight) // norm.num_features
            scales = _Span(maker.node, maker.begin // shared, maker.repeat // shared)
            _take(norm, ("weight", "bias", "running_mean", "running_var"), scales, order)
    for node in graph.operator_nodes():
        path = graph.operators[str(node.target)]
        for span in _spans(graph, width, node, graph.output_parts(node)):
            axis = graph.value_axis(node)
            if axis is None:
                _take(graph.modules[path], ("weight", "bias"), span, order)
            else:
                graph.reorder_value(path, axis, _places(span, order))
    for reader in readers:
        weight = _layer(graph, reader.node).weight
        places = _places(reader, order)
        weight[:, reader.begin : reader.begin + len(places)] = weight[:, places].clone()


def _places(span: _Span, order: Tensor) -> Tensor:
    return span.begin + (order[:, None] * span.repeat + torch.arange(span.repeat)).flatten()


def _take(module: nn.Module, names: tuple[str, ...], span: _Span, order: Tensor) -> None:
    places = _places(span, order)
    for name in names:
        value = getattr(module, name)
        if value is not None:
            value[span.begin : span.begin + len(places)] = value[places].clone()
