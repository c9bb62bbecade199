"""A plain torch module as a graph of layers, with its widths and its quantisation points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, fx, nn

from supernet.own_model.elements import Element, find_elements
from supernet.own_model.points import Points
from supernet.own_model.traced import TracedModule
from supernet.own_model.widths import Part, Width, Widths
from supernet.reading.operations import kind_of, packet


class ModuleGraph(TracedModule):
    """The graph of a module.

    Args:
        module, input_shape, sequences, sides, read: see
            :class:`~supernet.own_model.traced.TracedModule`, whose attributes it has.

    Attributes:
        elements: of the sequences, those that can be left out.
        widths: every width of :class:`~supernet.own_model.widths.Widths`.
        points, sources: see :class:`~supernet.own_model.points.Points`.
        functions: role -> node of a function of numbers that no quantiser takes over.

    Raises:
        InputError: something that cannot be read or quantised; the message names it.
    """

    def __init__(
        self,
        module: nn.Module,
        input_shape: tuple[int, ...],
        *,
        sequences: Sequence[str] = (),
        sides: Sequence[int] = (),
        read: fx.GraphModule | None = None,
    ) -> None:
        super().__init__(module, input_shape, sequences=sequences, sides=sides, read=read)
        elements = find_elements(self)
        self._widths = Widths(self, elements)
        placed = Points(self, elements)
        self.points, self.sources = placed.points, placed.sources
        self.elements: list[Element] = placed.elements
        self.functions = {
            f"function_{node.name}": node
            for node in self.graph.nodes
            if kind_of(node).pointwise and packet(node) != "relu"
        }
        self.graph.lint()

    @property
    def widths(self) -> list[Width]:
        """Every width that was found."""
        return self._widths.all

    def output_width(self, node: fx.Node) -> int | None:
        """Return the index of the width of a node's channels, if they are tracked."""
        return self._widths.output_width(node)

    def output_parts(self, node: fx.Node) -> tuple[Part, ...]:
        """Return the widths of a node's channels, in order; none where they are not known."""
        return self._widths.output_parts(node)

    def input_parts(self, node: fx.Node) -> tuple[Part, ...]:
        """Return the widths of what goes into a layer, in order; none where they are not known."""
        return self._widths.input_parts(node)

    def value_axis(self, node: fx.Node) -> int | None:
        """Return the axis of a constant along which it has a number for each channel, if one."""
        return self._widths.value_axis(node)

    def tie(self, names: Sequence[str]) -> None:
        """Give the layers called ``names`` one width.

        Raises:
            InputError: their channels differ in number.
        """
        self._widths.tie(names)

    def free_widths(self) -> list[Width]:
        """Return every width that layers have, each once."""
        return self._widths.free_widths()

    def run(self, x: Tensor, ops: Mapping[str, Any], residual: bool = False) -> Tensor:
        """Run the graph with the operations ``ops`` by role; a dataflow.

        ``x``: (batch, channels, side, side) -> (batch, outputs).
        """
        left_out = {(e.sequence, e.position): e for e in self.elements if e.marker not in ops}
        values: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            # Of elements within each other the outermost counts, which may end with the same node.
            gone = next((left_out[p] for p in node.meta["scope"] if p in left_out), None)
            if gone is not None:
                if gone.result is node:
                    values[node] = values[gone.source]
                continue
            if node.op == "placeholder":
                # Signals may come as images one pixel high.
                values[node] = x.flatten(2) if len(self.input_shape) == 2 else x
            elif node.op == "output":
                return fx.node.map_arg(node.args[0], values.__getitem__)
            else:
                args = fx.node.map_arg(node.args, values.__getitem__)
                kwargs = fx.node.map_arg(node.kwargs, values.__getitem__)
                if node.op == "call_module":
                    values[node] = ops[node.target](*args)
                elif node.op == "get_attr":
                    constant = self._values[node.target]
                    values[node] = constant.to(x.device) if isinstance(x, Tensor) else constant
                else:
                    values[node] = node.target(*args, **kwargs)
        raise AssertionError("a traced graph ends with its output")
