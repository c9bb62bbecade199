"""A runtime of another package: ONNX Runtime as a file says, without its optimisations."""

from typing import Any

from devices.runtimes.onnxruntime import OnnxRuntime


class Unoptimised(OnnxRuntime):
    """Runs the operators of a file one by one."""

    name = "unoptimised"

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "graph_optimization": "off"})
