"""Extracted networks as ONNX that runs on integers wherever the plan is quantised.

Quantised tensors are QuantizeLinear / DequantizeLinear pairs around plain operators (the
QDQ form), which runtimes fuse to integer kernels. Batch norm is folded: a channel's scale
becomes ``weight step * gamma / sqrt(variance + epsilon)`` and the codes stay what they were
in training.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Union

import numpy as np
import torch
from torch import fx, nn

from search_spaces.atomic import write_bytes_atomic
from search_spaces.errors import InputError
from search_spaces.model_files.decoders import decoder_note
from search_spaces.model_files.packed_model import fill_factors
from search_spaces.plan import FLOAT_BITS, STREAM_BITS
from supernet.onnx.fallback import graft
from supernet.onnx.folding import (
    LARGEST_CODE,
    REDUCED_CODE,
    fold,
    reduce_codes,
    room_for_bias,
)
from supernet.onnx.graph import GraphBuilder, Value
from supernet.onnx.operators import OPERATIONS, Context
from supernet.onnx.opset import lowest_versions
from supernet.onnx.stored_weights import (
    encoded_input,
    encoded_weight,
    float_weight,
    spread_codes,
)
from supernet.onnx.tracing import Traced, attribute_of, flat, reshaped
from supernet.plain import PlainLayer, PlainNetwork, Source
from supernet.reading.operations import ACTIVATIONS, kind_of, packet

if TYPE_CHECKING:
    import onnx

    from supernet.decoding import DecodingStep
    from supernet.transducing import EncodingStep, TransducingStep

    Exported = Union[PlainNetwork, DecodingStep, EncodingStep, TransducingStep]

INPUT, OUTPUT = "input", "logits"
"""Names of the exported network's tensors."""

_OF_ANY_BATCH = {
    "reshape", "view", "unflatten", "expand", "repeat", "new_zeros", "new_ones", "new_full",
    "affine_grid_generator",
}  # fmt: skip
"""Operations whose translations make sizes of the batch from that of the input."""

WEIGHT_BITS = "weight_bits"
"""Key of a convolution's or linear layer's note of its nominal bits."""


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
    network: Exported,
    path: Path,
    *,
    batch: int | None = None,
    weight_storage: str = "packed",
    reduce_range: bool = False,
    metadata: Mapping[str, str] | None = None,
    inputs: Mapping[str, tuple[int, ...]] | None = None,
    outputs: Sequence[str] | None = None,
) -> ExportSummary:
    """Write ``network`` as ONNX, atomically.

    The file has one input ``input`` (batch, channels, height, width), float32, and one output
    ``logits`` (batch, outputs), float32, unless others are named.

    Args:
        network: from :func:`supernet.plain.extract_network`, in evaluation mode, or a step of it.
        path: file to write.
        batch: fixed batch size; by default any.
        weight_storage: ``packed`` stores codes of 2 bits, and of 3 and 4 bits, in 2 and 4 bits of
            a byte, where that makes the file smaller; operations that any runtime has take them
            apart once, when it loads the file. ``int8`` stores every code in a byte, for
            runtimes that do not fold constants. The speed is the same.
        reduce_range: keep weight codes within 7 bits where a processor without dot-product
            instructions would saturate: 8-bit inputs times codes beyond 64. Such channels
            get twice the step and codes rounded to it.
        metadata: text stored in the file.
        inputs: names and shapes, without the batch, of what ``network`` is called with.
        outputs: names of what it returns.

    Raises:
        InputError: an unknown ``weight_storage``; an operation of a dataflow that has no
            translation; weights whose folded codes do not fit their bits.
    """
    if weight_storage not in ("packed", "int8"):
        raise InputError(f"weight_storage is {weight_storage!r}; use 'packed' or 'int8'")
    shapes = dict(inputs or {INPUT: network.plan.input_shape})
    translator = _Translator(
        network, shapes, packed=weight_storage == "packed", reduce_range=reduce_range
    )
    notes = {**decoder_note(network.plan), **dict(metadata or {})}
    model = translator.model(batch, notes, outputs)
    path = Path(path)
    data = model.SerializeToString()
    write_bytes_atomic(path, data)
    beside = 4 * sum(operator.parameters for operator in network.plan.operators())
    return ExportSummary(
        path=path,
        weights_kib=(translator.packed_bytes + beside) / 1024,
        size_kib=len(data) / 1024,
        reduced_layers=tuple(translator.reduced),
    )


class _Translator:
    """Runs the traced network with names of tensors in place of tensors."""

    def __init__(
        self,
        network: Exported,
        inputs: Mapping[str, tuple[int, ...]],
        *,
        packed: bool,
        reduce_range: bool,
    ) -> None:
        self.network, self.inputs = network, inputs
        self.packed = packed
        self.reduce_range = reduce_range
        self.graph = GraphBuilder()
        self.packed_bytes = 0
        self.reduced: list[str] = []
        self._modules = dict(network.named_modules())
        self._node: fx.Node | None = None
        self._nodes: dict[int, fx.Node] = {}
        self._of_batch: set[fx.Node] = set()
        self._keep: list[Value] = []
        self._traced = Traced(network, list(inputs.values()))

    def model(
        self, batch: int | None, metadata: dict[str, str], names: Sequence[str] | None = None
    ) -> onnx.ModelProto:
        """Return the ONNX model, its outputs called ``names``."""
        from onnx import TensorProto, helper

        results = self._run()
        results = results if isinstance(results, (tuple, list)) else (results,)
        names = names or [OUTPUT, *(f"{OUTPUT}_{i}" for i in range(1, len(results)))]
        size = "batch" if batch is None else batch
        outputs = []
        for name, result in zip(names, results, strict=True):
            self.graph.node("Identity", [self.graph.tensor(result)], name=name)
            pattern = self._pattern(result)
            shape = [(size if p is None else p) for p in pattern]
            outputs.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        self.graph.finish(names)
        graph = helper.make_graph(
            self.graph.nodes,
            self.network.plan.space,
            [
                helper.make_tensor_value_info(name, TensorProto.FLOAT, [size, *shape])
                for name, shape in self.inputs.items()
            ],
            outputs,
            self.graph.initializers,
        )
        opset, ir_version = lowest_versions(self.graph.nodes, self.graph.initializers)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", opset)],
            ir_version=ir_version,
            producer_name="edge-nas",
        )
        helper.set_model_props(model, metadata)
        return model

    def _run(self) -> Any:
        environment: dict[fx.Node, Any] = {}
        context = self._context()
        given = [Value(self.graph.unique(name)) for name in self.inputs]
        for node in self._traced.nodes:
            self._node = node
            arguments = fx.node.map_arg(node.args, environment.__getitem__)
            options = fx.node.map_arg(node.kwargs, environment.__getitem__)
            if node.op == "placeholder":
                # The last may stand for all that are left, ``*others``.
                rest = str(node.target).startswith("*")
                result: Any = given if rest else given.pop(0)
            elif node.op == "get_attr":
                result = Value(self._constant(attribute_of(self.network, str(node.target)), node))
            elif node.op == "call_module":
                module = self._modules[str(node.target)]
                translate = self._layer if isinstance(module, PlainLayer) else self._source
                result = translate(module, *arguments)
            elif node.op == "output":
                return arguments[0]
            else:
                result = self._call(context, node, arguments, options, environment)
            environment[node] = result
            if isinstance(result, Value):
                self._nodes[id(result)] = node
                self._keep.append(result)
        raise AssertionError("a traced graph ends with its output")

    def _context(self) -> Context:
        return Context(
            self.graph,
            self._shape,
            self._own_shape,
            self._pattern,
            lambda: self._pattern_of(self._node),
            lambda value: self._nodes[id(value)].meta["tensor_meta"].dtype is torch.bool,
            next(iter(self.inputs)),
        )

    def _constant(self, tensor: torch.Tensor, node: fx.Node) -> str:
        return self.graph.constant(tensor.detach().cpu().numpy(), name=str(node.target))

    def _call(
        self,
        context: Context,
        node: fx.Node,
        arguments: Any,
        options: Any,
        environment: dict[fx.Node, Any],
    ) -> Any:
        name = packet(node)
        if name == "sym_size":
            if self._pattern(arguments[0])[arguments[1]] is None:
                self._of_batch.add(node)
            return self._shape(arguments[0])[arguments[1]]
        if name in ("size", "dim") or (name == "getattr" and arguments[1] in ("shape", "ndim")):
            shape = self._shape(arguments[0])
            if name == "size":
                return shape[arguments[1]] if len(arguments) > 1 else shape
            return shape if name == "getattr" and arguments[1] == "shape" else len(shape)
        if name == "getitem" and not isinstance(arguments[0], Value):
            return arguments[0][arguments[1]]
        if node.op == "call_function" and not any(isinstance(a, Value) for a in flat(arguments)):
            if self._of_batch.intersection(node.all_input_nodes):
                self._of_batch.add(node)
            result = node.target(*arguments, **options)  # type: ignore[operator]
            # Arithmetic on sizes, or a tensor made of them.
            return self._made(result, node) if isinstance(result, torch.Tensor) else result
        if name not in _OF_ANY_BATCH and self._of_batch.intersection(node.all_input_nodes):
            # The number that it has here is that of the traced batch.
            raise InputError(
                f"{name} takes the size of the batch as a number, which no file for any batch "
                "holds; write it without x.shape[0] or x.size(0)"
            )
        reason: InputError | None = None
        if name in OPERATIONS.names() and self._of_floats(node):
            mark = len(self.graph.nodes)
            try:
                result = OPERATIONS.get(name)(context, *arguments, **options)
                several = not hasattr(node.meta["tensor_meta"], "shape")
                result = self._on_its_grid(node, arguments, result)
                return (result,) if several and isinstance(result, Value) else result
            except InputError as error:
                del self.graph.nodes[mark:]
                reason = error
            except TypeError as error:
                # An overload with other arguments than the translation knows.
                del self.graph.nodes[mark:]
                reason = InputError(f"{name}: {error}")
        if not isinstance(node.target, torch._ops.OpOverload):
            # Spelt by a dataflow: the registry is what it may use.
            if reason is not None:
                raise reason
            return OPERATIONS.get(name)(context, *arguments, **options)
        try:
            return self._graft(node, environment)
        except InputError as error:
            raise (error if reason is None else InputError(f"{reason}; {error}")) from error

    def _on_its_grid(self, node: fx.Node, arguments: Any, result: Any) -> Any:
        """Return codes where codes of the same grid went in, so that readers run on integers."""
        first = arguments[0] if arguments else None
        grid = first.grid if isinstance(first, Value) else None
        if grid is None or not kind_of(node).grid or not isinstance(result, Value):
            return result
        if result.grid or result.base:
            return result
        return self.graph.quantize(
            result, step=grid.step, zero_point=grid.zero_point, bits=grid.bits
        )

    def _of_floats(self, node: fx.Node) -> bool:
        """Whether everything that a call reads and gives is float, as translations suppose."""
        self._traced.propagate()
        for tensor in (node, *node.all_input_nodes):
            kind = getattr(tensor.meta.get("tensor_meta"), "dtype", torch.float32)
            mask = packet(node) == "scaled_dot_product_attention" and kind is torch.bool
            if kind is not torch.float32 and not mask:
                return False
        return True

    def _made(self, tensor: torch.Tensor, node: fx.Node) -> Value:
        """Return a tensor made from sizes alone, where the batch has no part in its values."""
        for axis, size in enumerate(self._pattern_of(node)):
            if size is None:
                first = tensor.narrow(axis, 0, 1)
                if not torch.equal(first.expand_as(tensor), tensor):
                    raise InputError(f"{node.target}: a tensor whose values depend on the batch")
                tensor = first
        return Value(self._constant(tensor, node))

    def _graft(self, node: fx.Node, environment: dict[fx.Node, Any]) -> Any:
        values = self._traced.examples()
        parents = [p for p in node.all_input_nodes if isinstance(environment[p], Value)]
        found = graft(
            self.graph,
            node,
            {p: self.graph.tensor(environment[p]) for p in parents},
            {p: values[p] for p in parents},
            {p: [a for a, s in enumerate(self._pattern_of(p)) if s is None] for p in parents},
            environment.__getitem__,
        )
        if isinstance(values[node], (tuple, list)):
            return tuple(Value(name) for name in found)
        return Value(found[0])

    def _source(self, source: Source, x: Value, layer: str = "a tensor") -> Value:
        if source.before is not None and source.bits < FLOAT_BITS:
            step, zero_point = source.before
            x = self.graph.quantize(x, step=step, zero_point=zero_point, bits=STREAM_BITS)
        integers = source.bits < FLOAT_BITS and source.chosen is None
        if not (integers and source.source == "relu" and source.zero_point == 0):
            # Quantising to codes from zero up is a ReLU already.
            x = self._activate(x, source.source)
        if source.bits >= FLOAT_BITS:
            return x
        if source.chosen is not None:
            return encoded_input(self.graph, x, source.step, source.chosen, layer)
        return self.graph.quantize(
            x, step=source.step, zero_point=source.zero_point, bits=source.bits
        )

    def _activate(self, x: Value, name: str) -> Value:
        if name in ("none", "stream"):
            return x
        return OPERATIONS.get(ACTIVATIONS.get(name, name))(self._context(), x)

    def _layer(self, layer: PlainLayer, x: Value) -> Value:
        x = self._source(layer.source, x, layer.layer.name)
        if isinstance(layer.op, nn.Linear) and len(self._own_shape()) > 2:
            # The integer kernel with a bias takes matrices, so tokens become rows.
            rows = self.graph.rearrange(x, reshaped((-1, layer.op.in_features)))
            shape = tuple(-1 if s is None else s for s in self._pattern_of(self._node))
            if shape.count(-1) > 1:
                raise InputError(
                    f"{layer.layer.name}: the batch is in more than one dimension of its input"
                )
            return self.graph.rearrange(self._product(layer, rows), reshaped(shape))
        return self._product(layer, x)

    def _product(self, layer: PlainLayer, x: Value) -> Value:
        folded = fold(layer)
        name = layer.layer.name
        if folded.codes is None:
            assert folded.weight is not None
            self.packed_bytes += 4 * len(folded.bias)
            if layer.encoded is not None:
                self.packed_bytes += layer.encoded.nbytes
                weight = encoded_weight(
                    self.graph, layer.encoded, folded.gain, name, packed=self.packed
                )
            else:
                self.packed_bytes += folded.weight.nbytes
                weight = self.graph.constant(folded.weight, name=f"{name}.weight")
            bias = self.graph.constant(folded.bias.astype(np.float32), name=f"{name}.bias")
            return self._operator(layer, self.graph.tensor(x), weight, bias)
        codes, scale = folded.codes, folded.scale
        assert scale is not None
        bits = layer.layer.weight_bits
        if x.grid is None or x.grid.bits > 8 or bits > 8:
            # No integer kernel takes these; weights are dequantised once, at loading.
            self._count(codes, bits)
            weight = float_weight(self.graph, codes, scale, bits, name, packed=self.packed)
            bias = self.graph.constant(folded.bias.astype(np.float32), name=f"{name}.bias")
            return self._operator(layer, self.graph.tensor(x), weight, bias)
        saturates = self.reduce_range and x.grid.bits == 8
        if saturates and np.abs(codes.astype(np.int16)).max() > REDUCED_CODE:
            codes, scale = reduce_codes(codes, scale)
            self.reduced.append(name)
        codes, scale = room_for_bias(codes, scale, folded.bias, x.grid.step)
        self._count(codes, bits)
        # In units of codes that fill int8 the whole-numbered bias is fine enough; with 2 bits the
        # sum of a depthwise convolution spans a few units only.
        factor = fill_factors(codes, REDUCED_CODE if saturates else LARGEST_CODE)
        scale = (scale / factor).astype(np.float32)
        weight = self.graph.node(
            "DequantizeLinear",
            # Runtimes fuse a linear layer only if the zero points are written out.
            [
                spread_codes(self.graph, codes, factor, bits, name, packed=self.packed),
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
        bits = layer.layer.weight_bits
        if bits >= FLOAT_BITS or layer.encoded is not None:
            return
        if layer.chosen is not None and not layer.chosen.odd:
            # The whole numbers that a format stands for need more bits than its codes.
            bits = max(bits, layer.code_range[1].bit_length() + 1)
        note = self.graph.nodes[-1].metadata_props.add()
        note.key, note.value = WEIGHT_BITS, str(bits)

    def _zeros(self, count: int, kind: type) -> str:
        return self.graph.constant(np.zeros(count, kind), name="zeros")

    def _count(self, codes: np.ndarray, bits: int) -> None:
        self.packed_bytes += (codes.size * bits + 7) // 8 + 8 * len(codes)

    def _shape(self, value: Value) -> tuple[int, ...]:
        self._traced.propagate()
        return tuple(self._nodes[id(value)].meta["tensor_meta"].shape)

    def _own_shape(self) -> tuple[int, ...]:
        self._traced.propagate()
        assert self._node is not None
        meta = self._node.meta["tensor_meta"]
        # Of several results, the first.
        return tuple((meta if hasattr(meta, "shape") else meta[0]).shape)

    def _pattern(self, value: Value) -> tuple[int | None, ...]:
        return self._pattern_of(self._nodes[id(value)])

    def _pattern_of(self, node: fx.Node | None) -> tuple[int | None, ...]:
        """Return a node's shape, with None for what depends on the size of the batch."""
        assert node is not None
        return self._traced.pattern(node)
