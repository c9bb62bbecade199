"""The parts of a language model's ONNX that a low-bit runtime runs as one operation each.

Embedding and attention are a dozen ONNX operators each, and another dozen in the form that takes
keys and values from a cache. A note of the exporter says which layers stand around them; what lies
between is cut out and becomes one node, ``embed`` or ``attend``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node
from search_spaces.plan import NetworkPlan

NOTE = "decoder"
"""Key of the note in a file's metadata."""

FREE = "free"
"""Input of a file for one token: how many places of the window are left after it."""

_ON_THE_WAY = ("DequantizeLinear", "Reshape")


@dataclass(frozen=True)
class Region:
    """Nodes of an ONNX graph that become one.

    Attributes:
        nodes: their indices.
        output: the tensor that they compute.
        entry: of the packed graph, without names of tensors that are known only when it is packed.
        inputs: tensors of the ONNX graph that it reads.
        tables: float arrays that it reads, by their key in the entry.
        grid: of the codes that it gives; None where it gives floats.
    """

    nodes: frozenset[int]
    output: str
    entry: Mapping[str, Any]
    inputs: tuple[str, ...]
    tables: Mapping[str, np.ndarray]
    grid: Mapping[str, Any] | None = None


def decoder_heads(plan: NetworkPlan) -> list[tuple[str, int, int]]:
    """Return name, heads and width of a head of each block of a language model.

    Nothing of a decoder that attends to an encoder, too: it keeps more than a past.
    """
    return [
        (block.name, item.heads, item.channels // item.heads)
        for block in plan.blocks
        if block.kind == "decoder"
        for item in block.operators
        if item.kind == "causal_attention"
    ]


def decoder_note(plan: NetworkPlan) -> dict[str, str]:
    """Return what the exporter notes of a language model; nothing of other networks."""
    blocks = [
        {"name": name, "heads": heads, "width": width} for name, heads, width in decoder_heads(plan)
    ]
    if not blocks:
        return {}
    return {NOTE: json.dumps({"length": plan.input_shape[2], "blocks": blocks})}


def decoder_regions(graph: Graph) -> list[Region]:
    """Return the regions of a language model's file; none of other files.

    Raises:
        InputError: the note does not fit the graph.
    """
    if NOTE not in graph.metadata:
        return []
    try:
        return _Finder(graph).regions(json.loads(graph.metadata[NOTE]))
    except (KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"the file's note {NOTE!r} does not fit its graph ({error!r}); export the model again"
        ) from error


class _Finder:
    def __init__(self, graph: Graph) -> None:
        self._graph, self._maker = graph, graph.makers.__getitem__
        self._places = {name: i for i, node in enumerate(graph.nodes) for name in node.outputs}
        self._names = {node.name: node for node in graph.nodes if node.name}
        self._token = graph.inputs[0]
        self._free = (FREE,) if FREE in graph.inputs else ()

    def regions(self, note: Mapping[str, Any]) -> list[Region]:
        """Return the embedding's region, then one for each attention."""
        found = [self._embedding(note)]
        found += [self._attention(block, note) for block in note["blocks"]]
        return found

    def _embedding(self, note: Mapping[str, Any]) -> Region:
        norm = next(node for node in self._graph.nodes if node.op == "LayerNormalization")
        output = norm.input(0)
        inside = self._closure(output, stop="")
        nodes = [self._graph.nodes[i] for i in sorted(inside)]
        tables = [
            array
            for node in nodes
            if node.op in ("Gather", "Add")
            for name in node.inputs
            if (array := self._graph.constant(name)) is not None and array.ndim == 2
        ]
        table, positions = tables
        if len(positions) != note["length"] or table.shape[1] != positions.shape[1]:
            raise ValueError(f"tables of shape {table.shape} and {positions.shape}")
        return Region(
            inside,
            output,
            {"op": "embed"},
            (self._token, *self._free),
            {"table": table, "positions": positions},
        )

    def _attention(self, block: Mapping[str, Any], note: Mapping[str, Any]) -> Region:
        start = self._joint(self._names[f"{block['name']}.qkv"])
        output, grid = self._before(self._names[f"{block['name']}.project"].input(0))
        form = {"heads": block["heads"], "width": block["width"], "length": note["length"]}
        return Region(
            self._closure(output, stop=start),
            output,
            {"op": "attend", **form},
            (start, *self._free),
            {},
            grid,
        )

    def _joint(self, layer: Node) -> str:
        """Return the output of a layer with its bias."""
        users = self._graph.users.get(layer.output, ())
        if len(users) == 1 and users[0].op == "Add":
            other = next(name for name in users[0].inputs if name != layer.output)
            if self._graph.is_constant(other):
                return users[0].output
        return layer.output

    def _before(self, name: str) -> tuple[str, dict[str, Any] | None]:
        """Return an attention's output with its heads side by side, and the grid of its codes.

        ``name``: what the layer after it is given. The exporter quantises before it moves heads.
        """
        node = self._maker(name)
        while not (node.op == "Reshape" and self._maker(node.input(0)).op == "Transpose"):
            if node.op not in _ON_THE_WAY:
                raise ValueError(f"{node.op} before {name}")
            node = self._maker(node.input(0))
        above = self._maker(self._maker(node.input(0)).input(0))
        most = None
        if above.op == "Clip":
            most, above = self._graph.constants[above.input(2)], self._maker(above.input(0))
        if above.op != "QuantizeLinear":
            return node.output, None
        grid = self._graph.grids[above.output].described()
        if most is not None:
            grid["bits"] = (int(most) + 1).bit_length() - 1
        return node.output, grid

    def _closure(self, name: str, *, stop: str) -> frozenset[int]:
        """Return the nodes that ``name`` follows from, back to the tensor ``stop``."""
        inside: set[int] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            index = self._places.get(one)
            if one == stop or index is None or index in inside:
                continue
            inside.add(index)
            waiting += self._graph.nodes[index].inputs
        return frozenset(inside)
