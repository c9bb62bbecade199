"""The lowest operator set and file version that an exported graph needs.

Older runtimes refuse files of newer versions, whatever they use of them. From
:data:`LOWEST` on, every operator written here means the same in each operator set that has its
attributes, its inputs and the types of its tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx

LOWEST = 18
"""Reductions and pads take their axes as inputs from here on."""

HIGHEST = 25
"""What a node that no older operator set has is written in."""

_LOWEST_IR = 10
"""The first file version with notes on nodes."""


def lowest_versions(
    nodes: Sequence[onnx.NodeProto], initializers: Sequence[onnx.TensorProto]
) -> tuple[int, int]:
    """Return (operator set, file version) for a graph."""
    from onnx import TensorProto, helper

    types = {tensor.data_type for tensor in initializers}
    types |= {a.i for n in nodes if n.op_type == "Cast" for a in n.attribute if a.name == "to"}
    least = LOWEST
    if TensorProto.UINT16 in types or TensorProto.INT16 in types:
        least = max(least, 21)  # Quantisation to 16 bits.
    if types & {TensorProto.FLOAT8E4M3FN, TensorProto.FLOAT8E5M2}:
        least = max(least, 19)
    if any(node.op_type == "GridSample" for node in nodes):
        least = max(least, 20)  # It has other names for its modes from here on.
    for node in nodes:
        least = max(least, next(v for v in range(least, HIGHEST + 1) if _fits(node, v)))
    ir_versions: Any = helper.OP_SET_ID_VERSION_MAP
    return least, max(_LOWEST_IR, ir_versions[("ai.onnx", least)])


def _fits(node: onnx.NodeProto, version: int) -> bool:
    import onnx

    if version == HIGHEST:
        return True
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    known = set(schema.attributes)
    return len(node.input) <= schema.max_input and all(a.name in known for a in node.attribute)
