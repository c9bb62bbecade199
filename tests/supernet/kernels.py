"""What the oldest ONNX Runtime that is promised has kernels for.

``kernels_1_20.json`` holds the kernels of ONNX Runtime 1.20's processor: an operator -> a row for
each of them, with the first and last operator set it is of (None: no later one) and the types of
each of the operator's type parameters, of those that exported files have. It is written by
``python -m experiments.own.oldest_runtime``.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import onnx
from onnx import TensorProto

TABLE = Path(__file__).parent / "kernels_1_20.json"


def without_kernel(model: onnx.ModelProto) -> set[str]:
    """Return the operators of a file that the runtime cannot run, each with its types."""
    inferred = onnx.shape_inference.infer_shapes(model, check_type=True).graph
    types = {item.name: item.data_type for item in inferred.initializer}
    for value in (*inferred.input, *inferred.output, *inferred.value_info):
        types[value.name] = value.type.tensor_type.elem_type
    sets = {each.domain: each.version for each in model.opset_import}
    missing = set()
    for node in model.graph.node:
        schema = onnx.defs.get_schema(node.op_type, sets[node.domain], node.domain)
        if schema.has_function or schema.has_context_dependent_function:
            continue  # It is taken apart to others where it has no kernel.
        bound = _bound(schema, node, types)
        if not any(_fits(row, schema.since_version, bound) for row in _kernels(node.op_type)):
            missing.add(f"{node.op_type} {bound}")
    return missing


@lru_cache
def _table() -> dict[str, list[list[Any]]]:
    found: dict[str, list[list[Any]]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return found


def _kernels(op: str) -> list[list[Any]]:
    return _table().get(op, [])


def _bound(schema: Any, node: onnx.NodeProto, types: dict[str, int]) -> dict[str, str]:
    """Return the type of each type parameter of an operator, and of each input and output."""
    bound = {}
    for names, formals in ((node.input, schema.inputs), (node.output, schema.outputs)):
        for i, name in enumerate(names):
            formal = formals[min(i, len(formals) - 1)]
            if name:
                kind = TensorProto.DataType.Name(types[name]).lower()
                bound[formal.type_str] = bound[formal.name] = kind
    return bound


def _fits(row: list[Any], since: int, bound: dict[str, str]) -> bool:
    first, last, kinds = row
    if first != since and (last is None or not first <= since <= last):
        return False
    return all(bound[k] in kinds[k].split() for k in kinds if k in bound)
