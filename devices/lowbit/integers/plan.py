"""A packed model being rewritten: what its tensors are, and what was added so far."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from devices.lowbit.floats import elementwise
from devices.lowbit.fusions import FUSED, Node, activation_after, readers_of
from devices.lowbit.integers.gates import Operand, of_codes, of_floats
from search_spaces.model_files.packed_model import PackedModel, fill_factors

VIEWS = ("Flatten", "Reshape")
MEANS, MAXIMA = ("GlobalAveragePool", "ReduceMean"), ("GlobalMaxPool", "ReduceMax")
"""ONNX's reductions of all pixels, and of the axes that are named."""

PERMUTING = ("Slice", "DepthToSpace", "SpaceToDepth")
"""Operators that move floats, of images, and make none."""

_SAME_AXES = (
    "requantize", "table", "steps", "slopes", "add", "gate", "resample", "concat", "values", "norm",
)  # fmt: skip

Form = Callable[["Plan", Node], "list[Node] | None"]
"""What computes the same as a node on integers; None where it does not know how."""


class Plan:
    """Nodes as they are added.

    Args:
        model: that is rewritten.

    Attributes:
        nodes: so far.
        makers: the node that makes a tensor.
        base: a tensor -> the one tensor of which it is a function, number by number.
        moved: floats that only stand elsewhere than before.
        grids, tensors: of the model, with those that were added; ``tensors`` has only these.
        kept: codes that kernels of layers make, with the function before them.
        readers: the nodes of the model that read a tensor.
    """

    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.base: dict[str, str] = {}
        self.moved: set[str] = set()
        self._moves: dict[str, str] = {}
        self._first: dict[str, str] = {}
        self.grids = dict(model.graph["grids"])
        self.tensors: dict[str, np.ndarray] = {}
        self.kept: set[str] = set()
        self.readers = readers_of(model.nodes())
        read = {name for node in model.nodes() for name in node["inputs"]}
        # They were run for nothing, and are still.
        self._unread = {node["output"] for node in model.nodes()} - read
        for node in model.nodes():
            # Kernels of layers have these functions themselves.
            if is_layer(node) and (fused := activation_after(node, self.readers, FUSED)):
                self.kept.add(fused[1]["output"])

    def without_copies(self, node: Node) -> Node | None:
        """Return a node that reads the first of equal moves; None of another such move.

        Exporters write what a view takes once for each of its readers.
        """
        inputs = [self._first.get(name, name) for name in node["inputs"]]
        node = {**node, "inputs": inputs}
        if node["op"] not in PERMUTING or node["output"] == self.model.graph["output"]:
            return node
        known = {name: value.tolist() for name, value in self.constants(node).items()}
        key = repr((node["op"], [known.get(i, i) for i in inputs], node.get("attributes", {})))
        first = self._moves.setdefault(key, node["output"])
        if first == node["output"]:
            return node
        self._first[node["output"]] = first
        return None

    def append(self, node: Node) -> None:
        """Add a node as it is."""
        self.nodes.append(node)
        for name in node.get("outputs", [node["output"]]):
            self.makers[name] = node
        out = node["output"]
        if node["op"] in ("dequantize", "norm") or self.gives_floats(node):
            self.base[out] = out
        elif node["op"] in PERMUTING and len(self.given(node)) == 1:
            self.base[out] = out
            self.moved.add(out)
        elif (source := self.one_source(node)) is not None:
            self.base[out] = source

    def used(self) -> list[Node]:
        """Return the nodes without those that nothing reads any more."""
        wanted, kept = {self.model.graph["output"]}, []
        for node in reversed(self.nodes):
            outputs: list[str] = node.get("outputs", [node["output"]])
            if wanted.intersection(outputs) or self._unread.issuperset(outputs):
                wanted.update(node["inputs"])
                kept.append(node)
        return kept[::-1]

    def gives_floats(self, node: Node) -> bool:
        """Whether a node is a layer of integers whose sums become floats."""
        return is_layer(node) and node["output"] not in self.grids

    def codes(self, name: str) -> str | None:
        """Return the codes that floats were before they were dequantised."""
        maker = self.makers.get(name)
        return maker["inputs"][0] if maker is not None and maker["op"] == "dequantize" else None

    def constants(self, node: Node) -> dict[str, np.ndarray]:
        """Return the constants that a node reads, by their names there."""
        known = {k: np.asarray(v) for k, v in node.get("constants", {}).items()}
        stored = self.model.tensors
        return known | {k: stored[k] for k in node["inputs"] if k in stored}

    def given(self, node: Node) -> list[str]:
        """Return the inputs that are no constants."""
        known = self.constants(node)
        return [name for name in node["inputs"] if name and name not in known]

    def one_source(self, node: Node) -> str | None:
        """Return the tensor that a node computes a function of, number by number."""
        if elementwise(node["op"]) is None:
            return None
        sources = {self.base.get(name, "") for name in self.given(node)}
        if len(sources) != 1 or any(v.size != 1 for v in self.constants(node).values()):
            return None
        return sources.pop() or None

    def over_pixels(self, name: str, ops: tuple[str, ...]) -> tuple[str, bool] | None:
        """Return the codes that are reduced to one number a channel, and whether axes go.

        Args:
            name: of the floats that may be such a reduction.
            ops: ONNX's reduction of all pixels, and of axes.
        """
        node, flat = self.makers.get(name), False
        if node is not None and node["op"] in VIEWS and flattens(node, self.constants(node)):
            node, flat = self.makers.get(node["inputs"][0]), True
        if node is None or node["op"] not in ops:
            return None
        if node["op"] == ops[1]:
            attributes, known = node.get("attributes", {}), self.constants(node)
            axes = attributes.get("axes", np.ravel(known.get("".join(node["inputs"][1:]), [])))
            if [int(i) for i in axes] != [2, 3]:
                return None
            flat = flat or not attributes.get("keepdims", 1)
        codes = self.codes(node["inputs"][0])
        return None if codes is None else (codes, flat)

    def operand(self, name: str) -> tuple[str, Operand] | None:
        """Return the codes or the layer's floats that a tensor is a function of, and how."""
        base = self.base.get(name)
        if base is None or base in self.moved:
            return None
        cut = self.makers[name]["op"] == "Relu" and self.makers[name]["inputs"] == [base]
        function = None if name == base else self.composed(name, base)
        if (codes := self.codes(base)) is not None:
            read = of_codes(self.grids[codes], function)
        elif self.makers[base]["op"] == "norm":
            return None
        else:
            bound = self.bound(self.makers[base])
            read = of_floats(bound, None if cut else function, positive=cut)
        return None if read is None else (base if codes is None else codes, read)

    def pool_form(self, node: Node) -> dict[str, Any] | None:
        """Return the form of a pool of images as packed models have it, and what it counts."""
        a = node.get("attributes", {})
        plain = str(a.get("auto_pad", "NOTSET")) == "NOTSET" and len(a["kernel_shape"]) == 2
        if not plain or any(step != 1 for step in a.get("dilations", ())) or "outputs" in node:
            return None
        return {
            "kernel": list(a["kernel_shape"]),
            "strides": list(a.get("strides", [1, 1])),
            "pads": list(a.get("pads", [0] * 4)),
            "counting": dict(a),
        }

    def floats_of(self, name: str) -> tuple[str, float] | None:
        """Return the floats of an image in memory, and what none of them exceeds in size.

        Args:
            name: of a layer's floats, or of codes that were dequantised: these are added.
        """
        maker = self.makers.get(name)
        if maker is not None and self.gives_floats(maker):
            return name, self.bound(maker)
        codes = self.codes(name)
        if codes is None or not self.is_image(codes):
            return None
        grid, made = self.grids[codes], f"{codes}.values"
        if made not in self.makers:
            self.append({"op": "values", "inputs": [codes], "output": made})
        far = max(grid["zero_point"], 2 ** grid["bits"] - 1 - grid["zero_point"])
        return made, float(far * grid["scale"])

    def bound(self, layer: Node) -> float:
        """Return what no float of a layer exceeds in size."""
        weights, tensors = layer["weights"], {**self.model.tensors, **self.tensors}
        grid = self.grids[layer["inputs"][0]]
        codes = replace(self.model, tensors=tensors).codes(weights)
        sums = np.abs(codes.reshape(len(codes), -1).astype(np.int64)).sum(1)
        sums = sums * fill_factors(codes, weights["fill"])
        far = max(grid["zero_point"], 2 ** grid["bits"] - 1 - grid["zero_point"])
        most = sums * far + np.abs(tensors[weights["bias"]].astype(np.int64))
        return float((most * tensors[weights["scale"]].astype(np.float64)).max() * grid["scale"])

    def composed(self, name: str, base: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function of ``base`` that ``name`` is."""
        chain: dict[str, tuple[Callable[..., Any], list[str], dict[str, Any]]] = {}

        def collect(out: str) -> None:
            if out == base or out in chain:
                return
            node = self.makers[out]
            known, run = self.constants(node), elementwise(node["op"])
            assert run is not None
            for given in self.given(node):
                collect(given)
            numbers = {key: value.reshape(()) for key, value in known.items()}
            chain[out] = partial(run, node.get("attributes", {})), node["inputs"], numbers

        collect(name)

        def function(x: np.ndarray) -> np.ndarray:
            values: dict[str, Any] = {base: x, "": None}
            with np.errstate(all="ignore"):
                for out, (run, inputs, numbers) in chain.items():
                    values[out] = run(*(numbers[i] if i in numbers else values[i] for i in inputs))
            return np.asarray(values[name])

        return function

    def is_image(self, name: str) -> bool:
        """Whether a tensor surely has the axes of images."""
        node = self.makers.get(name)
        while node is not None and node["op"] in _SAME_AXES:
            node = self.makers.get(node["inputs"][0])
        if node is None or node["op"] not in ("conv", "max_pool", "average_pool"):
            return False
        return len(node["kernel"]) == 2


def is_layer(node: Node) -> bool:
    """Whether a node is a layer of integers."""
    return node["op"] in ("conv", "linear") and node["weights"]["fill"] is not None


def flattened(source: str, out: str) -> Node:
    """Return what makes (batch, values) of images."""
    return {"op": "flatten", "axis": 1, "inputs": [source], "output": out}


def flattens(node: Node, known: dict[str, np.ndarray]) -> bool:
    """Whether an ONNX operator gives (batch, values)."""
    if node["op"] == "Flatten":
        return int(node.get("attributes", {}).get("axis", 1)) == 1
    shape = [int(n) for n in np.ravel(known.get("".join(node["inputs"][1:]), []))]
    return len(shape) == 2 and (shape[0] in (0, 1) or shape[1] == -1) and shape[1] != 0
