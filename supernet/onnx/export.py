"""Extracted networks as ONNX that runs on integers wherever the plan is quantised.

Quantised tensors are QuantizeLinear / DequantizeLinear pairs around plain operators (the
QDQ form), which runtimes fuse to integer kernels. Batch norm is folded: a channel's scale
becomes ``weight step * gamma / sqrt(variance + epsilon)`` and the codes stay what they were
in training.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import fx, nn

from search_spaces.atomic import write_atomic
from search_spaces.errors import InputError
from search_spaces.model_files.packed_model import fill_factors
from search_spaces.plan import FLOAT_BITS, STREAM_BITS
from supernet.onnx.graph import IR_VERSION, OPSET, GraphBuilder, Value, View
from supernet.onnx.operators import OPERATIONS, TRACED_BATCH, Context
from supernet.plain import PlainLayer, PlainNetwork, Source
from supernet.quantizers.lsq import weight_range

if TYPE_CHECKING:
    import onnx

INPUT, OUTPUT = "input", "logits"
"""Names of the exported network's tensors."""

WEIGHT_BITS = "weight_bits"
"""Key of a convolution's or linear layer's note of its nominal bits."""

LARGEST_CODE = 127
"""Largest size of a weight code that integer kernels get."""

REDUCED_CODE = 64
"""The same where pairs of products with 8-bit inputs are summed in 16 bits: 2 x 255 x 64 fits."""

_LARGEST_BIAS = 2**30
_SMALLEST_SCALE = 1e-12


@dataclass(frozen=True)
class FoldedLayer:
    """A layer with its batch norm folded in.

    Attributes:
        codes: weight codes in the weights' shape, int8, or int16 beyond 8 bits; ``None`` where
            weights are float.
        scale: positive float32 scale of each output channel, (out,).
        weight: float32 weights, where they are float.
        bias: float64 bias, (out,).
    """

    codes: np.ndarray | None
    scale: np.ndarray | None
    weight: np.ndarray | None
    bias: np.ndarray


@dataclass(frozen=True)
class ExportSummary:
    """What an exported file holds.

    Attributes:
        path: the file.
        weights_kib: packed weights at their nominal bits, scales and biases, in KiB.
        size_kib: bytes of the file, in KiB.
        reduced_layers: names of layers whose codes were reduced to 7 bits.
    """

    path: Path
    weights_kib: float
    size_kib: float
    reduced_layers: tuple[str, ...]


@torch.no_grad()
def export_onnx(
    network: PlainNetwork,
    path: Path,
    *,
    batch: int | None = None,
    weight_storage: str = "packed",
    reduce_range: bool = False,
    metadata: Mapping[str, str] | None = None,
) -> ExportSummary:
    """Write ``network`` as ONNX, atomically.

    The file has one input ``input`` (batch, channels, height, width), float32, and one output
    ``logits`` (batch, outputs), float32.

    Args:
        network: from :func:`supernet.plain.extract_network`, in evaluation mode.
        path: file to write.
        batch: fixed batch size; by default any.
        weight_storage: ``packed`` stores codes of 2 bits, and of 3 and 4 bits, as INT2 and INT4
            tensors which the runtime widens once when it loads the file; ``int8`` stores all
            as INT8, for runtimes without the small types. The speed is the same.
        reduce_range: keep weight codes within 7 bits where a processor without dot-product
            instructions would saturate: 8-bit inputs times codes beyond 64. Such channels
            get twice the step and codes rounded to it.
        metadata: text stored in the file.

    Raises:
        InputError: an unknown ``weight_storage``; an operation of a dataflow that has no
            translation; weights whose folded codes do not fit their bits.
    """
    if weight_storage not in ("packed", "int8"):
        raise InputError(f"weight_storage is {weight_storage!r}; use 'packed' or 'int8'")
    translator = _Translator(network, packed=weight_storage == "packed", reduce_range=reduce_range)
    model = translator.model(batch, dict(metadata or {}))
    path = Path(path)
    data = model.SerializeToString()
    write_atomic(path, lambda temporary: _write_bytes(temporary, data))
    beside = 4 * sum(operator.parameters for operator in network.plan.operators())
    return ExportSummary(
        path=path,
        weights_kib=(translator.packed_bytes + beside) / 1024,
        size_kib=len(data) / 1024,
        reduced_layers=tuple(translator.reduced),
    )


@torch.no_grad()
def fold(layer: PlainLayer) -> FoldedLayer:
    """Fold the batch norm of ``layer`` into scales (or float weights) and bias.

    Raises:
        InputError: a code does not fit its bits once its scale is made positive.
    """
    out = layer.op.weight.shape[0]
    bias = np.zeros(out) if layer.op.bias is None else _array(layer.op.bias)
    gain = np.ones(out)
    norm = layer.norm
    if isinstance(norm, nn.BatchNorm2d):
        assert norm.running_mean is not None and norm.running_var is not None
        gain = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
        bias = _array(norm.bias) + (bias - _array(norm.running_mean)) * gain
    elif not isinstance(norm, nn.Identity):
        raise InputError(f"{layer.layer.name}: cannot fold a {type(norm).__name__}")
    if layer.weight_step is None:
        weight = _array(layer.op.weight) * _column(gain, layer.op.weight.dim())
        return FoldedLayer(None, None, weight.astype(np.float32), bias)
    scale = np.broadcast_to(_array(layer.weight_step), (out,)) * gain
    weight = _array(layer.op.weight)
    codes = np.round(weight / _column(_array(layer.weight_step), weight.ndim)).astype(np.int64)
    codes = codes * _column(np.where(scale < 0, -1, np.where(scale == 0, 0, 1)), codes.ndim)
    low, high = layer.code_range
    if codes.size and (codes.min() < low or codes.max() > high):
        raise InputError(
            f"{layer.layer.name}: folding the batch norm turns codes to "
            f"{codes.min()}..{codes.max()}, beyond {layer.layer.weight_bits} bits; give "
            "weight_step the sign of the batch norm's scale"
        )
    scale = np.maximum(np.abs(scale), _SMALLEST_SCALE)
    kind = np.int8 if layer.layer.weight_bits <= 8 else np.int16
    return FoldedLayer(codes.astype(kind), scale.astype(np.float32), None, bias)


def reduce_codes(codes: np.ndarray, scale: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Halve the codes of the output channels that exceed 7 bits.

    Pairs of products with 8-bit activations are summed in 16 bits by processors without
    dot-product instructions; two times 255 x 64 fits, larger codes saturate.

    Returns:
        Codes within -64..64, and scales to match.
    """
    size = np.abs(codes.astype(np.int16)).reshape(len(codes), -1).max(1)
    large = size > REDUCED_CODE
    halved = np.round(codes / 2).astype(np.int8)
    return (
        np.where(_column(large, codes.ndim), halved, codes),
        np.where(large, scale * 2, scale).astype(np.float32),
    )


class _Tracer(fx.Tracer):
    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, (PlainLayer, Source))


class _Translator:
    """Runs the traced network with names of tensors in place of tensors."""

    def __init__(self, network: PlainNetwork, *, packed: bool, reduce_range: bool) -> None:
        self.network = network
        self.packed = packed
        self.reduce_range = reduce_range
        self.graph = GraphBuilder()
        self.packed_bytes = 0
        self.reduced: list[str] = []
        self._modules = dict(network.named_modules())
        self._node: fx.Node | None = None
        self._nodes: dict[int, fx.Node] = {}
        self._keep: list[Value] = []
        try:
            self._traced = _Tracer().trace(network)
        except (fx.proxy.TraceError, TypeError) as error:
            raise InputError(
                f"the dataflow of a block depends on values of its tensors and cannot be "
                f"exported: {error}"
            ) from error
        self._shapes_known = False

    def model(self, batch: int | None, metadata: dict[str, str]) -> onnx.ModelProto:
        """Return the ONNX model."""
        from onnx import TensorProto, helper

        result = self._run()
        self.graph.node("Identity", [self.graph.tensor(result)], name=OUTPUT)
        size = "batch" if batch is None else batch
        plan = self.network.plan
        graph = helper.make_graph(
            self.graph.nodes,
            plan.space,
            [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [size, *plan.input_shape])],
            [helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [size, plan.outputs])],
            self.graph.initializers,
        )
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
            producer_name="edge-nas",
        )
        helper.set_model_props(model, metadata)
        return model

    def _run(self) -> Value:
        environment: dict[fx.Node, Any] = {}
        context = Context(self.graph, self._shape, self._own_shape)
        for node in self._traced.nodes:
            self._node = node
            arguments = fx.node.map_arg(node.args, environment.__getitem__)
            options = fx.node.map_arg(node.kwargs, environment.__getitem__)
            if node.op == "placeholder":
                self.graph.unique(INPUT)
                result: Any = Value(INPUT)
            elif node.op == "get_attr":
                tensor: Any = self.network
                for part in node.target.split("."):
                    tensor = getattr(tensor, part)
                result = Value(self.graph.constant(tensor.detach().numpy(), name=node.target))
            elif node.op == "call_module":
                module = self._modules[node.target]
                translate: Callable[..., Value] = (
                    self._layer if isinstance(module, PlainLayer) else self._source
                )
                result = translate(module, *arguments)
            elif node.op == "output":
                return arguments[0]
            else:
                result = self._call(context, node, arguments, options)
            environment[node] = result
            if isinstance(result, Value):
                self._nodes[id(result)] = node
                self._keep.append(result)
        raise AssertionError("a traced graph ends with its output")

    def _call(self, context: Context, node: fx.Node, arguments: Any, options: Any) -> Any:
        name = node.target if isinstance(node.target, str) else node.target.__name__
        if name in ("size", "dim") or (name == "getattr" and arguments[1] in ("shape", "ndim")):
            shape = self._shape(arguments[0])
            if name == "size":
                return shape[arguments[1]] if len(arguments) > 1 else shape
            return shape if name == "getattr" and arguments[1] == "shape" else len(shape)
        if node.op == "call_function" and not any(isinstance(a, Value) for a in _flat(arguments)):
            assert callable(node.target)  # arithmetic on sizes
            return node.target(*arguments, **options)
        return OPERATIONS.get(name)(context, *arguments, **options)

    def _source(self, source: Source, x: Value) -> Value:
        if source.before is not None and source.bits < FLOAT_BITS:
            step, zero_point = source.before
            x = self.graph.quantize(x, step=step, zero_point=zero_point, bits=STREAM_BITS)
        if source.bits >= FLOAT_BITS or not (source.source == "relu" and source.zero_point == 0):
            # Quantising to codes from zero up is a ReLU already.
            x = self._activate(x, source.source)
        if source.bits >= FLOAT_BITS:
            return x
        return self.graph.quantize(
            x, step=source.step, zero_point=source.zero_point, bits=source.bits
        )

    def _activate(self, x: Value, name: str) -> Value:
        if name in ("none", "stream"):
            return x
        translation = {"relu": "relu", "hswish": "hardswish", "hsigmoid": "hardsigmoid"}.get(name)
        context = Context(self.graph, self._shape, self._own_shape)
        return OPERATIONS.get(translation or name)(context, x)

    def _layer(self, layer: PlainLayer, x: Value) -> Value:
        x = self._source(layer.source, x)
        if isinstance(layer.op, nn.Linear) and len(self._own_shape()) > 2:
            # The integer kernel with a bias takes matrices, so tokens become rows.
            rows = self.graph.rearrange(x, _reshaped((-1, layer.op.in_features)))
            shape = (-1, *self._own_shape()[1:])
            return self.graph.rearrange(self._product(layer, rows), _reshaped(shape))
        return self._product(layer, x)

    def _product(self, layer: PlainLayer, x: Value) -> Value:
        folded = fold(layer)
        name = layer.layer.name
        if folded.codes is None:
            assert folded.weight is not None
            self.packed_bytes += folded.weight.nbytes + 4 * len(folded.bias)
            weight = self.graph.constant(folded.weight, name=f"{name}.weight")
            bias = self.graph.constant(folded.bias.astype(np.float32), name=f"{name}.bias")
            return self._operator(layer, self.graph.tensor(x), weight, bias)
        codes, scale = folded.codes, folded.scale
        assert scale is not None
        bits = layer.layer.weight_bits
        if x.grid is None or x.grid.bits > 8 or bits > 8:
            # No integer kernel takes these; weights are dequantised once, at loading.
            self._count(codes, bits)
            weight = self._float_weight(layer, codes, scale)
            bias = self.graph.constant(folded.bias.astype(np.float32), name=f"{name}.bias")
            return self._operator(layer, self.graph.tensor(x), weight, bias)
        saturates = self.reduce_range and x.grid.bits == 8
        if saturates and np.abs(codes.astype(np.int16)).max() > REDUCED_CODE:
            codes, scale = reduce_codes(codes, scale)
            self.reduced.append(name)
        codes, scale = _room_for_bias(codes, scale, folded.bias, x.grid.step)
        self._count(codes, bits)
        # In units of codes that fill int8 the whole-numbered bias is fine enough; with 2 bits the
        # sum of a depthwise convolution spans a few units only.
        factor = fill_factors(codes, REDUCED_CODE if saturates else LARGEST_CODE)
        scale = (scale / factor).astype(np.float32)
        weight = self.graph.node(
            "DequantizeLinear",
            # Runtimes fuse a linear layer only if the zero points are written out.
            [
                self._spread_codes(codes, factor, bits, name),
                self.graph.constant(scale, name=f"{name}.scale"),
                self._zeros(len(codes), np.int8),
            ],
            axis=0,
        )
        bias_scale = (np.float32(x.grid.step) * scale).astype(np.float32)
        bias_codes = np.round(folded.bias / bias_scale.astype(np.float64)).astype(np.int32)
        bias = self.graph.node(
            "DequantizeLinear",
            [
                self.graph.constant(bias_codes, name=f"{name}.bias_codes"),
                self.graph.constant(bias_scale, name=f"{name}.bias_scale"),
                self._zeros(len(codes), np.int32),
            ],
            axis=0,
        )
        return self._operator(layer, self.graph.tensor(x), weight, bias)

    def _operator(self, layer: PlainLayer, x: str, weight: str, bias: str) -> Value:
        op, name = layer.op, layer.layer.name
        if isinstance(op, nn.Linear):
            if len(self._own_shape()) == 2:
                product = self.graph.node("Gemm", [x, weight, bias], name=name, transB=1)
                self._note_bits(layer)
                return Value(product)
            turned = self.graph.node("Transpose", [weight], perm=[1, 0])
            product = self.graph.node("MatMul", [x, turned], name=name)
            self._note_bits(layer)
            return Value(self.graph.node("Add", [product, bias]))
        if isinstance(op.padding, str) or op.padding_mode != "zeros":
            raise InputError(f"{name}: only zero padding by numbers can be exported")
        result = self.graph.node(
            "Conv",
            [x, weight, bias],
            name=name,
            kernel_shape=list(op.kernel_size),
            strides=list(op.stride),
            pads=[*op.padding, *op.padding],
            dilations=list(op.dilation),
            group=op.groups,
        )
        self._note_bits(layer)
        return Value(result)

    def _note_bits(self, layer: PlainLayer) -> None:
        # What a packed file stores a code in; the codes of 8 bits may happen to fit 7.
        if layer.layer.weight_bits < FLOAT_BITS:
            note = self.graph.nodes[-1].metadata_props.add()
            note.key, note.value = WEIGHT_BITS, str(layer.layer.weight_bits)

    def _stored(self, codes: np.ndarray, bits: int, name: str) -> str:
        width = _stored_bits(codes) if self.packed and bits <= 4 else 8
        if width == 8:
            return self.graph.constant(codes, name=f"{name}.codes")
        return self.graph.packed(codes, max(width, 2 if bits <= 2 else 4), name=f"{name}.codes")

    def _spread_codes(self, codes: np.ndarray, factor: np.ndarray, bits: int, name: str) -> str:
        """Return int8 codes times ``factor``; a runtime computes this once, at loading."""
        from onnx import TensorProto

        if not self.packed or bits > 4 or _stored_bits(codes) == 8:
            spread = (codes * _column(factor, codes.ndim)).astype(np.int8)
            return self.graph.constant(spread, name=f"{name}.codes")
        stored = self._stored(codes, bits, name)
        wide = self.graph.node("Cast", [stored], to=TensorProto.INT32)
        column = self.graph.constant(_column(factor, codes.ndim), name="factor")
        spread = self.graph.node("Mul", [wide, column])
        return self.graph.node("Cast", [spread], to=TensorProto.INT8)

    def _zeros(self, count: int, kind: type) -> str:
        return self.graph.constant(np.zeros(count, kind), name="zeros")

    def _float_weight(self, layer: PlainLayer, codes: np.ndarray, scale: np.ndarray) -> str:
        """Weights for a float operator; spelt so that a runtime computes them at loading."""
        from onnx import TensorProto

        name = layer.layer.name
        stored = self._stored(codes, layer.layer.weight_bits, name)
        floats = self.graph.node("Cast", [stored], to=TensorProto.FLOAT)
        steps = self.graph.constant(_column(scale, codes.ndim), name=f"{name}.scale")
        return self.graph.node("Mul", [floats, steps], name=f"{name}.weight")

    def _count(self, codes: np.ndarray, bits: int) -> None:
        self.packed_bytes += (codes.size * bits + 7) // 8 + 8 * len(codes)

    def _shape(self, value: Value) -> tuple[int, ...]:
        self._propagate_shapes()
        return tuple(self._nodes[id(value)].meta["tensor_meta"].shape)

    def _own_shape(self) -> tuple[int, ...]:
        self._propagate_shapes()
        assert self._node is not None
        return tuple(self._node.meta["tensor_meta"].shape)

    def _propagate_shapes(self) -> None:
        if self._shapes_known:
            return
        from torch.fx.passes.shape_prop import ShapeProp

        module = fx.GraphModule(self.network, self._traced)
        ShapeProp(module).propagate(torch.zeros(TRACED_BATCH, *self.network.plan.input_shape))
        self._shapes_known = True


def _reshaped(shape: tuple[int, ...]) -> View:
    return lambda graph, name: graph.node("Reshape", [name, graph.constant(np.array(shape))])


def _room_for_bias(
    codes: np.ndarray, scale: np.ndarray, bias: np.ndarray, step: float
) -> tuple[np.ndarray, np.ndarray]:
    """Widen the scale of channels whose weights are so small that the bias overflows int32.

    The scale of channels without weights is free, and as fine as the bias allows.
    """
    without = ~codes.reshape(len(codes), -1).any(1)
    scale = np.where(without, _SMALLEST_SCALE, scale)
    # Spreading the codes later makes the scale finer again.
    least = np.abs(bias) * LARGEST_CODE / (step * _LARGEST_BIAS)
    small = scale < least
    ratio = np.where(small, scale / np.maximum(least, _SMALLEST_SCALE), 1.0)
    return (
        np.round(codes * _column(ratio, codes.ndim)).astype(np.int8),
        np.where(small, least, scale).astype(np.float32),
    )


def _stored_bits(codes: np.ndarray) -> int:
    """Return the bits of the smallest ONNX integer that holds ``codes``: 2, 4 or 8."""
    for bits in (2, 4):
        low, high = weight_range(bits)
        if not codes.size or (low <= codes.min() and codes.max() <= high):
            return bits
    return 8


def _flat(arguments: Any) -> Iterator[Any]:
    for argument in arguments:
        if isinstance(argument, (tuple, list)):
            yield from _flat(argument)
        else:
            yield argument


def _column(values: np.ndarray, rank: int) -> np.ndarray:
    return values.reshape(-1, *[1] * (rank - 1))


def _array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().cpu().double().numpy()


def _write_bytes(path: Path, data: bytes) -> None:
    path.write_bytes(data)
