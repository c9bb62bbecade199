"""An ONNX file as a trained network, for bits and post-training quantisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from devices.runtimes.torch_graph import GraphModule
from search_spaces.errors import InputError
from search_spaces.model_files.graph import PRODUCTS

_QUANTISED = frozenset({"Round", "QuantizeLinear", "DequantizeLinear", "MatMulNBits"})
"""Operators by one of which a file shows that it was quantised."""


class OnnxNetwork(GraphModule):
    """What an ONNX file computes, with layers called as its weights.

    Args:
        path: a float file with one input.

    Raises:
        InputError: it has several inputs, or an operator without a translation.
    """

    def __init__(self, path: Path) -> None:
        try:
            super().__init__(path)
        except InputError as error:
            raise InputError(f"{error}{_hint(path)}") from None
        if len(self.inputs) != 1:
            raise InputError(f"{path} has {len(self.inputs)} inputs; it must have one")
        constants = self.constants_by_name
        for count, node in enumerate(self.nodes):
            weight = node.inputs[1] if len(node.inputs) > 1 else ""
            if node.op in PRODUCTS and weight in constants:
                # Neither dots nor slashes may be in the name of a buffer.
                name = re.sub(r"\W+", "_", weight).strip("_")
                name = re.sub(r"_?weights?$", "", name) or f"{node.op}_{count}"
                self.rename_constant(weight, f"{name}_weight")

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        """Run on ``x`` (batch, ...) of the file's input; several outputs come as a tuple."""
        found = super().forward(x)
        return found[0] if len(found) == 1 else tuple(found)


def _hint(path: Path) -> str:
    """Return what to do where a file is a quantised one, and nothing for another."""
    from devices.runtimes.graph import read_graph

    if not {node.op for node in read_graph(path).nodes} & _QUANTISED:
        return ""
    told = "; the file is quantised already: give the float network that it was made of"
    if is_run_model(path):
        run = path.parent.parent
        return (
            f"{told}, as module:callable. The layers, bits and costs of this one are in "
            f"{run / 'report.html'}, and in the card that 'nas export {run} --pick {path.stem}' "
            "writes"
        )
    return f"{told}, as module:callable or as an ONNX file of floats"


def is_run_model(path: Path) -> bool:
    """Whether an ONNX file lies in the ``models`` folder of a run."""
    return path.parent.name == "models" and (path.parent.parent / "manifest.json").exists()
