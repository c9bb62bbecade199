"""Ranges of channels made alike by what flows through them, so that one grid serves them all.

A tensor's codes have one step, which its widest channel sets; a channel of a tenth of its range has
a tenth of the levels. Where nothing but sums, ReLUs, pools and views lies between the layers that
make a tensor and those that read it, a channel may be divided by any positive number in all that
make it and multiplied by it in all that read it (Nagel et al., ICCV 2019, equation 6, for chains of
two layers). Weights have a step for each output channel, so making costs nothing; reading widens
the range of a row of weights. The factor is that of SmoothQuant (Xiao et al., ICML 2023, equation
4): the range of the activations to a power over that of the weights to the rest.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, fx, nn

from supernet.ptq.equalize import (
    axis_after,
    depthwise,
    divide_outputs,
    inputs_of,
    multiply_inputs,
)
from supernet.ptq.graph import FloatGraph, Recorded, shape_of
from supernet.reading.operations import kind_of

_LARGEST = 1e4
_SMALLEST = 1e-8


@dataclass
class Stream:
    """Tensors whose channels must be scaled together.

    Attributes:
        size: channels.
        makers: layers that it comes from.
        readers: layers that read it.
        tensors: node -> where its channels are.
    """

    size: int
    makers: list[str] = field(default_factory=list)
    readers: list[str] = field(default_factory=list)
    tensors: dict[fx.Node, int] = field(default_factory=dict)


def streams(graph: FloatGraph) -> list[Stream]:
    """Return the streams of a network whose channels may be scaled."""
    finder = _Finder(graph)
    return finder.found()


@torch.no_grad()
def balance(graph: FloatGraph, images: Tensor, *, strength: float) -> int:
    """Make the ranges of the channels of every stream alike, in place; outputs stay the same.

    Args:
        graph: batch norms folded.
        images: (batch, ...), to see ranges on.
        strength: 1 makes the ranges of activations equal, 0 those of the weights that read them.

    Returns:
        The number of streams.
    """
    found = streams(graph)
    recorded = Recorded(graph.module, images)
    for stream in found:
        values = {node: recorded.values[node] for node in stream.tensors}
        factor = _factor(graph, stream, values, strength)
        for name in stream.makers:
            divide_outputs(graph.layer(name), factor)
        for name in stream.readers:
            multiply_inputs(graph.layer(name), factor)
    return len(found)


def _factor(
    graph: FloatGraph, stream: Stream, values: Mapping[fx.Node, Tensor], strength: float
) -> Tensor:
    """Return what each channel is divided by, (channels,); their geometric mean is one."""
    width = torch.zeros(stream.size)
    for node, axis in stream.tensors.items():
        x = values[node].movedim(axis, 1)
        x = x.flatten(2) if x.dim() > 2 else x[:, :, None]
        # The mean of the images' extremes: one outlier does not decide.
        width = torch.maximum(width, x.abs().amax(2).mean(0))
    read = torch.zeros(stream.size)
    for name in stream.readers:
        weight = graph.layer(name).weight.detach()
        if depthwise(graph.layer(name)):
            # A row of its own: its step follows the factor.
            continue
        read = torch.maximum(read, weight.transpose(0, 1).flatten(1).abs().amax(1))
    factor = width.clamp(min=_SMALLEST).pow(strength)
    if bool((read > _SMALLEST).all()):
        factor = factor / read.pow(1 - strength)
    factor = torch.where(width > _SMALLEST, factor, torch.ones_like(factor))
    alive = width > _SMALLEST
    if not bool(alive.any()):
        return torch.ones_like(factor)
    factor = factor / factor[alive].log().mean().exp()
    factor = torch.where(alive, factor, torch.ones_like(factor))
    return factor.clamp(1 / _LARGEST, _LARGEST)


class _Finder:
    """Joins tensors whose channels are tied, and drops what anything else looks at."""

    def __init__(self, graph: FloatGraph) -> None:
        self.graph = graph
        self.names = {node: name for name, node in graph.layers.items()}
        self.parents: dict[fx.Node, fx.Node] = {}
        self.axes: dict[fx.Node, int] = {}
        self.closed: set[fx.Node] = set()

    def found(self) -> list[Stream]:
        """Return the groups that some layer makes and some layer reads."""
        for node in self.graph.module.graph.nodes:
            self._see(node)
        groups: dict[fx.Node, Stream] = {}
        for node, axis in self.axes.items():
            root = self._root(node)
            if root in {self._root(n) for n in self.closed}:
                continue
            stream = groups.setdefault(root, Stream(shape_of(node)[axis]))
            stream.tensors[node] = axis
            if node in self.names:
                stream.makers.append(self.names[node])
            stream.readers += [self.names[u] for u in node.users if u in self.names]
        return [s for s in groups.values() if s.makers and s.readers]

    def _see(self, node: fx.Node) -> None:
        if node in self.names:
            self._read_by_layer(node)
            layer = self.graph.layer(self.names[node])
            self._new(node, 1 if isinstance(layer, nn.Conv2d) else len(shape_of(node)) - 1)
            return
        tied = [n for n in node.all_input_nodes if n in self.axes]
        if not tied:
            return
        kind = kind_of(node)
        if kind.arithmetic and kind.homogeneous and self._sums(node, tied):
            self._new(node, self.axes[tied[0]])
            for other in tied:
                self._join(node, other)
            return
        axis = axis_after(tied[0], node, self.axes[tied[0]]) if len(tied) == 1 else None
        if axis is not None and node.op == "call_function":
            self._new(node, axis)
            self._join(node, tied[0])
            return
        self.closed.update(tied)

    def _sums(self, node: fx.Node, tied: list[fx.Node]) -> bool:
        """Whether a node adds whole tensors of one shape, all of them followed."""
        both = [a for a in node.args if isinstance(a, fx.Node)]
        shapes = {shape_of(n) for n in both}
        return (
            len(both) == 2
            and set(both) == set(tied)
            and len(shapes) == 1
            and len({self.axes[n] for n in both}) == 1
        )

    def _read_by_layer(self, node: fx.Node) -> None:
        source = node.all_input_nodes[0]
        if source not in self.axes:
            return
        layer = self.graph.layer(self.names[node])
        needed = 1 if isinstance(layer, nn.Conv2d) else len(shape_of(source)) - 1
        size = shape_of(source)[self.axes[source]]
        if self.axes[source] != needed or inputs_of(layer) != size:
            self.closed.add(source)

    def _new(self, node: fx.Node, axis: int) -> None:
        self.parents[node], self.axes[node] = node, axis

    def _root(self, node: fx.Node) -> fx.Node:
        while self.parents[node] is not node:
            node = self.parents[node]
        return node

    def _join(self, one: fx.Node, other: fx.Node) -> None:
        self.parents[self._root(one)] = self._root(other)
