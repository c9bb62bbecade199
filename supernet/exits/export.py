"""An exit network as one ONNX file: what follows a gate is a branch that runs only if it must.

The operator ``If`` takes one decision, so the file takes one image at a time. Everything up to an
exit stands in one graph, quantised as a network of its own would be; the gate's decision chooses
between the exit's outputs and a graph that goes on from the trunk's features.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from search_spaces.atomic import write_bytes_atomic
from supernet.exits.gates import Gate
from supernet.exits.network import ExitNetwork
from supernet.onnx.export import INPUT, OUTPUT, export_onnx
from supernet.plain import PlainNetwork

if TYPE_CHECKING:
    import onnx

EXIT = "exit"
"""Output that says which exit an image left at, counted from 0."""


class _Part(PlainNetwork):
    """One segment with its head: gives the head's outputs and, but at the end, the features."""

    def __init__(self, network: ExitNetwork, index: int, x: Tensor) -> None:
        channels, height, width = x.shape[1:]
        plan = replace(network.plan, input_shape=(channels, height, width))
        super().__init__(plan, [])
        start = network.restream(index)
        self.start = nn.Identity() if start is None else start
        self.trunk, self.head = network.segments[index], network.heads[index]
        self.goes_on = index + 1 < len(network.exits)

    def forward(self, x: Tensor) -> Any:
        """Run on images or features (batch, channels, height, width)."""
        x = self.trunk(self.start(x))
        return (self.head(x), x) if self.goes_on else self.head(x)


@torch.no_grad()
def export_exits(
    network: ExitNetwork,
    path: Path,
    *,
    weight_storage: str = "packed",
    reduce_range: bool = False,
    metadata: dict[str, str] | None = None,
) -> float:
    """Write an exit network as one ONNX file of one image at a time; return its KiB.

    Its outputs are ``logits`` (1, classes) and ``exit`` (1,), int64.

    Args:
        network: with its gates.
        path: file to write, atomically.
        weight_storage, reduce_range, metadata: as in :func:`supernet.onnx.export.export_onnx`.

    Raises:
        InputError: gates are missing, or a part cannot be exported.
    """
    import onnx
    from onnx import TensorProto, helper

    network.require_gates()
    parts = []
    x = torch.zeros(1, *network.plan.input_shape)
    with tempfile.TemporaryDirectory() as scratch:
        for index in range(len(network.exits)):
            part = _Part(network, index, x).eval()
            file = Path(scratch) / f"{index}.onnx"
            export_onnx(
                part, file, batch=1, weight_storage=weight_storage, reduce_range=reduce_range
            )
            parts.append(onnx.load(file))
            x = part.trunk(part.start(x))
    classes = network.plan.outputs
    nodes, constants = _from(network, parts, 0, INPUT)
    outputs = [
        helper.make_tensor_value_info(OUTPUT, TensorProto.FLOAT, [1, classes]),
        helper.make_tensor_value_info(EXIT, TensorProto.INT64, [1]),
    ]
    graph = helper.make_graph(
        nodes,
        network.plan.space,
        [helper.make_tensor_value_info(INPUT, TensorProto.FLOAT, [1, *network.plan.input_shape])],
        outputs,
        constants,
    )
    opset = max(part.opset_import[0].version for part in parts)
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=max(part.ir_version for part in parts),
        producer_name="edge-nas",
    )
    helper.set_model_props(model, dict(metadata or {}))
    data = model.SerializeToString()
    write_bytes_atomic(Path(path), data)
    return len(data) / 1024


def _from(
    network: ExitNetwork, parts: list[onnx.ModelProto], index: int, source: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes and constants from segment ``index`` on, that read ``source``.

    They give ``logits`` and ``exit``, with the index as a suffix inside a branch.
    """
    from onnx import TensorProto, helper, numpy_helper

    suffix = "" if index == 0 else f".{index}"
    nodes, constants = _renamed(parts[index], f"e{index}.", source)
    logits = f"e{index}.{OUTPUT}"
    if index + 1 == len(network.exits):
        constants.append(numpy_helper.from_array(np.array([index]), f"e{index}.index"))
        return [
            *nodes,
            helper.make_node("Identity", [logits], [f"{OUTPUT}{suffix}"]),
            helper.make_node("Identity", [f"e{index}.index"], [f"{EXIT}{suffix}"]),
        ], constants
    gate, values = _gate(network.gates[index], logits, f"e{index}.gate")
    nodes += gate
    constants += values
    inner, held = _from(network, parts, index + 1, f"e{index}.{OUTPUT}_1")
    classes = network.plan.outputs

    def outputs(name: str) -> list[Any]:
        return [
            helper.make_tensor_value_info(f"{OUTPUT}{name}", TensorProto.FLOAT, [1, classes]),
            helper.make_tensor_value_info(f"{EXIT}{name}", TensorProto.INT64, [1]),
        ]

    leave = f".{index}.leave"
    done = helper.make_graph(
        [
            helper.make_node("Identity", [logits], [f"{OUTPUT}{leave}"]),
            helper.make_node("Identity", [f"e{index}.index"], [f"{EXIT}{leave}"]),
        ],
        f"exit{network.exits[index]}",
        [],
        outputs(leave),
        [numpy_helper.from_array(np.array([index]), f"e{index}.index")],
    )
    onward = helper.make_graph(
        inner, f"after{network.exits[index]}", [], outputs(f".{index + 1}"), held
    )
    nodes.append(
        helper.make_node(
            "If",
            [f"e{index}.gate"],
            [f"{OUTPUT}{suffix}", f"{EXIT}{suffix}"],
            name=f"gate{network.exits[index]}",
            then_branch=done,
            else_branch=onward,
        )
    )
    return nodes, constants


def _renamed(
    part: onnx.ModelProto, prefix: str, source: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return a part's nodes and constants under names of their own; its input is ``source``."""
    import onnx

    def name(old: str) -> str:
        return source if old == INPUT else f"{prefix}{old}" if old else old

    nodes, constants = [], []
    for node in part.graph.node:
        copied = onnx.NodeProto()
        copied.CopyFrom(node)
        copied.input[:] = [name(one) for one in node.input]
        copied.output[:] = [name(one) for one in node.output]
        copied.name = f"{prefix}{node.name}" if node.name else ""
        nodes.append(copied)
    for tensor in part.graph.initializer:
        held = onnx.TensorProto()
        held.CopyFrom(tensor)
        held.name = name(tensor.name)
        constants.append(held)
    return nodes, constants


def _gate(
    gate: Gate, logits: str, name: str
) -> tuple[list[onnx.NodeProto], list[onnx.TensorProto]]:
    """Return nodes from outputs (1, classes) to the decision ``name``, a scalar bool."""
    from onnx import helper, numpy_helper

    held: list[Any] = []

    def constant(label: str, value: Any) -> str:
        held.append(numpy_helper.from_array(value, f"{name}.{label}"))
        return f"{name}.{label}"

    score = f"{name}.score"
    if gate.kind == "confidence":
        nodes = [
            helper.make_node("Softmax", [logits], [f"{name}.shares"], axis=1),
            helper.make_node("ReduceMax", [f"{name}.shares"], [score], keepdims=0),
        ]
    elif gate.kind == "energy":
        nodes = [helper.make_node("ReduceLogSumExp", [logits], [score], keepdims=0)]
    else:
        count = constant("count", np.array([len(gate.weight)]))
        weight = constant("weight", np.array([gate.weight], np.float32))
        bias = constant("bias", np.float32(gate.bias))
        nodes = [
            helper.make_node("TopK", [logits, count], [f"{name}.sorted", f"{name}.order"], axis=1),
            helper.make_node("Mul", [f"{name}.sorted", weight], [f"{name}.parts"]),
            helper.make_node("ReduceSum", [f"{name}.parts"], [f"{name}.sum"], keepdims=0),
            helper.make_node("Add", [f"{name}.sum", bias], [f"{name}.logit"]),
            helper.make_node("Sigmoid", [f"{name}.logit"], [score]),
        ]
    least = constant("least", np.float32(gate.threshold))
    nodes.append(helper.make_node("GreaterOrEqual", [score, least], [name]))
    return nodes, held
