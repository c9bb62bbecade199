"""A packed model as the operations of its C project.

The same fusions as :class:`devices.lowbit.network.LowBitNetwork`, which is what the project is
bit-exact with: an activation that alone follows a layer is part of it, element-wise functions of
codes are tables, and a change of grid is read through a table where its source lives on, in
place where it does not. So memory holds what :mod:`search_spaces.memory` counts and no more.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from devices.lowbit.fusions import (
    activation_after,
    between_codes,
    function_table,
    readers_of,
    sum_numbers,
)
from devices.lowbit.image_ops import pool_pads, pool_shares
from devices.lowbit.integers.gates import product_numbers, reach_of
from devices.lowbit.integers.norms import norm_numbers
from devices.lowbit.integers.resampling import image_taps, resample_numbers
from devices.lowbit.integers.rewriting import on_integers
from nas.models.c_project.moves import PICKS, picked
from nas.models.c_project.program import (
    Operation,
    Program,
    Tensor,
    image_shape,
    in_two_axes,
    layer_geometry,
)
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel, fill_factors

_F = np.float32
_FUSED = {"HardSwish": "EN_HARD_SWISH", "HardSigmoid": "EN_HARD_SIGMOID"}
_MOST_TAPS = 64
"""Weights of a depthwise filter, EN_CHUNK in edge_nas_kernels.h."""


def lower(model: PackedModel) -> Program:
    """Return the operations of ``model``, one image at a time.

    Raises:
        InputError: an operation needs floating point, or has a form that the kernels lack.
    """
    return _Lowering(on_integers(model)).run()


class _Lowering:
    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.grids = model.graph["grids"]
        self.tensors: dict[str, Tensor] = {}
        self.dequantized: dict[str, str] = {}
        self.operations: list[Operation] = []
        self.sizes: list[int] = []
        self.users = readers_of(model.nodes())
        self.done: set[int] = set()

    def run(self) -> Program:
        """Return the program of the whole model.

        Raises:
            InputError: something in it has no integer kernel in C.
        """
        for name, grid in self.grids.items():
            if grid["bits"] > 8:
                raise InputError(
                    f"{name} has codes of {grid['bits']} bits; the C kernels hold 8 at most: "
                    "search with activation_bits of 8 or less"
                )
        source = self._input()
        for node in self.model.nodes():
            if id(node) not in self.done:
                self._node(node)
        name = self.model.graph["output"]
        if name in self.dequantized:
            self._values(self.dequantized[name], name)
        if name not in self.tensors:
            raise InputError(f"the output {name} is computed in floats; the C kernels have none")
        output = self.tensors[name]
        lives = [[len(self.operations), -1] for _ in self.sizes]
        lives[source.storage] = [-1, -1]
        for time, operation in enumerate(self.operations):
            for tensor in (*operation.inputs, operation.output):
                life = lives[tensor.storage]
                life[0], life[1] = min(life[0], time), max(life[1], time)
        lives[output.storage][1] = len(self.operations)
        return Program(
            tuple(self.operations),
            tuple(self.sizes),
            tuple((first, last) for first, last in lives),
            source,
            output,
        )

    def _input(self) -> Tensor:
        graph = self.model.graph
        readers = self.users[graph["input"]["name"]]
        if len(readers) != 1 or readers[0]["op"] != "quantize":
            raise InputError("the input is not quantised first; the C kernels read codes only")
        node = readers[0]
        self.done.add(id(node))
        tensor = self._new(node["output"], image_shape(tuple(graph["input"]["shape"]), "the input"))
        return tensor

    def _node(self, node: dict[str, Any]) -> None:
        op = node["op"]
        if op in ("conv", "linear") and node["weights"]["fill"] is not None:
            self._layer(node)
        elif op == "dequantize":
            self.dequantized[node["output"]] = node["inputs"][0]
        elif op == "requantize":
            self._requantize(node)
        elif op == "add":
            self._add(node["inputs"], node["output"])
        elif op == "table":
            self._table(node["inputs"][0], node["output"], node["table"])
        elif op in ("steps", "slopes"):
            self._function(node)
        elif op == "values":
            self._values(node["inputs"][0], node["output"])
        elif op == "gate":
            self._gate(node)
        elif op == "resample":
            self._resample(node)
        elif op == "norm":
            self._norm(node)
        elif op == "global_average_pool":
            self._mean(node)
        elif op in ("max_pool", "global_max_pool"):
            self._max_pool(node)
        elif op == "average_pool" and node["output"] in self.grids:
            self._average_pool(node)
        elif op == "concat" and node["axis"] == 1:
            self._concat(node)
        elif op in PICKS:
            self._pick(node)
        elif op == "depth_to_space":
            self._spread(node)
        elif op in ("flatten", "reshape"):
            self._view(node)
        elif not self._elementwise(node):
            raise InputError(
                f"{op} ({node['output']}) needs floating point or has no kernel in C; export "
                "another model of the front, or another format"
            )

    # Tensors.

    def _new(self, name: str, shape: tuple[int, int, int]) -> Tensor:
        grid = self.grids.get(name)
        self.sizes.append(math.prod(shape) * (1 if grid else 4))
        self.tensors[name] = Tensor(len(self.sizes) - 1, shape, grid)
        return self.tensors[name]

    def _tensor(self, name: str) -> Tensor:
        return self.tensors[name] if name in self.tensors else self._codes(name)

    def _numbers(self, name: str) -> Tensor:
        """Return floats, or codes as they are in memory."""
        x = self._tensor(name)
        return x if x.grid is None else self._stored(name)

    def _codes(self, name: str) -> Tensor:
        tensor = self.tensors.get(name)
        if tensor is None or tensor.grid is None:
            raise InputError(f"{name} holds floats where codes are read; the C kernels read codes")
        return tensor

    def _stored(self, name: str) -> Tensor:
        """Return codes as they are in memory: read through a table, they are written first."""
        tensor = self._codes(name)
        if tensor.table is None:
            return tensor
        target = self._new(name, tensor.shape)
        source = Tensor(tensor.storage, tensor.shape, tensor.grid)
        self._emit("table", name, (source,), target, table=tensor.table)
        return target

    def _emit(
        self, kind: str, name: str, inputs: tuple[Tensor, ...], output: Tensor, **values: Any
    ) -> None:
        self.operations.append(Operation(kind, name, inputs, output, values))

    # Nodes.

    def _layer(self, node: dict[str, Any]) -> None:
        x, weights, tensors = self._codes(node["inputs"][0]), node["weights"], self.model.tensors
        name = node.get("layer", node["output"])
        out, function, scale = node["output"], "EN_IDENTITY", _F(1)
        grid, staircase = self.grids.get(out), None
        fused = activation_after(node, self.users, _FUSED) if grid is None else None
        if fused is not None:
            activation, quantize = fused
            function, out = _FUSED[activation["op"]], quantize["output"]
            grid = self.grids[out]
            scale = _F(grid["scale"])
            self.done |= {id(activation), id(quantize)}
        elif grid is None and (function_node := self._function_after(out)) is not None:
            function, out, staircase = "EN_FUNCTION", function_node["output"], function_node
            self.done.add(id(function_node))
        codes = self.model.codes(weights)
        if codes.size and codes.max() > 127:
            raise InputError(f"{name}: weights of more than 8 bits have no kernel in C")
        factor = fill_factors(codes, weights["fill"])
        assert x.grid is not None
        multiplier = _F(x.grid["scale"]) * tensors[weights["scale"]]
        if grid is not None and fused is None and staircase is None:
            multiplier = multiplier / _F(grid["scale"])
        geometry = layer_geometry(node, codes.shape, x, name)
        filters = codes.reshape(len(codes), -1, *geometry["kernel"])
        depthwise = (
            geometry["groups"] == x.shape[0] == len(codes)
            and geometry["groups"] > 1
            and filters[0].size <= _MOST_TAPS
        )
        bias = tensors[weights["bias"]].astype(np.int64)
        if not depthwise:
            total = codes.reshape(len(codes), -1).astype(np.int64).sum(1)
            bias = bias - x.grid["zero_point"] * total * factor
        target = self._new(out, (len(codes), *geometry.pop("size")))
        self._emit(
            "depthwise" if depthwise else "conv",
            name,
            (x,),
            target,
            **geometry,
            codes=filters.transpose(0, 2, 3, 1),
            bits=weights["bits"],
            factor=factor,
            bias=bias,
            multiplier=multiplier.astype(_F),
            function=function,
            scale=scale,
            numbers=staircase,
        )

    def _function_after(self, name: str) -> dict[str, Any] | None:
        """Return the function that alone reads a layer's floats, if there is one."""
        users = self.users[name]
        alone = len(users) == 1 and name != self.model.graph["output"]
        return users[0] if alone and users[0]["op"] in ("steps", "slopes") else None

    def _function(self, node: dict[str, Any]) -> None:
        """A function of floats that others read too."""
        x = self.tensors[node["inputs"][0]]
        target = self._new(node["output"], x.shape)
        self._emit("function", node["output"], (x,), target, numbers=node)

    def _gate(self, node: dict[str, Any]) -> None:
        """A product of functions; those of floats are computed as it reads them."""
        out, inputs = node["output"], [self._numbers(name) for name in node["inputs"]]
        shape = tuple(max(sides) for sides in zip(*(x.shape for x in inputs), strict=True))
        reaches = [reach_of(x.stored, (1, *shape[1:], shape[0])) for x in inputs]
        if None in reaches:
            raise InputError(
                f"{out}: a product of {inputs[0].shape} and {inputs[1].shape}; the C kernels share "
                "numbers between all pixels or all channels"
            )
        shift, multiplier = product_numbers(node["operands"], self.grids[out])
        target = self._new(out, shape)
        self._emit(
            "gate", out, tuple(inputs), target, operands=node["operands"], reaches=reaches,
            shift=shift, multiplier=multiplier,
        )  # fmt: skip

    def _resample(self, node: dict[str, Any]) -> None:
        x, out = self._numbers(node["inputs"][0]), node["output"]
        rows, columns = image_taps(node["axes"], x.shape[1:], out)
        lift, multiplier = resample_numbers(node["operand"], self.grids[out])
        target = self._new(out, (x.shape[0], len(rows.first), len(columns.first)))
        self._emit(
            "resample", out, (x,), target, operand=node["operand"], axes=(rows, columns),
            lift=lift, multiplier=multiplier, positive=node["positive"],
        )  # fmt: skip

    def _norm(self, node: dict[str, Any]) -> None:
        source, out = node["inputs"][0], node["output"]
        x = self._tensor(source)
        if len(self.users[source]) != 1 or x.grid is not None:
            raise InputError(f"{out}: a norm of floats that others read too has no kernel in C")
        self.tensors[out] = Tensor(x.storage, x.shape, None)
        numbers = norm_numbers(
            node["bound"], node["groups"], node["epsilon"], node["gain"], node["bias"],
            math.prod(x.shape[1:]), positive=node["positive"],
        )  # fmt: skip
        self._emit("norm", out, (x,), self.tensors[out], norm=numbers)

    def _requantize(self, node: dict[str, Any]) -> None:
        source, out = node["inputs"][0], node["output"]
        x, grid = self._codes(source), self.grids[out]
        assert x.grid is not None
        self._table(source, out, function_table(x.grid, grid))

    def _table(self, source: str, out: str, table: np.ndarray) -> None:
        """Note a function of codes: in place where nothing else reads them."""
        x, grid = self._codes(source), self.grids[out]
        if x.table is not None:
            table = table[x.table]
        if self._read_once(x):
            plain = Tensor(x.storage, x.shape, x.grid)
            self.tensors[out] = Tensor(x.storage, x.shape, grid)
            self._emit("table", out, (plain,), self.tensors[out], table=table)
        else:
            self.tensors[out] = Tensor(x.storage, x.shape, grid, table)

    def _read_once(self, x: Tensor) -> bool:
        """Whether one node alone reads the memory of ``x``."""
        sharing = [n for n, t in self.tensors.items() if t.storage == x.storage]
        floats = [n for n, s in self.dequantized.items() if s in sharing]
        readers = [node for n in (*sharing, *floats) for node in self.users[n]]
        readers = [node for node in readers if node["op"] not in ("dequantize", "flatten")]
        return len(readers) == 1 and self.model.graph["output"] not in (*sharing, *floats)

    def _add(self, sources: list[str], out: str) -> None:
        a, b = (self._stored(name) for name in sources)
        grid = self.grids.get(out)
        if grid is None or a.shape != b.shape or a.grid is None or b.grid is None:
            raise InputError(f"{out}: the C kernels add codes of one shape, to codes")
        ratio_a, ratio_b, constant = sum_numbers(a.grid, b.grid, grid)
        target = self._new(out, a.shape)
        self._emit("sum", out, (a, b), target, ratio_a=ratio_a, ratio_b=ratio_b, constant=constant)

    def _mean(self, node: dict[str, Any]) -> None:
        x, out = self._stored(node["inputs"][0]), node["output"]
        grid = self.grids.get(out)
        assert x.grid is not None
        pixels = math.prod(x.shape[1:])
        multiplier = _F(x.grid["scale"]) / (_F(grid["scale"] if grid else 1) * _F(pixels))
        target = self._new(out, (x.shape[0], 1, 1))
        self._emit("mean", out, (x,), target, multiplier=multiplier)

    def _max_pool(self, node: dict[str, Any]) -> None:
        x = self._stored(node["inputs"][0])
        if node["op"] == "global_max_pool":
            node = {**node, "kernel": x.shape[1:], "strides": (1, 1), "pads": (0, 0, 0, 0)}
        kernel, strides = in_two_axes(node["kernel"], 1), in_two_axes(node["strides"], 1)
        pads = pool_pads(node, x.shape[1:])
        pads = pads if len(pads) == 4 else [0, pads[0], 0, pads[1]]
        size = [
            (n + pads[i] + pads[i + 2] - kernel[i]) // strides[i] + 1
            for i, n in enumerate(x.shape[1:])
        ]
        target = self._new(node["output"], (x.shape[0], size[0], size[1]))
        self._emit(
            "max_pool", node["output"], (x,), target, kernel=kernel, strides=strides, pads=pads
        )

    def _average_pool(self, node: dict[str, Any]) -> None:
        """Average windows: a convolution of each channel whose weights are ones."""
        x, out = self._stored(node["inputs"][0]), node["output"]
        grid, channels = self.grids[out], x.shape[0]
        assert x.grid is not None
        shares = pool_shares(node, x.shape[1:])
        form = {**node, "op": "conv", "dilations": [1] * len(node["kernel"]), "groups": channels}
        geometry = layer_geometry({**form, "pads": pool_pads(node, x.shape[1:])}, (), x, out)
        taps = math.prod(geometry["kernel"])
        multiplier = _F(x.grid["scale"]) / (_F(grid["scale"]) * _F(taps))
        target = self._new(out, (channels, *geometry.pop("size")))
        if shares is not None:
            # Fewer values count at the border: a factor of the place.
            self._emit(
                "average_pool", out, (x,), target, **geometry,
                multiplier=(shares * multiplier).astype(_F),
            )  # fmt: skip
            return
        depthwise = channels > 1 and taps <= _MOST_TAPS
        bias = np.full(channels, 0 if depthwise else -x.grid["zero_point"] * taps, np.int64)
        self._emit(
            "depthwise" if depthwise else "conv", out, (x,), target, **geometry,
            codes=np.ones((channels, *geometry["kernel"], 1), np.int32), bits=2,
            factor=np.ones(channels, np.int32), bias=bias,
            multiplier=np.full(channels, multiplier, _F), function="EN_IDENTITY", scale=_F(1),
            numbers=None,
        )  # fmt: skip

    def _concat(self, node: dict[str, Any]) -> None:
        parts = [self._stored(name) for name in node["inputs"]]
        channels = sum(p.shape[0] for p in parts)
        target = self._new(node["output"], (channels, *parts[0].shape[1:]))
        to = 0
        for part in parts:
            self._emit("copy", node["output"], (part,), target, to=to)
            to += part.shape[0]

    def _pick(self, node: dict[str, Any]) -> None:
        x, out = self._stored(node["inputs"][0]), node["output"]
        places = picked(node, x.shape)
        target = self._new(out, (len(places[0]), len(places[1]), len(places[2])))
        self._emit("pick", out, (x,), target, places=places)

    def _spread(self, node: dict[str, Any]) -> None:
        x, size = self._stored(node["inputs"][0]), node["size"]
        inner = x.shape[0] // size**2
        target = self._new(node["output"], (inner, x.shape[1] * size, x.shape[2] * size))
        # Channels of a pixel: which value first, or which place.
        steps = (1, inner) if node["mode"] == "DCR" else (size**2, 1)
        self._emit("spread", node["output"], (x,), target, size=size, steps=steps)

    def _view(self, node: dict[str, Any]) -> None:
        x, out = self._tensor(node["inputs"][0]), node["output"]
        if node["op"] == "flatten":
            flat = node["axis"] == 1
        else:
            wanted = node["shape"]
            flat = len(wanted) == 2 and wanted[1] in (-1, x.count)
        if not flat:
            raise InputError(f"{node['op']} ({out}): the C kernels flatten images only")
        if math.prod(x.shape[1:]) == 1:
            self.tensors[out] = x
            return
        x = self._stored(node["inputs"][0])
        target = self._new(out, (x.count, 1, 1))
        self._emit("planar", out, (x,), target)

    def _elementwise(self, node: dict[str, Any]) -> bool:
        """Take a float function between codes and codes as one of codes, where it is one."""
        between = between_codes(node, self.users, self.dequantized)
        if between is None:
            return False
        quantise, names = between
        out = quantise["output"]
        grid = self.grids[out]
        if node["op"] == "Add" and len(names) == 2:
            self._add(names, out)
        elif node["op"] == "Mul" and len(names) == 2:
            operands = sorted((self._stored(name) for name in names), key=lambda t: -t.count)
            a, b = operands
            shared = b.shape == (a.shape[0], 1, 1)
            if not shared and a.shape != b.shape:
                return False
            assert a.grid is not None and b.grid is not None
            multiplier = _F(a.grid["scale"]) * _F(b.grid["scale"]) / _F(grid["scale"])
            target = self._new(out, a.shape)
            self._emit("product", out, (a, b), target, shared=shared, multiplier=multiplier)
        else:
            return False
        self.done.add(id(quantise))
        return True

    def _values(self, source: str, out: str) -> None:
        x = self._stored(source)
        target = self._new(out, x.shape)
        assert x.grid is not None
        self._emit("values", out, (x,), target, multiplier=_F(x.grid["scale"]))
