"""Cross-layer equalisation (Nagel et al., ICCV 2019, section 4.1).

Between two layers with a ReLU or nothing in between, a channel may be divided by any positive
number in the first and multiplied by it in the second. The number that makes both ranges equal
helps where one step serves all channels of a layer.
"""

from __future__ import annotations

from typing import TypeGuard

import torch
from torch import Tensor, fx, nn

from supernet.ptq.graph import LAYERS, FloatGraph, Layer, shape_of
from supernet.reading.capture import arguments
from supernet.reading.operations import kind_of, packet

_SMALLEST = 1e-8


@torch.no_grad()
def equalize(graph: FloatGraph, *, rounds: int = 20, tolerance: float = 1e-3) -> int:
    """Equalise the ranges of adjacent layers, in place; the network's outputs stay the same.

    Args:
        graph: batch norms folded.
        rounds: passes over all pairs at most.
        tolerance: a pass that changes no channel by more than this share is the last.

    Returns:
        The number of pairs.
    """
    pairs = equalizable_pairs(graph)
    for _ in range(rounds):
        change = 0.0
        for first, second in pairs:
            factor = _factor(graph.layer(first), graph.layer(second))
            change = max(change, (factor - 1).abs().max().item())
            divide_outputs(graph.layer(first), factor)
            multiply_inputs(graph.layer(second), factor)
        if change < tolerance:
            break
    return len(pairs)


def equalizable_pairs(graph: FloatGraph) -> list[tuple[str, str]]:
    """Return pairs of layer names whose channels correspond, in order of execution."""
    names = {node: name for name, node in graph.layers.items()}
    pairs = []
    for name, node in graph.layers.items():
        after = _next_layer(graph, node)
        if after is not None and inputs_of(graph.layer(names[after])) == outputs_of(
            graph.layer(name)
        ):
            pairs.append((name, names[after]))
    return pairs


def _next_layer(graph: FloatGraph, node: fx.Node) -> fx.Node | None:
    """Return the layer whose input channels are the output channels of ``node``."""
    conv = isinstance(graph.module.get_submodule(str(node.target)), nn.Conv2d)
    axis: int | None = 1 if conv else len(shape_of(node)) - 1
    while len(node.users) == 1 and axis is not None:
        before, node = node, next(iter(node.users))
        if node.op == "call_module":
            layer = graph.module.get_submodule(str(node.target))
            if not isinstance(layer, LAYERS):
                return None
            needed = 1 if isinstance(layer, nn.Conv2d) else len(shape_of(before)) - 1
            return node if axis == needed else None
        axis = axis_after(before, node, axis)
    return None


def axis_after(before: fx.Node, node: fx.Node, axis: int) -> int | None:
    """Return where the channels of ``before`` are in ``node``; None where they are mixed."""
    kind, source = kind_of(node), shape_of(before)
    if not kind.homogeneous or kind.arithmetic or node.args[0] is not before:
        return None
    if kind.pointwise:
        return axis
    if kind.spatial:
        # Pooling runs over the last two dimensions.
        return axis if axis == len(source) - 3 else None
    if packet(node) == "mean":
        given = arguments(node)
        dims = given.get("dim")
        if not dims:
            return None
        dims = {d % len(source) for d in dims}
        if axis in dims:
            return None
        return axis if given.get("keepdim") else axis - sum(d < axis for d in dims)
    return axis if shape_of(node)[: axis + 1] == source[: axis + 1] else None


def depthwise(layer: Layer) -> TypeGuard[nn.Conv2d]:
    """Whether a layer is a convolution in groups."""
    return isinstance(layer, nn.Conv2d) and layer.groups > 1


def outputs_of(layer: Layer) -> int:
    """Return the number of a layer's output channels."""
    return layer.weight.shape[0]


def inputs_of(layer: Layer) -> int:
    """Return the number of a layer's input channels; -1 for those between the extremes."""
    if depthwise(layer):
        # Grouped convolutions between the two extremes are left alone.
        return layer.in_channels if layer.groups == layer.in_channels else -1
    return layer.weight.shape[1]


def _factor(first: Layer, second: Layer) -> Tensor:
    top_first = first.weight.flatten(1).abs().amax(1)
    if depthwise(second):
        per_input = second.weight.flatten(1).abs().amax(1).view(second.in_channels, -1).amax(1)
    else:
        per_input = second.weight.transpose(0, 1).flatten(1).abs().amax(1)
    dead = (top_first < _SMALLEST) | (per_input < _SMALLEST)
    factor = (top_first.clamp(min=_SMALLEST) / per_input.clamp(min=_SMALLEST)).sqrt()
    return torch.where(dead, torch.ones_like(factor), factor)


def divide_outputs(layer: Layer, factor: Tensor) -> None:
    """Divide the channels that a layer makes, in place; ``factor``: (outputs,)."""
    layer.weight.div_(factor.view(-1, *[1] * (layer.weight.dim() - 1)))
    if layer.bias is not None:
        layer.bias.div_(factor)


def multiply_inputs(layer: Layer, factor: Tensor) -> None:
    """Multiply the weights of the channels that a layer reads, in place; ``factor``: (inputs,)."""
    if depthwise(layer):
        repeated = factor.repeat_interleave(layer.out_channels // layer.in_channels)
        layer.weight.mul_(repeated.view(-1, 1, 1, 1))
    else:
        layer.weight.mul_(factor.view(1, -1, *[1] * (layer.weight.dim() - 2)))
