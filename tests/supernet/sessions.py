"""ONNX Runtime as tests compare with it: where its integer kernels compute what is written."""

from __future__ import annotations

from pathlib import Path

import onnxruntime

from devices.measuring.conditions import has_dot_products
from nas.models.parity import open_session


def exact_session(
    path: str | Path, *, optimise: bool | None = None
) -> onnxruntime.InferenceSession:
    """Return a session of one thread.

    Args:
        path: of the file.
        optimise: fuse to integer kernels. They saturate on x86 without 8-bit dot products unless
            the file was written for that (``reduce_range``), so None fuses only elsewhere.
    """
    return open_session(Path(path), optimise=has_dot_products() if optimise is None else optimise)
