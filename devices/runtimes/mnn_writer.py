"""ONNX graphs with float weights as MNN files, built with MNN's expressions.

MNN's own converter is a command whose Python wrapper installs packages and reports to its
makers, so it is never called. Feature maps stay in MNN's channel-blocked order (NC4HW4) from
one convolution to the next; other operators take them in the plain one.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from devices.runtime import TensorSpec
from devices.runtimes.graph import largest_axis, require_float
from search_spaces.errors import InputError
from search_spaces.model_files.graph import Graph, Node

MnnOperation = Callable[["MnnWriter", Node], Any]


class MnnWriter:
    """Builds the variables of one graph.

    Args:
        library: the module ``MNN.expr``.
        graph: what to write.
        inputs: its inputs, every axis known.

    Raises:
        InputError: the file holds an operator that has no translation.
    """

    def __init__(self, library: Any, graph: Graph, inputs: Sequence[TensorSpec]) -> None:
        unknown = sorted({node.op for node in graph.nodes} - set(_OPERATIONS))
        if unknown:
            raise InputError(f"no MNN translation of the operators {', '.join(unknown)}")
        self.mnn, self.graph = library, graph
        self._values: dict[str, Any] = {}
        for spec in inputs:
            kind = library.float if spec.dtype.startswith("float") else library.int
            value = library.placeholder(list(spec.shape), library.NCHW, kind)
            value.name = spec.name
            self._values[spec.name] = value

    def write(self, path: Path) -> None:
        """Write the file; its inputs and outputs have the names of the graph's."""
        for node in self.graph.nodes:
            made = _OPERATIONS[node.op](self, node)
            outputs = made if isinstance(made, (list, tuple)) else [made]
            self._values.update(zip(node.outputs, outputs, strict=False))
        results = []
        for name in self.graph.outputs:
            # An operator of its own, so that a name never falls on an input or a constant.
            result = self.mnn.reshape(self.plain(name), self.plain(name).shape)
            result.name = name
            results.append(result)
        self.mnn.save(results, str(path))

    def value(self, name: str) -> Any:
        """Return a tensor in whatever order it is in."""
        if name not in self._values:
            self._values[name] = self.constant(self.graph.constants[name])
        return self._values[name]

    def plain(self, name: str) -> Any:
        """Return a tensor in ONNX's order of axes."""
        return self.in_order(self.value(name), self.mnn.NCHW)

    def blocked(self, name: str) -> Any:
        """Return an image in the order that convolutions and pools take."""
        return self.in_order(self.value(name), self.mnn.NC4HW4)

    def in_order(self, value: Any, order: Any) -> Any:
        """Return a tensor in an order."""
        if value.data_format == order or (len(value.shape) < 4 and order == self.mnn.NCHW):
            return value
        return self.mnn.convert(value, order)

    def constant(self, data: np.ndarray) -> Any:
        """Return a constant: floats, or whole numbers as int32."""
        whole = data.dtype.kind in "iub"
        data = np.ascontiguousarray(data, dtype=np.int32 if whole else np.float32)
        kind = self.mnn.int if whole else self.mnn.float
        return self.mnn.const(data.ravel(), list(data.shape), self.mnn.NCHW, kind)

    def number(self, value: float) -> Any:
        """Return a float scalar."""
        return self.mnn.const([float(value)], [], self.mnn.NCHW, self.mnn.float)

    def fixed(self, node: Node, index: int) -> list[Any] | None:
        """Return a constant input as a list, None when it is left out.

        Raises:
            InputError: it is computed.
        """
        name = node.input(index)
        if not name:
            return None
        if name not in self.graph.constants:
            raise InputError(f"{node.op} with a computed input {name!r} has no MNN translation")
        return np.atleast_1d(self.graph.constants[name]).tolist()


def _pads(node: Node) -> tuple[list[int], bool]:
    pads = list(node.attributes.get("pads", [0, 0, 0, 0]))
    if node.attributes.get("auto_pad", "NOTSET") != "NOTSET" or len(pads) != 4:
        raise InputError(f"{node.op} needs explicit pads and two axes for MNN")
    return pads, pads[:2] == pads[2:]


def _width_first(sizes: Sequence[int]) -> list[int]:
    """Return height and width in MNN's order of strides, pads, dilations and windows."""
    return [int(size) for size in reversed(sizes)]


def _conv(writer: MnnWriter, node: Node) -> Any:
    mnn, a = writer.mnn, node.attributes
    weight = writer.graph.constants.get(node.input(1))
    if weight is None or weight.ndim != 4:
        raise InputError("Conv needs constant weights over two axes for MNN")
    pads, even = _pads(node)
    image = writer.blocked(node.input(0))
    if not even:
        grown = [0, 0, 0, 0, pads[0], pads[2], pads[1], pads[3]]
        grown = mnn.const(grown, [4, 2], mnn.NCHW, mnn.int)
        image = mnn.convert(mnn.pad(writer.plain(node.input(0)), grown), mnn.NC4HW4)
        pads = [0, 0, 0, 0]
    bias = writer.graph.constants.get(node.input(2), np.zeros(len(weight), np.float32))
    return mnn.conv2d(
        image, writer.constant(weight), writer.constant(bias),
        _width_first(a.get("strides", (1, 1))), _width_first(pads[:2]),
        _width_first(a.get("dilations", (1, 1))),
        a.get("group", 1), mnn.CAFFE,
    )  # fmt: skip


def _gemm(writer: MnnWriter, node: Node) -> Any:
    mnn, a = writer.mnn, node.attributes
    weight = writer.graph.constants.get(node.input(1))
    if weight is None or a.get("transA") or a.get("alpha", 1.0) != 1 or a.get("beta", 1.0) != 1:
        raise InputError("Gemm needs constant weights, and neither transA, alpha nor beta, for MNN")
    weight = weight if a.get("transB") else weight.T
    bias = writer.graph.constants.get(node.input(2), np.zeros(len(weight), np.float32))
    rows = writer.plain(node.input(0))
    # A convolution of one pixel: MNN packs the weights of convolutions only.
    image = mnn.convert(mnn.reshape(rows, [*rows.shape, 1, 1]), mnn.NC4HW4)
    kernel = writer.constant(weight[:, :, None, None])
    made = mnn.conv2d(image, kernel, writer.constant(np.broadcast_to(bias, len(weight))))
    return mnn.reshape(mnn.convert(made, mnn.NCHW), [rows.shape[0], len(weight)])


def _clip(writer: MnnWriter, node: Node) -> Any:
    low, high = (writer.fixed(node, i) for i in (1, 2))
    low = node.attributes.get("min", low[0] if low else None)
    high = node.attributes.get("max", high[0] if high else None)
    value = writer.value(node.input(0))
    if low == 0 and high == 6:
        return writer.mnn.relu6(value)
    if low is not None:
        value = writer.mnn.maximum(value, writer.number(low))
    return value if high is None else writer.mnn.minimum(value, writer.number(high))


def _binary(name: str) -> MnnOperation:
    def write(writer: MnnWriter, node: Node) -> Any:
        first, second = node.input(0), node.input(1)
        x, y = writer.value(first), writer.value(second)
        if x.data_format != y.data_format or list(x.shape) != list(y.shape):
            x, y = writer.plain(first), writer.plain(second)
        return getattr(writer.mnn, name)(x, y)

    return write


def _unary(name: str) -> MnnOperation:
    return lambda writer, node: getattr(writer.mnn, name)(writer.value(node.input(0)))


def _hard_sigmoid(writer: MnnWriter, node: Node) -> Any:
    mnn, a = writer.mnn, node.attributes
    x = mnn.multiply(writer.value(node.input(0)), writer.number(a.get("alpha", 0.2)))
    x = mnn.add(x, writer.number(a.get("beta", 0.5)))
    return mnn.minimum(mnn.maximum(x, writer.number(0)), writer.number(1))


def _hard_swish(writer: MnnWriter, node: Node) -> Any:
    mnn, x = writer.mnn, writer.value(node.input(0))
    gate = mnn.relu6(mnn.add(x, writer.number(3)))
    return mnn.multiply(mnn.multiply(x, gate), writer.number(1 / 6))


def _global_pool(writer: MnnWriter, node: Node) -> Any:
    image = writer.blocked(node.input(0))
    return writer.mnn.avg_pool(image, _width_first(image.shape[2:]), [1, 1])


def _pool(name: str) -> MnnOperation:
    def write(writer: MnnWriter, node: Node) -> Any:
        a = node.attributes
        pads, even = _pads(node)
        counted = node.op == "AveragePool" and any(pads) and a.get("count_include_pad", 0)
        if not even or a.get("ceil_mode", 0) or counted or a.get("dilations", [1, 1]) != [1, 1]:
            raise InputError(f"{node.op} with these pads or rounding has no MNN translation")
        image, kernel = writer.blocked(node.input(0)), _width_first(a["kernel_shape"])
        call = getattr(writer.mnn, name)
        padding = writer.mnn.CAFFE if any(pads) else writer.mnn.VALID
        strides = _width_first(a.get("strides", (1, 1)))
        return call(image, kernel, strides, padding, _width_first(pads[:2]))

    return write


def _reduce_mean(writer: MnnWriter, node: Node) -> Any:
    value = writer.plain(node.input(0))
    axes = writer.fixed(node, 1) or list(node.attributes.get("axes", ())) or range(len(value.shape))
    axes = [axis % len(value.shape) for axis in axes]
    return writer.mnn.reduce_mean(value, axes, bool(node.attributes.get("keepdims", 1)))


def _flatten(writer: MnnWriter, node: Node) -> Any:
    value, axis = writer.plain(node.input(0)), node.attributes.get("axis", 1)
    sizes = [int(np.prod(part, dtype=int)) for part in (value.shape[:axis], value.shape[axis:])]
    return writer.mnn.reshape(value, sizes)


def _reshape(writer: MnnWriter, node: Node) -> Any:
    value, wanted = writer.plain(node.input(0)), writer.fixed(node, 1) or []
    sizes = [value.shape[i] if n == 0 else n for i, n in enumerate(wanted)]
    return writer.mnn.reshape(value, sizes)


def _transpose(writer: MnnWriter, node: Node) -> Any:
    value = writer.plain(node.input(0))
    order = node.attributes.get("perm", range(len(value.shape))[::-1])
    return writer.mnn.transpose(value, list(order))


def _softmax(writer: MnnWriter, node: Node) -> Any:
    return writer.mnn.softmax(writer.plain(node.input(0)), node.attributes.get("axis", -1))


def _concat(writer: MnnWriter, node: Node) -> Any:
    values = [writer.plain(name) for name in node.inputs]
    return writer.mnn.concat(values, node.attributes["axis"] % len(values[0].shape))


def _squeeze(writer: MnnWriter, node: Node) -> Any:
    value = writer.plain(node.input(0))
    axes = {axis % len(value.shape) for axis in writer.fixed(node, 1) or ()}
    kept = [n for i, n in enumerate(value.shape) if i not in axes and (axes or n != 1)]
    return writer.mnn.reshape(value, kept)


def _unsqueeze(writer: MnnWriter, node: Node) -> Any:
    value, axes = writer.plain(node.input(0)), writer.fixed(node, 1) or []
    rank = len(value.shape) + len(axes)
    places = {axis % rank for axis in axes}
    sizes = iter(value.shape)
    return writer.mnn.reshape(value, [1 if i in places else next(sizes) for i in range(rank)])


def _matmul(writer: MnnWriter, node: Node) -> Any:
    return writer.mnn.matmul(writer.plain(node.input(0)), writer.plain(node.input(1)))


def _layer_norm(writer: MnnWriter, node: Node) -> Any:
    mnn, x = writer.mnn, writer.plain(node.input(0))
    if node.attributes.get("axis", -1) % len(x.shape) != len(x.shape) - 1:
        raise InputError("LayerNormalization over several axes has no MNN translation")
    last = [len(x.shape) - 1]
    centred = mnn.subtract(x, mnn.reduce_mean(x, last, True))
    variance = mnn.reduce_mean(mnn.square(centred), last, True)
    scale = mnn.rsqrt(mnn.add(variance, writer.number(node.attributes.get("epsilon", 1e-5))))
    made = mnn.multiply(mnn.multiply(centred, scale), writer.plain(node.input(1)))
    return mnn.add(made, writer.plain(node.input(2))) if node.input(2) else made


def _cast(writer: MnnWriter, node: Node) -> Any:
    require_float(node, "MNN")
    return writer.mnn.cast(writer.plain(node.input(0)), writer.mnn.float)


def _arg_max(writer: MnnWriter, node: Node) -> Any:
    return writer.mnn.argmax(writer.plain(node.input(0)), largest_axis(node, "MNN"))


_OPERATIONS: Mapping[str, MnnOperation] = {
    "Conv": _conv,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "Clip": _clip,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _hard_swish,
    "GlobalAveragePool": _global_pool,
    "AveragePool": _pool("avg_pool"),
    "MaxPool": _pool("max_pool"),
    "ReduceMean": _reduce_mean,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Softmax": _softmax,
    "Concat": _concat,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "LayerNormalization": _layer_norm,
    "Cast": _cast,
    "ArgMax": _arg_max,
    "Identity": lambda writer, node: writer.value(node.input(0)),
    "Relu": _unary("relu"),
    "Sigmoid": _unary("sigmoid"),
    "Tanh": _unary("tanh"),
    "Gelu": _unary("gelu"),
    "Erf": _unary("erf"),
    "Sqrt": _unary("sqrt"),
    "Exp": _unary("exp"),
    "Neg": _unary("negative"),
    "Log": _unary("log"),
    "Add": _binary("add"),
    "Sub": _binary("subtract"),
    "Mul": _binary("multiply"),
    "Div": _binary("divide"),
    "Pow": _binary("pow"),
    "Max": _binary("maximum"),
    "Min": _binary("minimum"),
}
"""ONNX operator -> what builds its MNN counterpart."""


def write_mnn(library: Any, graph: Graph, path: Path, inputs: Sequence[TensorSpec]) -> None:
    """Write a float graph as an MNN file.

    Args:
        library: the module ``MNN.expr``.

    Raises:
        InputError: an operator, or the way it is used, has no translation.
    """
    library.lazy_eval(True)
    MnnWriter(library, graph, inputs).write(path)
