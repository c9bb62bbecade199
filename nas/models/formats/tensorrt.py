"""QDQ ONNX of signed bytes without zero points, which is what TensorRT's parser takes.

TensorRT quantises symmetrically: the parser refuses zero points other than 0, and unsigned bytes.
Codes of a run's files are unsigned, and zero has a code of its own; here each tensor is cut to the
range that its codes had, and gets signed codes over it. Where a tensor is far from symmetric, as
behind a ReLU, its steps are wider: 8 bits are 7 there. So outputs differ, by as much as is told.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from devices.runtimes.agreement import agreement, moved_by_noise
from nas.models.formats.base import FORMATS, OnnxBased, Source, Written
from search_spaces.atomic import write_bytes_atomic
from search_spaces.errors import InputError

if TYPE_CHECKING:
    import onnx

_LOW, _HIGH = -128, 127
_MOVING = ("Flatten", "Reshape", "Transpose", "Identity", "Squeeze", "Unsqueeze", "MaxPool")
"""Operators that move codes about or choose among them."""

_NOISE = 1e-2
"""At the input, see :data:`_MOST`."""

_MOST = 0.5
"""Relative error that is no rounding, unless a third of it comes of :data:`_NOISE`. Networks of
random weights answer steps twice as wide with up to 0.36."""


@FORMATS.register("tensorrt")
class TensorRtFile(OnnxBased):
    """An ONNX file for TensorRT's parser. TensorRT was never run here: it needs a GPU of NVIDIA."""

    name: ClassVar[str] = "tensorrt"
    summary: ClassVar[str] = "ONNX (QDQ) of signed bytes without zero points, for TensorRT; untried"

    @classmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """See :meth:`Format.write`: outputs are those of ONNX Runtime."""
        cls.require()
        import onnx

        from devices.runtime import random_inputs
        from devices.runtimes.onnxruntime import OnnxRuntime
        from devices.runtimes.widening import with_whole_bytes

        wide = with_whole_bytes(source.path, extra="search")
        model = onnx.load(str(source.path)) if wide is None else onnx.load_from_string(wide)
        made, narrower, tensors = symmetric(model)
        path = folder / f"{source.id}-tensorrt.onnx"
        write_bytes_atomic(path, made.SerializeToString())
        plain = OnnxRuntime(graph_optimization="off")
        reference, session = plain.load(source.path), plain.load(path)
        found = agreement(lambda *inputs: session(*inputs)[0], reference)
        inputs = random_inputs(reference.inputs, 0)
        expected = [np.array(output) for output in reference(*inputs)]
        allowed = max(_MOST, 3 * moved_by_noise(reference, inputs, expected, _NOISE))
        if not found.relative_error <= allowed:
            raise InputError(
                f"{source.path}: with signed codes, the outputs differ by "
                f"{found.relative_error:.2g} (relative), where {allowed:.2g} was expected"
            )
        note = f"run in ONNX Runtime, not in TensorRT; {narrower} of {tensors} tensors are coarser"
        return Written.compared(cls.name, (path.name,), found, note=note)


def symmetric(model: onnx.ModelProto) -> tuple[onnx.ModelProto, int, int]:
    """Return a quantised model with signed codes alone, without zero points.

    Args:
        model: in the QDQ form, its constants of 8 or more bits.

    Returns:
        the model; how many activations have wider steps than before; how many there are.

    Raises:
        InputError: something computes with codes, or weights are unsigned or have zero points.
    """
    import onnx
    from onnx import helper, numpy_helper

    made = onnx.ModelProto()
    made.CopyFrom(model)
    graph = made.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    readers: dict[str, list[onnx.NodeProto]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, []).append(node)
    nodes: list[onnx.NodeProto] = []
    scales: dict[str, str] = {}
    cut: set[str] = set()
    narrower = tensors = 0

    def constant(name: str, value: np.ndarray) -> str:
        graph.initializer.append(numpy_helper.from_array(value, name))
        return name

    none = constant("tensorrt.zero", np.array(0, np.int8))
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            scale, zero = (constants[name] for name in node.input[1:3])
            if scale.size != 1 or zero.dtype not in (np.uint8, np.int8):
                raise InputError(f"{node.output[0]}: codes of {zero.dtype}; TensorRT has 8 bits")
            limits = np.iinfo(zero.dtype)
            low, high, codes = limits.min, limits.max, node.output[0]
            after = readers.get(codes, [])
            if len(after) == 1 and after[0].op_type == "Clip":
                bounds = [constants[name] if name else None for name in after[0].input[1:3]]
                bounds += [None] * (2 - len(bounds))
                low = low if bounds[0] is None else int(bounds[0])
                high = high if bounds[1] is None else int(bounds[1])
                codes = after[0].output[0]
                cut.add(codes)
            low, high = low - int(zero), high - int(zero)
            step = float(scale)
            wide = max(high / _HIGH, low / _LOW, 1.0)
            narrower, tensors = narrower + (wide > 1), tensors + 1
            x = _cut(nodes, constant, node, (low * step, high * step), step * wide)
            scales[codes] = constant(f"{codes}.step", np.array(step * wide, np.float32))
            nodes.append(helper.make_node("QuantizeLinear", [x, scales[codes], none], [codes]))
        elif node.output[0] in cut:
            continue
        elif node.op_type in _MOVING and node.input[0] in scales:
            # On the values between, which lie on the grid before and after.
            moved, grid = node.output[0], [scales[node.input[0]], none]
            inside, outside = f"{moved}.before", f"{moved}.after"
            nodes.append(helper.make_node("DequantizeLinear", [node.input[0], *grid], [inside]))
            whole = onnx.NodeProto.FromString(node.SerializeToString())
            whole.input[0], whole.output[0] = inside, outside
            nodes.append(whole)
            nodes.append(helper.make_node("QuantizeLinear", [outside, *grid], [moved]))
            scales[moved] = grid[0]
        elif node.op_type == "DequantizeLinear" and node.input[0] in scales:
            given = [node.input[0], scales[node.input[0]], none]
            nodes.append(helper.make_node("DequantizeLinear", given, list(node.output)))
        elif node.op_type == "DequantizeLinear":
            stored, *known = (constants[name] for name in node.input)
            if (len(known) > 1 and known[1].any()) or stored.dtype not in (np.int8, np.int32):
                raise InputError(f"{node.output[0]}: TensorRT takes signed weights alone")
            if stored.dtype == np.int32:  # a bias, which it takes as floats
                constant(node.output[0], (stored * known[0]).astype(np.float32))
            else:
                nodes.append(node)
        elif scales.keys() & set(node.input):
            raise InputError(f"{node.op_type} computes with codes; TensorRT has no such operator")
        else:
            nodes.append(node)
    kept = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    used = {name for node in kept for name in node.input}
    left = [item for item in graph.initializer if item.name in used]
    del graph.initializer[:]
    graph.initializer.extend(left)
    onnx.checker.check_model(made)
    return made, narrower, tensors


def _cut(
    nodes: list[onnx.NodeProto],
    constant: Callable[[str, np.ndarray], str],
    node: onnx.NodeProto,
    bounds: tuple[float, float],
    step: float,
) -> str:
    """Add what keeps a tensor within the range of its former codes, where the new codes do not."""
    from onnx import helper

    low, high = bounds
    x, name = node.input[0], f"{node.output[0]}.cut"
    below, above = low > _LOW * step * 1.0001, high < _HIGH * step * 0.9999
    if not below and not above:
        return str(x)
    if low == 0 and not above:
        nodes.append(helper.make_node("Relu", [x], [name]))
        return name
    limits = [constant(f"{name}.{i}", np.array(b, np.float32)) for i, b in enumerate(bounds)]
    nodes.append(helper.make_node("Clip", [x, *limits], [name]))
    return name
