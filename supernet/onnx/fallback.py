"""Any other ATen operation in ONNX: what torch's own exporter makes of it, alone.

So what can be exported does not depend on the operations known here. They compute in float
between integer layers.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn

from search_spaces.errors import InputError
from supernet.onnx.graph import GraphBuilder

EXPORTED_OPSET = 18

_KNOWN: dict[str, Any] = {}
"""What torch's exporter made of operations: it takes seconds, and layers repeat them."""

_MOST_KNOWN = 512


class _Alone(nn.Module):
    """One operation with its constants."""

    def __init__(self, call: Callable[..., Any]) -> None:
        super().__init__()
        self.call = call

    def forward(self, *tensors: Tensor) -> Any:
        """Return the operation's outputs."""
        return self.call(*tensors)


def graft(
    graph: GraphBuilder,
    node: fx.Node,
    names: dict[fx.Node, str],
    examples: dict[fx.Node, Tensor],
    batched: dict[fx.Node, Sequence[int]],
    fixed: Callable[[fx.Node], Any],
) -> list[str]:
    """Add the nodes of one operation and return the names of its outputs.

    Args:
        graph: where they are added.
        node: the operation.
        names: float tensors by the nodes that compute them.
        examples: their values, of the traced batch.
        batched: their dimensions that depend on the size of the batch.
        fixed: value of an argument that is no tensor of ``names``.

    Raises:
        InputError: torch cannot export the operation either; the message says why.
    """
    parents = [parent for parent in node.all_input_nodes if parent in names]
    places = {parent: place for place, parent in enumerate(parents)}

    def call(*tensors: Tensor) -> Any:
        def value(parent: fx.Node) -> Any:
            return tensors[places[parent]] if parent in places else fixed(parent)

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), value)
        if node.op == "call_method":
            return getattr(args[0], str(node.target))(*args[1:], **kwargs)
        return node.target(*args, **kwargs)  # type: ignore[operator]

    tensors, dimensions = [examples[p] for p in parents], [batched[p] for p in parents]
    key = _key(node, places, tensors, dimensions, fixed)
    model = _KNOWN.get(key) if key is not None else None
    if model is None:
        model = _exported(_Alone(call), tensors, dimensions, str(node.target))
        if key is not None:
            if len(_KNOWN) >= _MOST_KNOWN:
                _KNOWN.pop(next(iter(_KNOWN)))
            _KNOWN[key] = model
    return _insert(graph, model.graph, [names[p] for p in parents])


def _key(
    node: fx.Node,
    places: dict[fx.Node, int],
    tensors: Sequence[Tensor],
    batched: Sequence[Sequence[int]],
    fixed: Callable[[fx.Node], Any],
) -> str | None:
    """Return what an operation's nodes follow from; None where constants are part of it."""
    known = [fixed(parent) for parent in node.all_input_nodes if parent not in places]
    if not all(value is None or isinstance(value, (int, float, str)) for value in known):
        return None

    def told(parent: fx.Node) -> Any:
        return f"tensor {places[parent]}" if parent in places else fixed(parent)

    arguments = fx.node.map_arg((node.args, node.kwargs), told)
    shapes = [(tuple(tensor.shape), str(tensor.dtype)) for tensor in tensors]
    return repr((str(node.target), arguments, shapes, [tuple(axes) for axes in batched]))


def _exported(
    module: nn.Module, tensors: Sequence[Tensor], batched: Sequence[Sequence[int]], name: str
) -> Any:
    shapes = (tuple({d: torch.export.Dim.DYNAMIC for d in dims} for dims in batched),)
    silent = io.StringIO()
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(silent),
            contextlib.redirect_stderr(silent),
        ):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                module.eval(), tuple(tensors), dynamo=True, dynamic_shapes=shapes,
                opset_version=EXPORTED_OPSET, verbose=False, optimize=True,
            )  # fmt: skip
    except Exception as error:  # torch's exporter has many exceptions of its own
        first: BaseException = error
        while first.__cause__ is not None:
            first = first.__cause__
        reason = next((line for line in str(first).splitlines() if line.strip()), "")
        raise InputError(
            f"the operation {name} has no ONNX form here, and torch's exporter says: {reason}"
        ) from error
    finally:
        logging.disable(level)
    assert program is not None
    return program.model_proto


def _insert(graph: GraphBuilder, added: Any, inputs: Sequence[str]) -> list[str]:
    from onnx import numpy_helper

    renamed = {"": ""}
    renamed |= {value.name: name for value, name in zip(added.input, inputs, strict=True)}
    for initializer in added.initializer:
        renamed[initializer.name] = graph.constant(numpy_helper.to_array(initializer))
    for node in added.node:
        if node.domain not in ("", "ai.onnx"):
            raise InputError(f"{node.op_type} of the domain {node.domain} is no ONNX operator")
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise InputError(f"the operation needs control flow in ONNX ({node.op_type})")
        copy = type(node)()
        copy.CopyFrom(node)
        del copy.input[:], copy.output[:]
        del copy.metadata_props[:]
        copy.input.extend(renamed[name] for name in node.input)
        for name in node.output:
            renamed[name] = graph.unique(node.op_type) if name else ""
            copy.output.append(renamed[name])
        copy.name = copy.output[0]
        copy.doc_string = ""
        graph.nodes.append(copy)
    return [renamed[value.name] for value in added.output]
