"""An ONNX file as a trained network, for bits and post-training quantisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from devices.runtimes.torch_graph import GraphModule
from search_spaces.errors import InputError
from search_spaces.model_files.graph import PRODUCTS, Graph, read_graph
from search_spaces.terminal import quoted

_QUANTISED = frozenset({"Round", "QuantizeLinear", "DequantizeLinear", "MatMulNBits"})
"""Operators by one of which a file shows that it was quantised."""


class OnnxNetwork(GraphModule):
    """What an ONNX file computes, with layers called as its weights.

    Args:
        path: a float file with one input.

    Attributes:
        input_shape: of one input, without the batch; empty where the file leaves it open.

    Raises:
        InputError: it has several inputs, or an operator without a translation.
    """

    def __init__(self, path: Path) -> None:
        graph = read_graph(path, beside=True)
        try:
            super().__init__(path, graph=graph)
        except InputError as error:
            raise InputError(f"{error}{_hint(path, graph)}") from None
        if len(self.inputs) != 1:
            raise InputError(f"{path} has {len(self.inputs)} inputs; it must have one")
        shape = graph.shapes.get(self.inputs[0], ())
        self.input_shape = tuple(shape[1:]) if all(shape[1:]) else ()
        constants = self.constants_by_name
        for count, node in enumerate(self.nodes):
            weight = node.inputs[1] if len(node.inputs) > 1 else ""
            if node.op in PRODUCTS and weight in constants:
                # Neither dots nor slashes may be in the name of a buffer.
                name = re.sub(r"\W+", "_", weight).strip("_")
                name = re.sub(r"_?weights?$", "", name) or f"{node.op}_{count}"
                self.rename_constant(weight, f"{name}_weight")

    @property
    def parameter_count(self) -> int:
        """Numbers that the file holds as constants, without shapes, axes and single ones."""
        found = [getattr(self, name) for name in set(self.constants_by_name.values())]
        return sum(v.numel() for v in found if v.is_floating_point() and v.dim())

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        """Run on ``x`` (batch, ...) of the file's input; several outputs come as a tuple."""
        found = super().forward(x)
        return found[0] if len(found) == 1 else tuple(found)


def _hint(path: Path, graph: Graph) -> str:
    """Return what to do where a file is a quantised one, and nothing for another."""
    if not {node.op for node in graph.nodes} & _QUANTISED:
        return ""
    told = "; the file is quantised already: give the float network that it was made of"
    if is_run_model(path):
        run = path.parent.parent
        return (
            f"{told}, as module:callable. The layers, bits and costs of this one are in "
            f"{run / 'report.html'}, and in the card that 'nas export {quoted(run)} --pick "
            f"{path.stem}' writes"
        )
    return f"{told}, as module:callable or as an ONNX file of floats"


def is_run_model(path: Path) -> bool:
    """Whether an ONNX file lies in the ``models`` folder of a run."""
    return path.parent.name == "models" and (path.parent.parent / "manifest.json").exists()
