"""ONNX Runtime as tests compare with it: where its integer kernels compute what is written."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from devices.measuring.conditions import has_dot_products


def exact_session(
    path: str | Path, *, optimise: bool | None = None
) -> onnxruntime.InferenceSession:
    """Return a session of one thread.

    Args:
        path: of the file.
        optimise: fuse to integer kernels. They saturate on x86 without 8-bit dot products unless
            the file was written for that (``reduce_range``), so None fuses only elsewhere.
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    if not (has_dot_products() if optimise is None else optimise):
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
