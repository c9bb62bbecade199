"""From the operations of a packed model to the steps that run it.

What the format leaves to floats (attention, layer norms, layers of 32-bit weights) becomes a step
in NumPy between native layers, see :mod:`devices.lowbit.floats`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from devices.lowbit import floats
from devices.lowbit.buffers import Buffers, Tensor
from devices.lowbit.float_layers import add_grouped, add_native_floats
from devices.lowbit.float_ops import native_operation
from devices.lowbit.fusions import activation_after, between_codes, readers_of, sum_numbers
from devices.lowbit.image_ops import pool_pads, pool_shares
from devices.lowbit.integers.rewriting import on_integers
from devices.lowbit.library import CODES, FLOATS, SUMS, ConvSpec, Native
from devices.lowbit.number_layers import NUMBERS
from devices.lowbit.rounding import to_codes
from devices.lowbit.tuning import choose_kernel
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel, fill_factors

_F = np.float32
_FUSED = {"HardSwish": "hard_swish", "HardSigmoid": "hard_sigmoid"}


class Lowering(Buffers):
    """The steps of a packed model, made when it is built.

    Args:
        model: whose weights are read while it is built, and not afterwards.
        native: gets the layers and buffers.
        batch: images of an inference.
        rounds: timings of each kernel when a layer's kernel is chosen; 0 takes the first that
            fits, without timing.

    Raises:
        InputError: the graph holds an operation or a shape that this runtime does not run.
    """

    def __init__(self, model: PackedModel, native: Native, *, batch: int, rounds: int) -> None:
        model = on_integers(model)
        super().__init__(model, native, batch=batch)
        self._rounds = rounds
        for name, grid in self.grids.items():
            if grid["bits"] > 8:
                raise InputError(f"{name} has codes of {grid['bits']} bits; this runtime runs 8")
        self._readers = readers_of(model.nodes())
        self._done: set[int] = set()
        for node in model.nodes():
            if id(node) not in self._done:
                self._node(node)

    def result(self, name: str) -> Callable[[], np.ndarray]:
        """Return what gives the tensor ``name`` in floats after the steps ran."""
        if name not in self.tensors:
            # Of codes that nothing turned into floats, too.
            return lambda: self.array(name)
        tensor = self.tensors[name]
        stored = self.native.array(tensor.buffer, tensor.stored, np.float32)
        view = stored.transpose(0, 3, 1, 2) if stored.ndim == 4 else stored
        return lambda: view

    def _node(self, node: dict[str, Any]) -> None:
        op, out = node["op"], node["output"]
        if op in ("conv", "linear") and node["weights"]["fill"] is not None:
            self._layer(node)
        elif op == "linear" and "grouped" in node["weights"]:
            add_grouped(self, node)
        elif add_native_floats(self, node):
            pass
        elif op == "quantize":
            self._quantize(node)
        elif op == "dequantize":
            self.dequantized[out] = node["inputs"][0]
        elif op == "requantize":
            self._requantize(node)
        elif op == "add":
            self._add(node["inputs"], out, node)
        elif op in NUMBERS:
            NUMBERS[op](self, node)
        elif op == "values":
            each = {"kernel": (1, 1), "strides": (1, 1), "pads": (0, 0, 0, 0)}
            scale = _F(self.grids[node["inputs"][0]]["scale"])
            self._window_sums({**node, **each}, FLOATS, scale)
        elif op == "global_average_pool":
            self._mean(node)
        elif op == "average_pool":
            self._average_pool(node)
        elif op in ("max_pool", "global_max_pool") and node["inputs"][0] in self.tensors:
            self._max_pool(node)
        elif op == "concat" and self._on_channels(node):
            self._concat(node)
        elif op in floats.REARRANGING and node["inputs"][0] in self.tensors:
            self._view(node)
        elif not self._fused_elementwise(node):
            self._float(node)

    def _layer(self, node: dict[str, Any]) -> None:
        x, weights, tensors = self.codes(node["inputs"][0]), node["weights"], self.model.tensors
        out, function, scale = node["output"], "identity", 1.0
        grid = self.grids.get(out)
        fused = activation_after(node, self._readers, _FUSED) if grid is None else None
        if fused is not None:
            activation, quantize = fused
            function, out = _FUSED[activation["op"]], quantize["output"]
            grid = self.grids[out]
            scale = grid["scale"]
            self._done |= {id(activation), id(quantize)}
        codes = self.model.codes(weights)
        factor = fill_factors(codes, weights["fill"])
        if np.abs(codes).max(initial=0) > 127 and codes.max() > 127:
            raise InputError(f"{node.get('layer', out)}: weights of more than 8 bits")
        assert x.grid is not None
        multiplier = _F(x.grid["scale"]) * tensors[weights["scale"]]
        if grid is not None and fused is None:
            multiplier = multiplier / _F(grid["scale"])
        common = dict(
            batch=self.batch,
            outputs=len(codes),
            largest=2 ** x.grid["bits"] - 1,
            zero_point=x.grid["zero_point"],
            function=function,
            scale=scale,
        )
        if grid is None:
            common |= dict(kind=FLOATS)
        else:
            common |= dict(out_zero_point=grid["zero_point"], out_high=2 ** grid["bits"] - 1)
        if node["op"] == "conv":
            if len(x.shape) != 4:
                raise InputError(f"{node.get('layer', out)}: a convolution of rank {len(x.shape)}")
            spec = ConvSpec(
                height=x.shape[2],
                width=x.shape[3],
                channels=x.shape[1],
                kernel=tuple(node["kernel"]),
                stride=tuple(node["strides"]),
                pads=tuple(node["pads"]),
                dilation=tuple(node["dilations"]),
                groups=node["groups"],
                **common,
            )
            shape: tuple[int, ...] = (self.batch, len(codes), *spec.out_size)
        else:
            if len(x.shape) == 4:
                raise InputError(f"{node.get('layer', out)}: a linear layer of rank 4")
            # (rows, features) or (batch, tokens, features); rows may be tokens of all images.
            common |= dict(batch=math.prod(x.shape[:-1]))
            spec = ConvSpec(channels=x.shape[-1], **common)
            shape = (*x.shape[:-1], len(codes))
            codes = codes.reshape(*codes.shape, 1, 1)
        target = self.new(out, shape, grid)
        first = self.native.conv(
            x.buffer,
            target.buffer,
            spec,
            codes.astype(np.int8),
            factor=factor,
            bias=tensors[weights["bias"]],
            multiplier=multiplier,
        )
        # At once, so that no more than one layer is held as several kernels read it.
        choose_kernel(self.native, first, self._rounds)
        self.note(node.get("layer", out), first)

    def _quantize(self, node: dict[str, Any]) -> None:
        source, out = node["inputs"][0], node["output"]
        grid = self.grids[out]
        high = 2 ** grid["bits"] - 1
        if source == self.input_name:
            shape = self.input_shape
            target = self.new(out, shape, grid)
            # Images are stored with their channels last, all else in its own order.
            channels = shape[1] if len(shape) == 4 else 1
            first = self.native.layer(
                "quantise", self.input_buffer, target.buffer, self.batch, channels,
                math.prod(shape[1:]) // channels, grid["scale"], grid["zero_point"], high,
            )  # fmt: skip
            self.note("quantize", first)
            return
        shape = self.shape(source)
        target = self.new(out, shape, grid)
        view = self.native.array(target.buffer, target.stored, np.uint8)

        def quantize() -> None:
            v = self.array(source) / _F(grid["scale"])
            codes = to_codes(v.astype(_F, copy=False), grid["zero_point"], 0, high)
            view[...] = codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes

        self._python("quantize", quantize)

    def _requantize(self, node: dict[str, Any]) -> None:
        x = self.codes(node["inputs"][0])
        assert x.grid is not None
        out, grid = node["output"], self.grids[node["output"]]
        target = self.new(out, x.shape, grid)
        first = self.native.layer(
            "rescale", x.buffer, target.buffer, math.prod(x.shape), x.grid["zero_point"],
            x.grid["scale"], grid["scale"], grid["zero_point"], 0, 2 ** grid["bits"] - 1,
        )  # fmt: skip
        self.note("requantize", first)

    def _add(self, sources: list[str], out: str, node: dict[str, Any]) -> None:
        a, b = (self.codes(name) for name in sources)
        grid = self.grids.get(out)
        assert a.grid is not None and b.grid is not None
        if grid is None or a.shape != b.shape:
            self.dequantized |= {f"{name}.codes": name for name in sources}
            self._float({**node, "op": "Add", "inputs": [f"{name}.codes" for name in sources]})
            return
        ratio_a, ratio_b, constant = sum_numbers(a.grid, b.grid, grid)
        target = self.new(out, a.shape, grid)
        first = self.native.layer(
            "sum", a.buffer, b.buffer, target.buffer, math.prod(a.shape), float(ratio_a),
            float(ratio_b), float(constant), 0, 2 ** grid["bits"] - 1,
        )  # fmt: skip
        self.note("add", first)

    def _mean(self, node: dict[str, Any]) -> None:
        x, out = self.codes(node["inputs"][0]), node["output"]
        assert x.grid is not None
        grid = self.grids.get(out)
        if len(x.shape) != 4:
            self._float({**node, "op": "GlobalAveragePool"})
            return
        pixels = math.prod(x.shape[2:])
        if grid is None:
            whole = {"kernel": x.shape[2:], "strides": (1, 1), "pads": (0, 0, 0, 0)}
            self._window_sums({**node, **whole}, FLOATS, _F(x.grid["scale"]) / _F(pixels))
            return
        target = self.new(out, (*x.shape[:2], 1, 1), grid)
        multiplier = _F(x.grid["scale"]) / (_F(grid["scale"]) * _F(pixels))
        first = self.native.layer(
            "mean", x.buffer, target.buffer, self.batch, pixels, x.shape[1],
            x.grid["zero_point"], float(multiplier), grid["zero_point"], 0, 2 ** grid["bits"] - 1,
        )  # fmt: skip
        self.note("global_average_pool", first)

    def _average_pool(self, node: dict[str, Any]) -> None:
        x, out = self.codes(node["inputs"][0]), node["output"]
        grid = self.grids.get(out)
        assert x.grid is not None
        if grid is None or len(x.shape) != 4:
            names = {"kernel": "kernel_shape", "strides": "strides", "pads": "pads"}
            attributes = {theirs: node[ours] for ours, theirs in names.items()}
            attributes["count_include_pad"] = 1
            self._float({**node, "op": "AveragePool", "attributes": attributes})
            return
        multiplier = _F(x.grid["scale"]) / (_F(grid["scale"]) * _F(math.prod(node["kernel"])))
        shares = pool_shares(node, x.shape[2:])
        form = {**node, "pads": pool_pads(node, x.shape[2:])}
        if shares is None:
            self._window_sums(form, CODES, multiplier)
            return
        sums = self._window_sums({**form, "output": f"{out}.sums"}, SUMS, _F(1))
        target = self.new(out, sums.shape, grid)
        first = self.native.layer(
            "shares", sums.buffer, target.buffer, self.batch, shares.size, sums.shape[1],
            (shares * multiplier).astype(_F), grid["zero_point"], 2 ** grid["bits"] - 1,
        )  # fmt: skip
        self.note("average_pool", first)

    def _window_sums(self, node: dict[str, Any], kind: int, multiplier: np.float32) -> Tensor:
        """Add up windows of codes: a depthwise convolution whose weights are ones."""
        x, out, grid = self.codes(node["inputs"][0]), node["output"], self.grids.get(node["output"])
        assert x.grid is not None
        channels = x.shape[1]
        codes = grid or {"zero_point": 0, "bits": 8}
        spec = ConvSpec(
            height=x.shape[2], width=x.shape[3], channels=channels, kernel=tuple(node["kernel"]),
            stride=tuple(node["strides"]), pads=tuple(node["pads"]), groups=channels,
            batch=self.batch, outputs=channels, largest=2 ** x.grid["bits"] - 1, kind=kind,
            zero_point=x.grid["zero_point"], out_zero_point=codes["zero_point"],
            out_high=2 ** codes["bits"] - 1,
        )  # fmt: skip
        target = self.new(out, (self.batch, channels, *spec.out_size), grid)
        first = self.native.conv(
            x.buffer, target.buffer, spec, np.ones((channels, 1, *node["kernel"]), np.int8),
            factor=np.ones(channels, np.int32), bias=np.zeros(channels, np.int32),
            multiplier=np.full(channels, multiplier, _F),
        )  # fmt: skip
        choose_kernel(self.native, first, self._rounds)
        self.note(node["op"], first)
        return target

    def _max_pool(self, node: dict[str, Any]) -> None:
        x = self.codes(node["inputs"][0])
        batch, channels, height, width = x.shape
        if node["op"] == "global_max_pool":
            node = {**node, "kernel": (height, width), "strides": (1, 1), "pads": (0, 0, 0, 0)}
        pads = pool_pads(node, (height, width))
        size = [
            (n + pads[i] + pads[i + 2] - node["kernel"][i]) // node["strides"][i] + 1
            for i, n in enumerate((height, width))
        ]
        target = self.new(node["output"], (batch, channels, *size), x.grid)
        first = self.native.layer(
            "max_pool", x.buffer, target.buffer, batch, height, width, channels,
            *node["kernel"], *node["strides"], *pads,
        )  # fmt: skip
        self.note("max_pool", first)

    def _on_channels(self, node: dict[str, Any]) -> bool:
        tensors = [self.tensors.get(name) for name in node["inputs"]]
        return all(t is not None and t.grid is not None for t in tensors) and (
            node["axis"] % len(self.shape(node["inputs"][0])) == 1
        )

    def _concat(self, node: dict[str, Any]) -> None:
        parts = [self.codes(name) for name in node["inputs"]]
        total = sum(p.shape[1] for p in parts)
        shape = (self.batch, total, *parts[0].shape[2:])
        target = self.new(node["output"], shape, parts[0].grid)
        first, offset = self.native.layers, 0
        pixels = self.batch * math.prod(shape[2:])
        for part in parts:
            width = part.shape[1]
            self.native.layer(
                "copy", part.buffer, target.buffer, pixels, width, width, 0, total, offset
            )
            offset += width
        self.note("concat", first)

    def _view(self, node: dict[str, Any]) -> None:
        """Move codes about: renaming where memory stays as it is."""
        x = self.tensors[node["inputs"][0]]
        out, shape = node["output"], floats.view_shape(node, x.shape)
        moves = node["op"] not in ("flatten", "reshape")
        zero = x.grid["zero_point"] if x.grid else 0
        trivial = len(x.shape) != 4 or math.prod(x.shape[2:]) == 1
        if not moves and trivial and len(shape) != 4:
            self.tensors[out] = Tensor(x.buffer, shape, x.grid)
        elif x.grid is None:
            self._float(node)
        elif not moves and len(shape) == 2:
            target = self.new(out, shape, x.grid)
            first = self.native.layer(
                "planar", x.buffer, target.buffer, self.batch, math.prod(x.shape[2:]), x.shape[1]
            )
            self.note(node["op"], first)
        else:
            target = self.new(out, shape, x.grid)
            source = self.native.array(x.buffer, x.stored, np.uint8)
            view = self.native.array(target.buffer, target.stored, np.uint8)

            def rearrange() -> None:
                codes = source.transpose(0, 3, 1, 2) if source.ndim == 4 else source
                codes = floats.rearranged(node, codes, zero)
                view[...] = codes.transpose(0, 2, 3, 1) if codes.ndim == 4 else codes

            self.steps.append(rearrange)

    def _fused_elementwise(self, node: dict[str, Any]) -> bool:
        """Run a float function between codes and codes on the codes, where it is one."""
        between = between_codes(node, self._readers, self.dequantized)
        if between is None:
            return False
        quantise, sources = between
        out = quantise["output"]
        grid = self.grids[out]
        high = 2 ** grid["bits"] - 1
        operands = [self.codes(name) for name in sources]
        if node["op"] == "Add" and operands[0].shape == operands[1].shape:
            self._add(sources, out, node)
            self._done.add(id(quantise))
            return True
        elif node["op"] == "Mul" and len(operands) == 2:
            a, b = sorted(operands, key=lambda t: -math.prod(t.shape))
            shared = len(a.shape) == 4 and b.shape == (*a.shape[:2], 1, 1)
            if not shared and a.shape != b.shape:
                return False
            assert a.grid is not None and b.grid is not None
            channels = a.shape[1] if shared else math.prod(a.shape[1:])
            multiplier = _F(a.grid["scale"]) * _F(b.grid["scale"]) / _F(grid["scale"])
            target = self.new(out, a.shape, grid)
            first = self.native.layer(
                "product", a.buffer, b.buffer, target.buffer, self.batch,
                math.prod(a.shape[1:]) // channels, channels, a.grid["zero_point"],
                b.grid["zero_point"], float(multiplier), grid["zero_point"], 0, high,
            )  # fmt: skip
        else:
            return False
        self._done.add(id(quantise))
        self.note(node["op"], first)
        return True

    # Floats between codes.

    def _python(self, name: str, step: Callable[[], None]) -> None:
        self.float_operations.append(name)
        self.steps.append(step)

    def _float(self, node: dict[str, Any]) -> None:
        outputs = node.get("outputs", [node["output"]])
        constants = {k: np.array(v) for k, v in node.get("constants", {}).items()}
        constants |= {k: self.model.tensors[k] for k in node["inputs"] if k in self.model.tensors}
        run = floats.operation(node, self.model)

        def arguments() -> list[np.ndarray | None]:
            return [
                constants[name] if name in constants else self.array(name) if name else None
                for name in node["inputs"]
            ]

        def step() -> None:
            result = run(*arguments())
            results = result if isinstance(result, list) else [result]
            self.arrays.update(zip(outputs, results, strict=True))

        # Once now, on zeros, for the shapes of what follows.
        with np.errstate(all="ignore"):
            step()
        # What it gives has as many axes as what it takes, of the operations that are native.
        rank = max(1, np.ndim(self.arrays[outputs[0]]))
        if native_operation(node["op"], node.get("attributes", {}), rank):
            self.steps.append(step)
        else:
            self._python(node["op"], step)
