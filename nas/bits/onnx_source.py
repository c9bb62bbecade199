"""An ONNX file as a trained network, for bits and post-training quantisation."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from torch import Tensor

from devices.runtimes.torch_graph import GraphModule
from search_spaces.errors import InputError

_LAYERS = ("Conv", "Gemm", "MatMul")


class OnnxNetwork(GraphModule):
    """What an ONNX file computes, with layers called as its weights.

    Args:
        path: a float file with one input.

    Raises:
        InputError: it has several inputs, or an operator without a translation.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        if len(self.inputs) != 1:
            raise InputError(f"{path} has {len(self.inputs)} inputs; it must have one")
        constants = self.constants_by_name
        for count, node in enumerate(self.nodes):
            weight = node.inputs[1] if len(node.inputs) > 1 else ""
            if node.op in _LAYERS and weight in constants:
                # Neither dots nor slashes may be in the name of a buffer.
                name = re.sub(r"\W+", "_", weight).strip("_")
                name = re.sub(r"_?weights?$", "", name) or f"{node.op}_{count}"
                self.rename_constant(weight, f"{name}_weight")

    def forward(self, x: Tensor) -> Any:  # type: ignore[override]
        """Run on ``x`` (batch, ...) of the file's input; several outputs come as a tuple."""
        found = super().forward(x)
        return found[0] if len(found) == 1 else tuple(found)


def is_run_model(path: Path) -> bool:
    """Whether an ONNX file lies in the ``models`` folder of a run."""
    return path.parent.name == "models" and (path.parent.parent / "manifest.json").exists()
