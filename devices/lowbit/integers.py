"""Float operations between integers, as operations on integers.

A packed model leaves to floats what stands between a layer's sums and the next quantiser. Much of
it has an exact integer form: a function of a number is a staircase (:mod:`devices.lowbit.steps`)
or, of codes, a table; a maximum of codes is a code; a mean over fewer values at the border is the
window's sum times a number of the place. :func:`on_integers` finds these forms. The low-bit runtime
and the C projects both read what it returns, and so compute the same.

Operations beside those of the format:

- ``table``: each code through ``table``, (256,) uint8.
- ``steps``: each of a layer's floats through ``steps``, to codes.
- ``slopes``: PReLU of a layer's floats with ``slopes`` (channels,) float32, to codes.
- ``gate``: the product of two tensors, ``operands`` of :mod:`devices.lowbit.gates`, to codes.
- ``resample``: an image, read as ``operand``, with other rows and columns, to codes: ``axes`` of
  :mod:`devices.lowbit.resampling`, or None of one that stays; ``positive`` where a ReLU follows.
- ``global_max_pool``: of codes, to codes of the same grid.
- ``average_pool`` with ``counting``, the attributes of ONNX's AveragePool that say what is counted,
  and ``shares``, numbers of the places that the means are multiplied by, or None; see
  :func:`devices.lowbit.image_ops.pool_shares`.
- ``global_average_pool`` whose output has no grid: floats.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from devices.lowbit.floats import elementwise
from devices.lowbit.fusions import FUSED, Node, activation_after, function_table, readers_of
from devices.lowbit.gates import CODES, Operand, of_codes, of_floats
from devices.lowbit.resampling import matrix_taps
from devices.lowbit.steps import Steps, function_steps
from search_spaces.model_files.packed_model import (
    Encoding,
    PackedModel,
    fill_factors,
    pack_codes,
)

_VIEWS = {"Flatten": "flatten", "Reshape": "reshape"}
_MEANS, _MAXIMA = ("GlobalAveragePool", "ReduceMean"), ("GlobalMaxPool", "ReduceMax")


def on_integers(model: PackedModel) -> PackedModel:
    """Return a model that computes the same with fewer operations on floats."""
    plan = _Plan(model)
    for node in model.nodes():
        plan.add(node)
    graph = {**model.graph, "nodes": plan.used(), "grids": plan.grids}
    return replace(model, graph=graph, tensors={**model.tensors, **plan.tensors})


class _Plan:
    """Nodes as they are added; ``base`` names the one tensor whose function a tensor is."""

    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.nodes: list[Node] = []
        self.makers: dict[str, Node] = {}
        self.base: dict[str, str] = {}
        self.grids = dict(model.graph["grids"])
        self.tensors: dict[str, np.ndarray] = {}
        self.kept: set[str] = set()
        self.readers = readers_of(model.nodes())
        self.read = {name for node in model.nodes() for name in node["inputs"]}
        for node in model.nodes():
            # Kernels of layers have these functions themselves.
            if _is_layer(node) and (fused := activation_after(node, self.readers, FUSED)):
                self.kept.add(fused[1]["output"])

    def used(self) -> list[Node]:
        """Return the nodes without those whose readers were all replaced."""
        wanted, kept = {self.model.graph["output"]}, []
        for node in reversed(self.nodes):
            outputs: list[str] = node.get("outputs", [node["output"]])
            if wanted.intersection(outputs) or not self.read.intersection(outputs):
                wanted.update(node["inputs"])
                kept.append(node)
        return kept[::-1]

    def add(self, node: Node) -> None:
        """Add a node, or what computes the same on integers."""
        op, out = node["op"], node["output"]
        forms: tuple[Callable[[Node], list[Node] | None], ...] = ()
        if op == "quantize" and out not in self.kept:
            forms = (
                self._maximum, self._mean, self._pool, self._slopes, self._function, self._gate,
                self._resample,
            )  # fmt: skip
        elif op in _MEANS:
            forms = (self._float_mean,)
        elif op in _VIEWS:
            forms = (self._view,)
        elif op == "Slice":
            forms = (self._part,)
        found = next((nodes for form in forms if (nodes := form(node)) is not None), [node])
        for made in found:
            self.nodes.append(made)
            for name in made.get("outputs", [made["output"]]):
                self.makers[name] = made
        if op == "dequantize" or self._gives_floats(found[-1]):
            self.base[out] = out
        elif (source := self._one_source(node)) is not None:
            self.base[out] = source

    # What tensors are.

    def _gives_floats(self, node: Node) -> bool:
        """Whether a node is a layer of integers whose sums become floats."""
        return _is_layer(node) and node["output"] not in self.grids

    def _codes(self, name: str) -> str | None:
        """Return the codes that floats were before they were dequantised."""
        maker = self.makers.get(name)
        return maker["inputs"][0] if maker is not None and maker["op"] == "dequantize" else None

    def _constants(self, node: Node) -> dict[str, np.ndarray]:
        """Return the constants that a node reads, by their names there."""
        known = {k: np.asarray(v) for k, v in node.get("constants", {}).items()}
        stored = self.model.tensors
        return known | {k: stored[k] for k in node["inputs"] if k in stored}

    def _given(self, node: Node) -> list[str]:
        """Return the inputs that are no constants."""
        known = self._constants(node)
        return [name for name in node["inputs"] if name and name not in known]

    def _one_source(self, node: Node) -> str | None:
        """Return the tensor that a node computes a function of, number by number."""
        if elementwise(node["op"]) is None:
            return None
        sources = {self.base.get(name, "") for name in self._given(node)}
        if len(sources) != 1 or any(v.size != 1 for v in self._constants(node).values()):
            return None
        return sources.pop() or None

    def _over_pixels(self, name: str, ops: tuple[str, ...]) -> tuple[str, bool] | None:
        """Return the codes that are reduced to one number a channel, and whether axes go.

        Args:
            name: of the floats that may be such a reduction.
            ops: ONNX's reduction of all pixels, and of axes.
        """
        node, flat = self.makers.get(name), False
        if node is not None and node["op"] in _VIEWS and _flattens(node, self._constants(node)):
            node, flat = self.makers.get(node["inputs"][0]), True
        if node is None or node["op"] not in ops:
            return None
        if node["op"] == ops[1]:
            attributes, known = node.get("attributes", {}), self._constants(node)
            axes = attributes.get("axes", np.ravel(known.get("".join(node["inputs"][1:]), [])))
            if [int(i) for i in axes] != [2, 3]:
                return None
            flat = flat or not attributes.get("keepdims", 1)
        codes = self._codes(node["inputs"][0])
        return None if codes is None else (codes, flat)

    # Forms of what ends in codes.

    def _maximum(self, node: Node) -> list[Node] | None:
        found = self._over_pixels(node["inputs"][0], _MAXIMA)
        if found is None:
            return None
        codes, flat = found
        out = node["output"]
        return self._regridded("global_max_pool", codes, out, flat=flat)

    def _mean(self, node: Node) -> list[Node] | None:
        found = self._over_pixels(node["inputs"][0], _MEANS)
        if found is None:
            return None
        (codes, flat), out = found, node["output"]
        made = f"{out}.map" if flat else out
        self.grids[made] = self.grids[out]
        mean = {"op": "global_average_pool", "inputs": [codes], "output": made}
        return [mean, *([_flattened(made, out)] if flat else [])]

    def _pool(self, node: Node) -> list[Node] | None:
        pool, shares = self.makers.get(node["inputs"][0]), None
        if pool is not None and pool["op"] == "Mul" and len(given := self._given(pool)) == 1:
            (shares,) = self._constants(pool).values()
            if shares.ndim not in (2, 4) or shares.size != np.prod(shares.shape[-2:]):
                return None
            pool = self.makers.get(given[0])
        if pool is None or pool["op"] not in ("AveragePool", "MaxPool"):
            return None
        codes, a = self._codes(pool["inputs"][0]), pool.get("attributes", {})
        plain = str(a.get("auto_pad", "NOTSET")) == "NOTSET" and len(a["kernel_shape"]) == 2
        gaps = any(step != 1 for step in a.get("dilations", ()))
        if codes is None or not plain or gaps or "outputs" in pool:
            return None
        form: dict[str, Any] = {
            "kernel": list(a["kernel_shape"]),
            "strides": list(a.get("strides", [1, 1])),
            "pads": list(a.get("pads", [0] * 4)),
            "counting": dict(a),
        }
        if pool["op"] == "MaxPool":
            if shares is not None:
                return None
            return self._regridded("max_pool", codes, node["output"], **form)
        if shares is not None:
            shares = shares.astype(np.float32).reshape(shares.shape[-2:])
        entry = {"op": "average_pool", "inputs": [codes], "output": node["output"]}
        return [{**entry, **form, "shares": shares}]

    def _slopes(self, node: Node) -> list[Node] | None:
        maker = self.makers.get(node["inputs"][0])
        if maker is None or maker["op"] != "PRelu" or self._given(maker) != maker["inputs"][:1]:
            return None
        layer = self.makers.get(maker["inputs"][0])
        (slopes,) = self._constants(maker).values()
        if layer is None or not self._gives_floats(layer):
            return None
        behind = (1, 1) if layer["op"] == "conv" else ()
        if slopes.shape[slopes.ndim - len(behind) :] != behind or (
            slopes.size != layer["weights"]["shape"][0] or slopes.size == 1
        ):
            return None
        entry = {"op": "slopes", "inputs": [layer["output"]], "output": node["output"]}
        return [{**entry, "slopes": slopes.astype(np.float32).ravel()}]

    def _function(self, node: Node) -> list[Node] | None:
        source, out = node["inputs"][0], node["output"]
        base = self.base.get(source)
        if base is None or self.grids[out]["bits"] > 8:
            return None
        function = self._composed(source, base)
        if (codes := self._codes(base)) is not None:
            if self.grids[codes]["bits"] > 8:
                return None
            table = function_table(self.grids[codes], self.grids[out], function)
            return [{"op": "table", "inputs": [codes], "output": out, "table": table}]
        steps: Steps | None = function_steps(function, self.grids[out])
        if steps is None:
            return None
        return [{"op": "steps", "inputs": [base], "output": out, "steps": steps}]

    def _gate(self, node: Node) -> list[Node] | None:
        """A product, of which one side at least is a function, or a layer's floats."""
        maker, out = self.makers.get(node["inputs"][0]), node["output"]
        if maker is None or maker["op"] != "Mul" or len(self._given(maker)) != 2:
            return None
        read = [self._operand(name) for name in maker["inputs"]]
        if read[0] is None or read[1] is None:
            return None
        sources, operands = zip(*read, strict=True)
        if all(operand.kind == CODES for operand in operands):
            return None  # Kernels of their own have these.
        entry = {"op": "gate", "inputs": list(sources), "output": out}
        return [{**entry, "operands": operands}]

    def _operand(self, name: str) -> tuple[str, Operand] | None:
        """Return the codes or the layer's floats that a tensor is a function of, and how."""
        if (base := self.base.get(name)) is None:
            return None
        cut = self.makers[name]["op"] == "Relu" and self.makers[name]["inputs"] == [base]
        function = None if name == base else self._composed(name, base)
        if (codes := self._codes(base)) is not None:
            read = of_codes(self.grids[codes], function)
        else:
            bound = self._bound(self.makers[base])
            read = of_floats(bound, None if cut else function, positive=cut)
        return None if read is None else (base if codes is None else codes, read)

    def _resample(self, node: Node) -> list[Node] | None:
        """Products with matrices of neighbours' weights: enlarged images."""
        name, out = node["inputs"][0], node["output"]
        maker, matrices = self.makers.get(name), dict[int, np.ndarray]()
        positive = maker is not None and maker["op"] == "Relu"
        if maker is not None and positive:
            name = maker["inputs"][0]
        while (found := self._matrix(self.makers.get(name), matrices)) is not None:
            name = found
        read = self._operand(name) if matrices else None
        if read is None or not self._is_image(read[0]):
            return None
        axes = [matrix_taps(matrices[axis]) if axis in matrices else None for axis in (2, 3)]
        if sum(taps is not None for taps in axes) < len(matrices):
            return None
        entry = {"op": "resample", "inputs": [read[0]], "output": out, "operand": read[1]}
        return [{**entry, "axes": axes, "positive": positive}]

    def _matrix(self, node: Node | None, matrices: dict[int, np.ndarray]) -> str | None:
        """Put the matrix of a product along an axis of images into ``matrices``; None of others."""
        if node is None or node["op"] not in ("MatMul", "linear"):
            return None
        if node["op"] == "linear":
            weights, stored = node["weights"], self.model.tensors
            if "weight" not in weights or np.any(stored[weights["bias"]]) or 3 in matrices:
                return None
            matrices[3] = stored[weights["weight"]]
            return str(node["inputs"][0])
        given, known = self._given(node), self._constants(node)
        axis = 2 if given == node["inputs"][1:] else 3
        if len(given) != 1 or axis in matrices:
            return None
        (matrix,) = known.values()
        if matrix.ndim != 2:
            return None
        matrices[axis] = matrix if axis == 2 else matrix.T
        return given[0]

    def _is_image(self, name: str) -> bool:
        """Whether a tensor surely has the axes of images."""
        node = self.makers.get(name)
        while node is not None and node["op"] in ("requantize", "table", "steps", "slopes", "add"):
            node = self.makers.get(node["inputs"][0])
        if node is None or node["op"] not in ("conv", "max_pool", "average_pool"):
            return False
        return len(node["kernel"]) == 2

    def _bound(self, layer: Node) -> float:
        """Return what no float of a layer exceeds in size."""
        weights, tensors = layer["weights"], self._all_tensors()
        grid = self.grids[layer["inputs"][0]]
        codes = replace(self.model, tensors=tensors).codes(weights)
        sums = np.abs(codes.reshape(len(codes), -1).astype(np.int64)).sum(1)
        sums = sums * fill_factors(codes, weights["fill"])
        far = max(grid["zero_point"], 2 ** grid["bits"] - 1 - grid["zero_point"])
        most = sums * far + np.abs(tensors[weights["bias"]].astype(np.int64))
        return float((most * tensors[weights["scale"]].astype(np.float64)).max() * grid["scale"])

    def _all_tensors(self) -> dict[str, np.ndarray]:
        return {**self.model.tensors, **self.tensors}

    def _composed(self, name: str, base: str) -> Callable[[np.ndarray], np.ndarray]:
        """Return the function of ``base`` that ``name`` is."""
        chain: dict[str, tuple[Callable[..., Any], list[str], dict[str, Any]]] = {}

        def collect(out: str) -> None:
            if out == base or out in chain:
                return
            node = self.makers[out]
            known, run = self._constants(node), elementwise(node["op"])
            assert run is not None
            for given in self._given(node):
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

    def _regridded(
        self, op: str, codes: str, out: str, *, flat: bool = False, **form: Any
    ) -> list[Node]:
        """Return an operation whose output has the grid of ``codes``, then that of ``out``."""
        given = self.grids[codes]
        same = given == self.grids[out]
        names = [out] if same else [f"{out}.codes"]
        names = [*names, f"{out}.map"] if flat else names
        self.grids |= dict.fromkeys(names, given)
        nodes: list[Node] = [{"op": op, "inputs": [codes], "output": names[-1], **form}]
        if flat:
            nodes.append(_flattened(names[-1], names[0]))
        if not same:
            nodes.append({"op": "requantize", "inputs": names[:1], "output": out})
        return nodes

    # Forms of what stays floats.

    def _float_mean(self, node: Node) -> list[Node] | None:
        self.makers[node["output"]] = node
        found = self._over_pixels(node["output"], _MEANS)
        if found is None:
            return None
        (codes, flat), out = found, node["output"]
        made = f"{out}.map" if flat else out
        mean = {**node, "op": "global_average_pool", "inputs": [codes], "output": made}
        return [mean, *([_flattened(made, out)] if flat else [])]

    def _view(self, node: Node) -> list[Node] | None:
        source = self.makers.get(node["inputs"][0])
        known = self._constants(node)
        if source is None or not _flattens(node, known):
            return None
        if not self._gives_floats(source) and source["op"] != "global_average_pool":
            return None
        return [_flattened(node["inputs"][0], node["output"])]

    def _part(self, node: Node) -> list[Node] | None:
        """Of a layer whose floats are only cut apart by channels, a layer for each part."""
        layer = self.makers.get(node["inputs"][0])
        if layer is None or not self._gives_floats(layer) or layer.get("groups", 1) != 1:
            return None
        if layer["output"] == self.model.graph["output"]:
            return None
        weights, count = layer["weights"], layer["weights"]["shape"][0]
        parts = [self._channels(user, count) for user in self.readers[layer["output"]]]
        if None in parts or (places := self._channels(node, count)) is None:
            return None
        name, tensors = node["output"], self.model.tensors
        encoding = Encoding(weights["bits"], weights["low"], weights["stride"])
        codes = self.model.codes(weights)[places]
        self.tensors[f"{name}.codes"] = pack_codes(codes, encoding)
        for key in ("scale", "bias"):
            self.tensors[f"{name}.{key}"] = tensors[weights[key]][places]
        keys = {key: f"{name}.{key}" for key in ("codes", "scale", "bias")}
        cut = {**weights, **keys, "shape": list(codes.shape)}
        return [{**layer, "layer": name, "output": name, "weights": cut}]

    def _channels(self, node: Node, count: int) -> slice | None:
        """Return the channels of ``count`` that a Slice takes; None of another node."""
        known = self._constants(node)
        numbers = [np.ravel(known.get(name, ())).tolist() for name in node["inputs"][1:]]
        if node["op"] != "Slice" or len(numbers) < 3 or [int(i) for i in numbers[2]] != [1]:
            return None
        step = int(numbers[3][0]) if len(numbers) > 3 and numbers[3] else 1
        begin, end, _ = slice(int(numbers[0][0]), int(numbers[1][0])).indices(count)
        return slice(begin, end) if step == 1 and begin < end else None


def _is_layer(node: Node) -> bool:
    """Whether a node is a layer of integers."""
    return node["op"] in ("conv", "linear") and node["weights"]["fill"] is not None


def _flattened(source: str, out: str) -> Node:
    return {"op": "flatten", "axis": 1, "inputs": [source], "output": out}


def _flattens(node: Node, known: dict[str, np.ndarray]) -> bool:
    """Whether an ONNX operator gives (batch, values)."""
    if node["op"] == "Flatten":
        return int(node.get("attributes", {}).get("axis", 1)) == 1
    shape = [int(n) for n in np.ravel(known.get("".join(node["inputs"][1:]), []))]
    return len(shape) == 2 and (shape[0] in (0, 1) or shape[1] == -1) and shape[1] != 0
