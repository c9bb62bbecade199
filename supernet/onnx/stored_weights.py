"""Weights in an exported file: codes as small as they go, widened by nodes that run at loading."""

from __future__ import annotations

import numpy as np

from search_spaces.errors import InputError
from search_spaces.number_formats import NumberFormat
from supernet.onnx.folding import column, stored_bits
from supernet.onnx.graph import GraphBuilder, Value
from supernet.quantizers.formats import EncodedWeights


def _width(
    graph: GraphBuilder, codes: np.ndarray, bits: int, *, packed: bool, beside: int = 0
) -> int:
    """Return the bits in which codes of ``bits`` are stored: 2, 4 or 8.

    Args:
        graph: of the file.
        codes: of a layer.
        bits: its nominal bits.
        packed: whether codes may take less than a byte.
        beside: bytes that packing them adds elsewhere; where it saves less, they stay bytes.
    """
    width = stored_bits(codes) if packed and bits <= 4 else 8
    if width == 8:
        return 8
    width = max(width, 2 if bits <= 2 else 4)
    return width if graph.packed_pays(codes, width, beside=beside) else 8


def spread_codes(
    graph: GraphBuilder,
    codes: np.ndarray,
    factor: np.ndarray,
    bits: int,
    name: str,
    *,
    packed: bool,
) -> str:
    """Return int8 codes times ``factor``; a runtime computes this once, at loading."""
    from onnx import TensorProto

    factors = column(factor, codes.ndim)
    # Two operations, and a factor of each channel in four bytes, where there are other factors than
    # of layers before; the nine codes of a depthwise layer's channel hardly pay for it.
    width = _width(graph, codes, bits, packed=packed, beside=64 + graph.added(factors))
    if width == 8:
        spread = (codes * factors).astype(np.int8)
        return graph.constant(spread, name=f"{name}.codes")
    spreading = graph.constant(factors, name="factor")
    product = graph.node("Mul", [graph.packed(codes, width), spreading])
    return graph.node("Cast", [product], to=TensorProto.INT8)


def float_weight(
    graph: GraphBuilder, codes: np.ndarray, scale: np.ndarray, bits: int, name: str, *, packed: bool
) -> str:
    """Weights for a float operator; spelt so that a runtime computes them at loading."""
    from onnx import TensorProto

    width = _width(graph, codes, bits, packed=packed)
    if width == 8:
        source = graph.constant(codes, name=f"{name}.codes")
    else:
        source = graph.packed(codes, width)
    floats = graph.node("Cast", [source], to=TensorProto.FLOAT)
    steps = graph.constant(column(scale, codes.ndim), name=f"{name}.scale")
    return graph.node("Mul", [floats, steps], name=f"{name}.weight")


def encoded_weight(
    graph: GraphBuilder, encoded: EncodedWeights, gain: np.ndarray, name: str, *, packed: bool
) -> str:
    """Weights in a number format for a float operator, widened by a runtime at loading.

    Formats that ONNX Runtime reads (float8) are tensors of their type and a DequantizeLinear;
    others are codes that look up a table. What computes on the weights is float either way: the
    file is small, and no faster.

    Args:
        graph: added to.
        encoded: the codes.
        gain: that each output channel is multiplied by, (out,).
        name: of the layer.
        packed: whether codes of at most 4 bits are stored as 4-bit integers.
    """
    scales = (encoded.scales * gain[:, None]).astype(np.float32)
    chosen = encoded.chosen
    if chosen.onnx and scales.shape[1] == 1:
        codes = graph.typed(encoded.codes, chosen.onnx, name=f"{name}.codes")
        scale = graph.constant(scales[:, 0], name=f"{name}.scale")
        return graph.node("DequantizeLinear", [codes, scale], name=f"{name}.weight", axis=0)
    values = _looked_up(graph, encoded, name, packed=packed)
    return graph.node(
        "Mul", [values, _by_weight(graph, encoded, scales, name)], name=f"{name}.weight"
    )


def encoded_input(
    graph: GraphBuilder, x: Value, step: float, chosen: NumberFormat, layer: str
) -> Value:
    """Return an input rounded to a number format.

    Raises:
        InputError: ONNX Runtime has no tensors of the format.
    """
    if not chosen.onnx:
        raise InputError(
            f"{layer}: ONNX Runtime computes no inputs in {chosen.name}; of the small floats it "
            "has fp8_e4m3 and fp8_e5m2. Give the layer's input one of them, or integers"
        )
    scale = graph.constant(np.float32(step), name="s")
    zero = graph.typed(np.zeros((), np.uint8), chosen.onnx, name="z")
    # What this cuts off saturates anyway. ONNX Runtime (1.23) takes away a ReLU before a
    # quantisation as if all codes were unsigned, be they float8; it does not look past this.
    floor = graph.constant(np.float32(-chosen.largest() * step), name="least")
    held = graph.node("Max", [graph.tensor(x), floor])
    codes = graph.node("QuantizeLinear", [held, scale, zero])
    return Value(graph.node("DequantizeLinear", [codes, scale, zero]))


def _looked_up(graph: GraphBuilder, encoded: EncodedWeights, name: str, *, packed: bool) -> str:
    from onnx import TensorProto

    chosen = encoded.chosen
    packed = packed and chosen.bits <= 4 and graph.packed_pays(encoded.codes, 4)
    if packed:
        # Codes 8 to 15 are the negative integers of 4 bits, which count from the table's end.
        rows = graph.packed((encoded.codes.astype(np.int8) + 8) % 16 - 8, 4)
        size = 16
    else:
        source = graph.constant(encoded.codes, name=f"{name}.codes")
        rows = graph.node("Cast", [source], to=TensorProto.INT32)
        size = 2**chosen.bits
    tables = np.zeros((chosen.variants, size), np.float32)
    for variant in range(chosen.variants):
        tables[variant, : 2**chosen.bits] = np.nan_to_num(chosen.values(variant), nan=0.0)
    if chosen.variants == 1:
        return graph.node("Gather", [graph.constant(tables[0], name=f"{chosen.name}.table"), rows])
    # One table after another, and the one of the group first of all.
    if packed:
        rows = graph.node("Mod", [rows, graph.constant(np.int32(16), name="size")])
    first = _by_weight(graph, encoded, encoded.tables.astype(np.int32) * size, name)
    place = graph.node("Add", [rows, first])
    table = graph.constant(tables.reshape(-1), name=f"{chosen.name}.table")
    return graph.node("Gather", [table, place])


def _by_weight(graph: GraphBuilder, encoded: EncodedWeights, numbers: np.ndarray, name: str) -> str:
    """Numbers of groups (out, groups), stored once a group, in a shape that fits the weights."""
    shape = encoded.codes.shape
    if numbers.shape[1] == 1:
        return graph.constant(column(numbers[:, 0], len(shape)), name=f"{name}.scale")
    outputs, groups = numbers.shape
    count = encoded.codes[0].size

    def whole(*values: int) -> str:
        return graph.constant(np.array(values, np.int64), name="shape")

    each = graph.constant(numbers[:, :, None], name=f"{name}.scale")
    wide = graph.node("Expand", [each, whole(outputs, groups, encoded.group)])
    flat = graph.node("Reshape", [wide, whole(outputs, groups * encoded.group)])
    if groups * encoded.group != count:
        flat = graph.node("Slice", [flat, whole(0), whole(count), whole(1)])
    return graph.node("Reshape", [flat, whole(*shape)])
