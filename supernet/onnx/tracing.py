"""A network traced for its export, and the values that its nodes carry."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from torch import fx, nn

from search_spaces.errors import InputError
from supernet.onnx.graph import View
from supernet.onnx.operators import TRACED_BATCH
from supernet.plain import PlainLayer, Source


class LayerTracer(fx.Tracer):
    """Traces a network down to its layers, which are exported as a whole."""

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        """Whether ``m`` is one of the layers."""
        return isinstance(m, (PlainLayer, Source))


class Traced:
    """A network as a graph of operations, with their shapes.

    Args:
        network: to be traced.
        inputs: shapes of what it is called with, without the batch.

    Raises:
        InputError: what it does depends on values of its tensors.
    """

    def __init__(self, network: nn.Module, inputs: Sequence[tuple[int, ...]]) -> None:
        self._network, self._inputs = network, inputs
        try:
            self._graph = LayerTracer().trace(network)
        except (fx.proxy.TraceError, TypeError) as error:
            raise InputError(
                f"the dataflow of a block depends on values of its tensors and cannot be "
                f"exported: {error}"
            ) from error
        self._patterns: dict[fx.Node, tuple[int | None, ...]] = {}
        self._values: dict[fx.Node, Any] = {}
        self._shapes_known = False

    @property
    def nodes(self) -> Any:
        """The operations in order of execution."""
        return self._graph.nodes

    def pattern(self, node: fx.Node) -> tuple[int | None, ...]:
        """Return a node's shape, with None for what depends on the size of the batch."""
        self.propagate()
        return self._patterns[node]

    def examples(self) -> dict[fx.Node, Any]:
        """Return the values of every node for zeros, of the traced batch."""
        if not self._values:
            module = fx.GraphModule(self._network, self._graph)
            kept = self._values

            class Keep(fx.Interpreter):
                def run_node(self, n: fx.Node) -> Any:
                    kept[n] = super().run_node(n)
                    return kept[n]

            runner = Keep(module, garbage_collect_values=False, graph=self._graph)
            runner.run(*self._zeros(TRACED_BATCH))
        return self._values

    def propagate(self) -> None:
        """Note the shape of every node in its ``meta``, for :data:`TRACED_BATCH` examples."""
        if self._shapes_known:
            return
        from torch.fx.passes.shape_prop import ShapeProp

        module = fx.GraphModule(self._network, self._graph)
        shapes: list[dict[fx.Node, tuple[int, ...]]] = []
        for batch in (TRACED_BATCH + 1, TRACED_BATCH):
            ShapeProp(module).propagate(*self._zeros(batch))
            shapes.append(
                {
                    own: tuple(copied.meta["tensor_meta"].shape)
                    for own, copied in zip(self._graph.nodes, module.graph.nodes, strict=True)
                    if hasattr(copied.meta.get("tensor_meta"), "shape")
                }
            )
        for own, copied in zip(self._graph.nodes, module.graph.nodes, strict=True):
            own.meta["tensor_meta"] = copied.meta.get("tensor_meta")
        more, traced = shapes
        for node, shape in traced.items():
            other = more.get(node, shape)
            self._patterns[node] = tuple(
                a if a == b else None for a, b in zip(shape, other, strict=True)
            )
        self._shapes_known = True

    def _zeros(self, batch: int) -> list[torch.Tensor]:
        return [torch.zeros(batch, *shape) for shape in self._inputs]


def reshaped(shape: tuple[int, ...]) -> View:
    """Return a view of a value that has ``shape``."""
    return lambda graph, name: graph.node("Reshape", [name, graph.constant(np.array(shape))])


def flat(arguments: Any) -> Iterator[Any]:
    """Yield what arguments hold, those of lists and tuples one by one."""
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            yield from flat(argument)
        else:
            yield argument


def attribute_of(module: nn.Module, path: str) -> torch.Tensor:
    """Return the tensor at the dotted ``path`` of a module."""
    found: Any = module
    for part in path.split("."):
        found = getattr(found, part)
    assert isinstance(found, torch.Tensor)
    return found
