"""Low-bit models run in NumPy: what every kernel has to reproduce, bit for bit.

Sums are exact integers; scaling is in float32 with the operations in the order that
docs/lowbit-format.md gives, which is that of ONNX Runtime's integer kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import PackedModel, fill_factors

_F = np.float32


class PackedReference:
    """A low-bit model as a function.

    Args:
        model: from :func:`search_spaces.model_files.packed_model.read_packed_model` or
            :func:`supernet.onnx.packing.pack_onnx`.
    """

    def __init__(self, model: PackedModel) -> None:
        self.model = model
        self.grids = model.graph["grids"]
        self._weights = {
            node["output"]: model.codes(node["weights"])
            for node in model.nodes()
            if "codes" in node.get("weights", {})
        }

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """Run float32 ``images`` (batch, channels, height, width); returns (batch, outputs).

        Raises:
            InputError: the graph holds an operation that this module does not know.
        """
        values = self.run(images)
        return values[self.model.graph["output"]]

    def run(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Return every tensor of the graph: codes as int32, others float32."""
        values = {self.model.graph["input"]["name"]: np.asarray(images, _F)}
        for node in self.model.nodes():
            constants = {k: np.array(v) for k, v in node.get("constants", {}).items()}
            constants |= self.model.tensors
            inputs = [
                None if not name else values.get(name, constants.get(name))
                for name in node["inputs"]
            ]
            result = self._run_node(node, inputs)
            outputs = node.get("outputs", [node["output"]])
            results = result if isinstance(result, list) else [result]
            values.update(zip(outputs, results, strict=True))
        return values

    def _run_node(self, node: dict[str, Any], inputs: list[Any]) -> Any:
        op = node["op"]
        grids = [self.grids.get(name) for name in node["inputs"]]
        out = self.grids.get(node["output"])
        if op in ("conv", "linear"):
            return self._layer(node, inputs[0], grids[0], out)
        if op == "quantize":
            return quantize(inputs[0], out)
        if op == "dequantize":
            return dequantize(inputs[0], grids[0])
        if op == "requantize":
            return quantize(dequantize(inputs[0], grids[0]), out)
        if op == "add":
            return _add(inputs, grids, out)
        if op == "global_average_pool":
            return _average(inputs[0], grids[0], out)
        if op == "max_pool":
            return max_pool(inputs[0], node["kernel"], node["strides"], node["pads"])
        if op in _ON_ANY:
            return _ON_ANY[op](node, inputs)
        if op in _FLOATS:
            return _FLOATS[op](node.get("attributes", {}), *inputs)
        raise InputError(f"the NumPy reference has no operation {op!r}")

    def _layer(self, node: dict[str, Any], x: np.ndarray, grid: Any, out: Any) -> np.ndarray:
        weights = node["weights"]
        tensors = self.model.tensors
        bias = tensors[weights["bias"]]
        if weights["fill"] is None:
            if "weight" in weights:
                w = tensors[weights["weight"]]
            else:
                w = self._weights[node["output"]].astype(_F)
                w = w * _column(tensors[weights["scale"]], w.ndim)
            y = _products(node, x.astype(np.float64), w.astype(np.float64))
            return (y + _per_channel(bias, y.ndim, node)).astype(_F)
        codes = self._weights[node["output"]]
        codes = codes * _column(fill_factors(codes, weights["fill"]), codes.ndim)
        # Doubles hold these integers exactly.
        inputs = (x - grid["zero_point"]).astype(np.float64)
        acc = _products(node, inputs, codes.astype(np.float64))
        acc = acc + _per_channel(bias, acc.ndim, node)
        multiplier = _F(grid["scale"]) * tensors[weights["scale"]]
        if out is None:
            return acc.astype(_F) * _per_channel(multiplier, acc.ndim, node)
        multiplier = multiplier / _F(out["scale"])
        scaled = acc.astype(_F) * _per_channel(multiplier, acc.ndim, node)
        return _clamped(scaled, out)


def quantize(x: np.ndarray, grid: dict[str, Any]) -> np.ndarray:
    """Return the int32 codes of float32 ``x`` of any shape."""
    return _clamped(x / _F(grid["scale"]), grid)


def dequantize(codes: np.ndarray, grid: dict[str, Any]) -> np.ndarray:
    """Return the float32 values of ``codes`` of any shape."""
    return (codes - grid["zero_point"]).astype(_F) * _F(grid["scale"])


def max_pool(x: np.ndarray, kernel: Any, strides: Any, pads: Any) -> np.ndarray:
    """Pool ``x`` (batch, channels, height, width), codes or floats."""
    lowest = -np.inf if x.dtype.kind == "f" else np.iinfo(x.dtype).min
    return _windows(x, kernel, strides, pads, [1, 1], fill=lowest).max((-2, -1))


def _clamped(x: np.ndarray, grid: dict[str, Any]) -> np.ndarray:
    codes = np.rint(x).astype(np.int64) + grid["zero_point"]
    return codes.clip(0, 2 ** grid["bits"] - 1).astype(np.int32)


def _products(node: dict[str, Any], x: np.ndarray, w: np.ndarray) -> np.ndarray:
    """Return the sums of a layer without bias."""
    if node["op"] == "linear":
        return x @ w.T
    groups = node["groups"]
    windows = _windows(x, node["kernel"], node["strides"], node["pads"], node["dilations"])
    b, c, h, v = windows.shape[:4]
    windows = windows.reshape(b, groups, c // groups, h, v, *windows.shape[4:])
    w = w.reshape(groups, -1, *w.shape[1:])
    y = np.einsum("bgchvij,gocij->bgohv", windows, w, optimize=True)
    return y.reshape(b, -1, h, v)


def _windows(
    x: np.ndarray, kernel: Any, strides: Any, pads: Any, dilations: Any, *, fill: float = 0
) -> np.ndarray:
    """Return (batch, channels, out height, out width, kernel height, kernel width)."""
    top, left, bottom, right = pads
    x = np.pad(x, ((0, 0), (0, 0), (top, bottom), (left, right)), constant_values=fill)
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    view = sliding_window_view(x, spans, axis=(2, 3))
    return view[:, :, :: strides[0], :: strides[1], :: dilations[0], :: dilations[1]]


def _add(inputs: list[np.ndarray], grids: list[Any], out: Any) -> np.ndarray:
    ratio_a, ratio_b = (_F(grid["scale"]) / _F(out["scale"]) for grid in grids)
    zero_a, zero_b = (_F(grid["zero_point"]) for grid in grids)
    constant = _F(out["zero_point"]) - _fma(zero_a, ratio_a, ratio_b * zero_b)
    total = _fma(inputs[0], ratio_a, _fma(inputs[1], ratio_b, constant))
    return _clamped(total, {"zero_point": 0, "bits": out["bits"]})


def _fma(x: Any, y: Any, z: Any) -> Any:
    # A product of two floats is exact in double, so this rounds once, but for rare double rounding.
    return (np.float64(x) * np.float64(y) + np.float64(z)).astype(_F)


def _average(x: np.ndarray, grid: Any, out: Any) -> np.ndarray:
    count = x.shape[2] * x.shape[3]
    acc = (x - grid["zero_point"]).sum((2, 3), keepdims=True)
    multiplier = _F(grid["scale"]) / (_F(out["scale"]) * _F(count))
    return _clamped(acc.astype(_F) * multiplier, out)


def _column(values: np.ndarray, rank: int) -> np.ndarray:
    return values.reshape(-1, *[1] * (rank - 1))


def _per_channel(values: np.ndarray, rank: int, node: dict[str, Any]) -> np.ndarray:
    return values if node["op"] == "linear" else values.reshape(-1, 1, 1)


def _reshaped(x: np.ndarray, shape: list[int]) -> np.ndarray:
    return x.reshape([x.shape[i] if size == 0 else size for i, size in enumerate(shape)])


def _pooled_floats(a: dict[str, Any], x: np.ndarray) -> np.ndarray:
    return max_pool(x, a["kernel_shape"], a["strides"], a["pads"])


def _averaged_floats(a: dict[str, Any], x: np.ndarray) -> np.ndarray:
    if a.get("count_include_pad", 0) != 1 and any(a["pads"]):
        raise InputError("the NumPy reference averages with padding counted only")
    windows = _windows(x, a["kernel_shape"], a["strides"], a["pads"], [1, 1])
    return windows.mean((-2, -1), dtype=_F)


_ON_ANY: dict[str, Callable[..., np.ndarray]] = {
    "flatten": lambda n, x: x[0].reshape(*x[0].shape[: n["axis"]], -1),
    "reshape": lambda n, x: _reshaped(x[0], n["shape"]),
    "transpose": lambda n, x: x[0].transpose(n["order"]),
    "concat": lambda n, x: np.concatenate(x, n["axis"]),
}

_FLOATS: dict[str, Callable[..., Any]] = {
    "Relu": lambda a, x: np.maximum(x, _F(0)),
    "Clip": lambda a, x, low=None, high=None: np.clip(x, low, high).astype(_F),
    "HardSwish": lambda a, x: x * np.clip(x / _F(6) + _F(0.5), _F(0), _F(1)),
    "HardSigmoid": lambda a, x: np.clip(_F(a["alpha"]) * x + _F(a["beta"]), _F(0), _F(1)),
    "Sigmoid": lambda a, x: _F(1) / (_F(1) + np.exp(-x)),
    "Add": lambda a, x, y: (x + y).astype(_F),
    "Sub": lambda a, x, y: (x - y).astype(_F),
    "Mul": lambda a, x, y: (x * y).astype(_F),
    "Div": lambda a, x, y: (x / y).astype(_F),
    "GlobalAveragePool": lambda a, x: x.mean((2, 3), keepdims=True, dtype=_F),
    "MaxPool": _pooled_floats,
    "AveragePool": _averaged_floats,
    "Flatten": lambda a, x: x.reshape(*x.shape[: a.get("axis", 1)], -1),
    "Reshape": lambda a, x, shape: _reshaped(x, shape.tolist()),
    "Transpose": lambda a, x: x.transpose(a["perm"]),
    "Concat": lambda a, *x: np.concatenate(x, a["axis"]),
}
