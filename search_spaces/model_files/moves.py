"""Operations that only move values, put after the quantiser that follows them.

What a network pads, cuts, joins or rearranges in floats and then quantises is the same codes when
it is quantised first: rounding does not ask where a number stands, and the zero that is padded has
a code. So what moves floats in an ONNX file moves codes in a packed model, and layers before it
give codes at once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node

MOVES = ("Pad", "Slice", "DepthToSpace", "SpaceToDepth")
"""Operators of one tensor that packed models have on codes, beside those that rearrange."""

_PERMUTING = ("Slice", "DepthToSpace", "SpaceToDepth")
"""Those that make no zeros: a function of each number may as well come first."""

_OF_NUMBERS = (
    "Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Tanh", "Gelu", "Swish", "LeakyRelu",
    "Elu", "Celu", "Selu", "Softplus", "Mish", "Softsign", "Abs", "Neg",
)  # fmt: skip
"""Operators that compute each number from one number, and else read constants."""

_OF_IMAGES = (
    "Conv", "Relu", "Clip", "HardSwish", "MaxPool", "Concat", "QuantizeLinear", "DequantizeLinear",
)  # fmt: skip
"""What makes a tensor whose parts are better quantised together, if they are no codes yet.

A layer gives codes at once. Queries, keys and values of a transformer have a grid each, and are cut
apart first.
"""


def quantised_first(graph: Graph) -> Graph:
    """Return a graph whose moves follow quantisers where they led to one before."""
    return _Mover(graph).run()


def move_entry(node: Node, constants: Mapping[str, np.ndarray]) -> dict[str, Any] | None:
    """Return operation and parameters of one of ``MOVES``, as packed models hold it.

    Returns:
        None of one that also makes values, or whose parameters are computed.
    """
    values = [constants.get(name) if name else None for name in node.inputs[1:]]
    if any(name and value is None for name, value in zip(node.inputs[1:], values, strict=True)):
        return None
    given = [None if v is None else np.ravel(v).tolist() for v in values] + [None] * 4
    a = node.attributes
    if node.op in ("DepthToSpace", "SpaceToDepth"):
        op = "depth_to_space" if node.op == "DepthToSpace" else "space_to_depth"
        return {"op": op, "size": int(a["blocksize"]), "mode": a.get("mode", "DCR")}
    first, second, third, fourth = given[:4]
    if node.op == "Slice":
        if first is None or second is None:
            return None
        axes = list(range(len(first))) if third is None else third
        steps = [1] * len(first) if fourth is None else fourth
        return {"op": "slice", "starts": first, "ends": second, "axes": axes, "steps": steps}
    mode = a.get("mode", "constant")
    if first is None or (mode == "constant" and any(second or ())):
        return None
    axes = list(range(len(first) // 2)) if third is None else third
    return {"op": "pad", "pads": first, "axes": axes, "mode": mode}


def with_shuffles(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return nodes of a packed model whose channels or pixels are shuffled by one operation.

    Args:
        nodes: of a packed model, in order; there it is three: reshape, transpose, reshape.
    """
    readers: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        for name in node["inputs"]:
            readers.setdefault(name, []).append(node)
    gone: set[int] = set()
    found = []
    for node in nodes:
        chain = [node]
        while len(chain) < 3 and len(users := readers.get(chain[-1]["output"], [])) == 1:
            chain += users
        if id(node) in gone:
            continue
        entry = _shuffled(chain) or _spread(chain)
        if entry is None:
            found.append(node)
            continue
        gone |= {id(one) for one in chain[1:]}
        ends = {"inputs": node["inputs"], "output": chain[2]["output"]}
        found.append({"op": entry["op"], **ends, **entry})
    return found


def _shuffled(chain: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how three operations mix the channels of groups; None where they do not."""
    first, order, second = _reordered(chain)
    if order != [0, 2, 1, 3, 4] or len(first) != 5 or len(second) != 4 or min(first[1:]) < 1:
        return None
    kept = [first[0], first[1] * first[2], *first[3:]] == second
    return {"op": "shuffle", "groups": int(first[1])} if kept else None


def _spread(chain: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return how three operations make blocks of pixels of channels; None where they do not."""
    first, order, second = _reordered(chain)
    if order != [0, 1, 4, 2, 5, 3] or len(first) != 6 or len(second) != 4 or min(first[1:]) < 1:
        return None
    outer, inner, size, across, height, width = first
    kept = [outer, inner, height * size, width * size] == second and size == across
    return {"op": "depth_to_space", "size": int(size), "mode": "CRD"} if kept else None


def _reordered(chain: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int], list[int]]:
    """Return shape, order and shape of axes taken apart and joined; empty of other operations."""
    if [node["op"] for node in chain] != ["reshape", "transpose", "reshape"]:
        return [], [], []
    first, second = chain[0]["shape"], chain[2]["shape"]
    return (first, chain[1]["order"], second) if first[0] in (-1, 0, 1) else ([], [], [])


def without_pads(nodes: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return nodes of a packed model whose zeros around images are part of convolutions.

    Args:
        nodes: of a packed model, in order.
    """
    readers: dict[str, list[dict[str, Any]]] = {}
    for node in nodes:
        for name in node["inputs"]:
            readers.setdefault(name, []).append(node)
    kept = []
    for node in nodes:
        sides = _around(node) if node["op"] == "pad" else None
        users = readers.get(node["output"], [])
        if sides is None or not users or not all(_pads_itself(user) for user in users):
            kept.append(node)
            continue
        for user in users:
            user["inputs"] = [node["inputs"][0]]
            user["pads"] = [a + b for a, b in zip(user["pads"], sides, strict=True)]
            readers.setdefault(node["inputs"][0], []).append(user)
    return kept


def _around(pad: Mapping[str, Any]) -> list[int] | None:
    """Return top, left, bottom and right of a pad with zeros around images; None of others."""
    half = len(pad["pads"]) // 2
    sides = {2: [0, 0], 3: [0, 0]}
    for i, axis in enumerate(pad["axes"]):
        ends = pad["pads"][i], pad["pads"][i + half]
        if axis < 0 or (axis < 2 and any(ends)) or axis > 3 or min(ends) < 0:
            return None
        if axis >= 2:
            sides[axis] = list(ends)
    if pad["mode"] != "constant":
        return None
    return [sides[2][0], sides[3][0], sides[2][1], sides[3][1]]


def _pads_itself(node: Mapping[str, Any]) -> bool:
    return node["op"] == "conv" and node["weights"]["fill"] is not None and len(node["pads"]) == 4


class _Mover:
    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.constants = dict(graph.constants)
        self.nodes = [part for node in graph.nodes for part in self._parts(node)]
        self.grids = dict(graph.grids)
        self._made: dict[tuple[Any, ...], str] = {}
        self._count = 0
        for node in self.nodes:
            if node.op == "QuantizeLinear":
                chain = self._chain(node)
                self._made[_key(node.input(0), chain)] = chain[-1].output

    def run(self) -> Graph:
        """Move until nothing moves any more."""
        while True:
            if (place := self._found()) is not None:
                self._move(place)
            elif (place := self._before_a_function()) is not None:
                self._swap(place)
            else:
                break
        nodes = self._ordered()
        return replace(self.graph, nodes=nodes, grids=self.grids, constants=self.constants)

    def _parts(self, node: Node) -> list[Node]:
        """Return a node, or for a Split what cuts each of its parts."""
        maker = self.graph.makers.get(node.input(0))
        if node.op != "Split" or (maker is not None and maker.op not in _OF_IMAGES):
            return [node]
        sizes = self.constants.get(node.input(1))
        if sizes is None or self.graph.is_constant(node.input(0)):
            return [node]
        parts, begin, axis = [], 0, node.attributes.get("axis", 0)
        for out, size in zip(node.outputs, sizes.tolist(), strict=True):
            names = [f"{out}.{key}" for key in ("starts", "ends", "axes")]
            for name, number in zip(names, (begin, begin + size, axis), strict=True):
                self.constants[name] = np.array([number])
            parts.append(Node("Slice", (node.input(0), *names), (out,)))
            begin += size
        return parts

    def _ordered(self) -> tuple[Node, ...]:
        """Return the nodes each after what it reads, else in the order that they have."""
        made = {name for node in self.nodes for name in node.outputs}
        waiting, known, found = list(self.nodes), set(self.graph.inputs), []
        while waiting:
            later = []
            for node in waiting:
                if all(name in known or name not in made for name in node.inputs):
                    found.append(node)
                    known.update(node.outputs)
                else:
                    later.append(node)
            if len(later) == len(waiting):
                raise InputError(f"{later[0].output}: the graph has a cycle; it is no ONNX model")
            waiting = later
        return tuple(found)

    def _chain(self, quantiser: Node) -> list[Node]:
        """Return a quantiser, and the Clip that alone follows it: codes cut to fewer bits."""
        readers = self._readers(quantiser.output)
        if len(readers) == 1 and self.nodes[readers[0]].op == "Clip":
            return [quantiser, self.nodes[readers[0]]]
        return [quantiser]

    def _readers(self, name: str) -> list[int]:
        return [i for i, node in enumerate(self.nodes) if name in node.inputs]

    def _found(self) -> int | None:
        """Return the place of a move that a quantiser alone reads."""
        for place, node in enumerate(self.nodes):
            if not self._moves(node) or node.output in self.graph.outputs:
                continue
            readers = self._readers(node.output)
            if len(readers) == 1 and self.nodes[readers[0]].op == "QuantizeLinear":
                grid = self.grids.get(self.nodes[readers[0]].output)
                if grid is not None and grid.scale.size == 1:
                    return place
        return None

    def _before_a_function(self) -> int | None:
        """Return the place of a move that alone a function of numbers reads, and it a quantiser."""
        for place, node in enumerate(self.nodes):
            if node.op not in _PERMUTING or not self._moves(node) or self._leaves(node.output):
                continue
            readers = [self.nodes[i] for i in self._readers(node.output)]
            if len(readers) != 1 or readers[0].op not in _OF_NUMBERS:
                continue
            if len(readers[0].outputs) != 1 or self._leaves(out := readers[0].output):
                continue
            if [self.nodes[i].op for i in self._readers(out)] == ["QuantizeLinear"]:
                return place
        return None

    def _leaves(self, name: str) -> bool:
        return name in self.graph.outputs

    def _swap(self, place: int) -> None:
        """Compute a function before the move that it read."""
        move, other = self.nodes[place], self._readers(self.nodes[place].output)[0]
        function = self.nodes[other]
        between = f"{function.output}.before"
        self.nodes[place] = replace(
            function, inputs=(move.input(0), *function.inputs[1:]), outputs=(between,)
        )
        self.nodes[other] = replace(
            move, inputs=(between, *move.inputs[1:]), outputs=function.outputs
        )

    def _moves(self, node: Node) -> bool:
        if node.op == "Concat":
            return not any(self.graph.is_constant(name) for name in node.inputs)
        if node.op not in MOVES or self.graph.is_constant(node.input(0)):
            return False
        return move_entry(node, self.constants) is not None

    def _move(self, place: int) -> None:
        """Quantise what a move takes, and give its users the moved codes."""
        node = self.nodes[place]
        chain = self._chain(self.nodes[self._readers(node.output)[0]])
        count = len(node.inputs) if node.op == "Concat" else 1
        self._made.pop(_key(node.output, chain), None)
        before: list[Node] = []
        codes = [self._quantised(name, chain, before) for name in node.inputs[:count]]
        moved = replace(node, inputs=(*codes, *node.inputs[count:]), outputs=(chain[-1].output,))
        for old in chain:
            self.grids.pop(old.output, None)
        gone = {node.output, *(old.output for old in chain)}
        begin, rest = self.nodes[:place], self.nodes[place + 1 :]
        self.nodes = [*begin, *before, moved, *(n for n in rest if n.output not in gone)]

    def _quantised(self, source: str, chain: Sequence[Node], before: list[Node]) -> str:
        """Return codes of ``source`` by the nodes of ``chain``; equal ones are made once."""
        key = _key(source, chain)
        if key not in self._made:
            name = source
            for node in chain:
                self._count += 1
                out = f"{source}.{self._count}.{node.op}"
                before.append(replace(node, inputs=(name, *node.inputs[1:]), outputs=(out,)))
                if node.output in self.grids:
                    self.grids[out] = self.grids[node.output]
                name = out
            self._made[key] = name
        return self._made[key]


def _key(source: str, chain: Sequence[Node]) -> tuple[Any, ...]:
    return source, *(node.inputs[1:] for node in chain)
