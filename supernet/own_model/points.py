"""Where a module's tensors are quantised, so that integer runtimes never fall back to float."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import fx, nn

from supernet.own_model.elements import Element
from supernet.own_model.traced import TracedModule, role_of, source_of
from supernet.reading.operations import kind_of, packet


class Points:
    """The quantisation points of a module, which are added to its graph.

    Args:
        traced: the module; points become nodes of its graph.
        elements: of its sequences, those that can be left out.

    Attributes:
        points: role -> non-linearity before it.
        sources: role of a layer -> non-linearity before its input quantiser, see
            :class:`~search_spaces.plan.LayerPlan`.
        elements: with the points at which values enter and leave them.
    """

    def __init__(self, traced: TracedModule, elements: Sequence[Element]) -> None:
        self.traced = traced
        self.elements = list(elements)
        self.points: dict[str, str] = {}
        self.sources: dict[str, str] = {}
        self._place()

    def _place(self) -> None:
        for node in list(self.traced.layer_nodes()):
            # Codes are shuffled as well; behind the shuffle they would be quantised once more.
            if any(packet(user) == "pixel_shuffle" for user in node.users):
                self._insert_point(node)
        floats = self._float_additions()
        for node in list(self.traced.graph.nodes):
            if not kind_of(node).mixing or node in floats:
                continue
            tensors = self.traced.tensors(node)
            if kind_of(node).arithmetic and len(tensors) < 2:
                continue  # with a number, which no integer kernel takes
            for tensor in tensors:
                if not self._on_grid(tensor) and not self.traced.is_value(tensor):
                    self._insert_point(tensor)
        self._agree_on_points()
        for node in self.traced.layer_nodes():
            source = source_of(node)
            if self._on_grid(source):
                self.sources[role_of(node)] = "stream"
                continue
            self.sources[role_of(node)], before = self._activation(source)
            node.args = (before,)
        self._drop_unused()
        for node in list(self.traced.layer_nodes()):
            # Runtimes run a convolution on integers only if its output is quantised.
            plain = [
                user
                for user in node.users
                if user.op not in ("call_module", "output") or self.traced.is_group_norm(user)
            ]
            layer = self.traced.modules[self.traced.layers[str(node.target)]]
            if plain and isinstance(layer, nn.Conv2d):
                self._insert_point(node)

    def _drop_unused(self) -> None:
        self.traced.graph.eliminate_dead_code(lambda node: node.op in ("placeholder", "output"))

    def _agree_on_points(self) -> None:
        """Quantise what leaves each element of a sequence, if that of one of them is."""
        for sequence in {element.sequence for element in self.elements}:
            borders = [e.result for e in self.elements if e.sequence == sequence]
            if any(self._on_grid(node) for node in borders):
                for node in borders:
                    if not self._on_grid(node):
                        self._insert_point(node)

    def _insert_point(self, tensor: fx.Node) -> None:
        name, before = self._activation(tensor, border=True)
        role = f"point_{tensor.name}"
        with self.traced.graph.inserting_after(tensor):
            point = self.traced.graph.create_node("call_module", role, (before,), {})
        point.meta["scope"], point.meta["value"] = tensor.meta["scope"], tensor.name
        tensor.replace_all_uses_with(point, lambda user: user is not point)
        # The value that enters or leaves an element is its quantised one.
        self.elements = [
            replace(
                element,
                source=point if element.source is tensor else element.source,
                result=point if element.result is tensor else element.result,
            )
            for element in self.elements
        ]
        self.points[role] = name

    def _activation(self, tensor: fx.Node, *, border: bool = False) -> tuple[str, fx.Node]:
        """Return the non-linearity that a quantiser of ``tensor`` takes over, and its input.

        Args:
            tensor: the value to quantise.
            border: whether the quantiser may do so where the value enters or leaves an element
                that can be left out.
        """
        borders = {e.source for e in self.elements} | {e.result for e in self.elements}
        found = kind_of(tensor).activation
        if found and tensor.kwargs.get("approximate", "none") == "none":
            before = source_of(tensor)
            if (border or tensor not in borders) and not self._on_grid(before):
                return found, before
        return ("relu" if self._never_negative(tensor) else "none"), tensor

    def _on_grid(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return role_of(node) in self.points
        tensors = self.traced.tensors(node)
        return kind_of(node).grid and bool(tensors) and self._on_grid(tensors[0])

    def _never_negative(self, node: fx.Node) -> bool:
        if node.op == "call_module":
            return self.points.get(role_of(node)) in ("relu", "hsigmoid")
        tensors = self.traced.tensors(node)
        if kind_of(node).positive:
            return True
        return kind_of(node).sign and bool(tensors) and self._never_negative(tensors[0])

    def _float_additions(self) -> set[fx.Node]:
        """Return the additions of a float stream: those whose sums a layer norm reads."""
        found: set[fx.Node] = set()

        def reads_in_float(user: fx.Node) -> bool:
            operator = user.target in self.traced.operators and not self.traced.is_group_norm(user)
            return user in found or (operator and not self.traced.is_value(user))

        for node in reversed(list(self.traced.graph.nodes)):
            if packet(node) == "add" and any(map(reads_in_float, node.users)):
                found.add(node)
        return found
