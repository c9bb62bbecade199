"""The parts of a language model's ONNX that a low-bit runtime runs as one operation each.

Embedding and attention are a dozen ONNX operators each, and another dozen in the form that takes
keys and values from a cache. A note of the exporter says which layers stand around them; what lies
between is cut out and becomes one node, ``embed`` or ``attend``.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.plan import NetworkPlan

if TYPE_CHECKING:
    import onnx

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
    """Return name, heads and width of a head of each block with a causal attention."""
    return [
        (block.name, item.heads, item.channels // item.heads)
        for block in plan.blocks
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


def decoder_regions(
    model: onnx.ModelProto, constants: Callable[[str], np.ndarray | None]
) -> list[Region]:
    """Return the regions of a language model's file; none of other files.

    Args:
        model: the file.
        constants: gives a constant tensor by its name.

    Raises:
        InputError: the note does not fit the graph.
    """
    notes = {entry.key: entry.value for entry in model.metadata_props}
    if NOTE not in notes:
        return []
    try:
        return _Finder(model.graph, constants).regions(json.loads(notes[NOTE]))
    except (KeyError, IndexError, StopIteration, TypeError, ValueError) as error:
        raise InputError(
            f"the file's note {NOTE!r} does not fit its graph ({error!r}); export the model again"
        ) from error


class _Finder:
    def __init__(
        self, graph: onnx.GraphProto, constants: Callable[[str], np.ndarray | None]
    ) -> None:
        self._graph, self._constant = graph, constants
        self._makers = {name: i for i, node in enumerate(graph.node) for name in node.output}
        self._names = {node.name: node for node in graph.node if node.name}
        given = [value.name for value in graph.input]
        self._token = given[0]
        self._free = (FREE,) if FREE in given else ()

    def regions(self, note: Mapping[str, Any]) -> list[Region]:
        found = [self._embedding(note)]
        found += [self._attention(block, note) for block in note["blocks"]]
        return found

    def _embedding(self, note: Mapping[str, Any]) -> Region:
        norm = next(node for node in self._graph.node if node.op_type == "LayerNormalization")
        output = norm.input[0]
        inside = self._closure(output, stop="")
        nodes = [self._graph.node[i] for i in sorted(inside)]
        tables = [
            array
            for node in nodes
            if node.op_type in ("Gather", "Add")
            for name in node.input
            if (array := self._constant(name)) is not None and array.ndim == 2
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
        output, grid = self._before(self._names[f"{block['name']}.project"].input[0])
        form = {"heads": block["heads"], "width": block["width"], "length": note["length"]}
        return Region(
            self._closure(output, stop=start),
            output,
            {"op": "attend", **form},
            (start, *self._free),
            {},
            grid,
        )

    def _joint(self, layer: onnx.NodeProto) -> str:
        """Return the output of a layer with its bias."""
        out = str(layer.output[0])
        users = [node for node in self._graph.node if out in node.input]
        if len(users) == 1 and users[0].op_type == "Add":
            other = next(name for name in users[0].input if name != out)
            if self._constant(other) is not None:
                return str(users[0].output[0])
        return out

    def _before(self, name: str) -> tuple[str, dict[str, Any] | None]:
        """Return an attention's output with its heads side by side, and the grid of its codes.

        ``name``: what the layer after it is given. The exporter quantises before it moves heads.
        """
        node = self._maker(name)
        while not (node.op_type == "Reshape" and self._maker(node.input[0]).op_type == "Transpose"):
            if node.op_type not in _ON_THE_WAY:
                raise ValueError(f"{node.op_type} before {name}")
            node = self._maker(node.input[0])
        above = self._maker(self._maker(node.input[0]).input[0])
        most = None
        if above.op_type == "Clip":
            most, above = self._constant(above.input[2]), self._maker(above.input[0])
        grid = None
        if above.op_type == "QuantizeLinear":
            scale, zero = (self._constant(one) for one in above.input[1:3])
            assert scale is not None and zero is not None
            codes = 2 ** (16 if zero.dtype == np.uint16 else 8) if most is None else int(most) + 1
            grid = {
                "scale": float(np.float32(scale.item())),
                "zero_point": int(zero.item()),
                "bits": codes.bit_length() - 1,
            }
        return str(node.output[0]), grid

    def _maker(self, name: str) -> onnx.NodeProto:
        return self._graph.node[self._makers[name]]

    def _closure(self, name: str, *, stop: str) -> frozenset[int]:
        """Return the nodes that ``name`` follows from, back to the tensor ``stop``."""
        inside: set[int] = set()
        waiting = [name]
        while waiting:
            one = waiting.pop()
            index = self._makers.get(one)
            if one == stop or index is None or index in inside:
                continue
            inside.add(index)
            waiting += self._graph.node[index].input
        return frozenset(inside)
