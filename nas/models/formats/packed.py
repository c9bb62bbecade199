"""The packed low-bit model file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import ClassVar

import numpy as np

from devices.runtimes.agreement import Agreement, agreement, relative_error
from nas.models.formats.base import FORMATS, OnnxBased, Source, Written
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.packed_model import PackedModel, read_packed_model
from search_spaces.model_files.packing import pack_onnx

NOISES = (1e-3, 3e-3, 1e-2)
"""At the input, whose effect is what roundings that fall the other way may make: the first that
changes a code, which the least does not where an input has few values."""

ROUNDED = 0.05
"""Largest relative error of a language model's packed file; see :mod:`nas.models.file_check`."""


@FORMATS.register("lowbit")
class PackedFile(OnnxBased):
    """Weights at their own bit-widths, see docs/lowbit-format.md."""

    name: ClassVar[str] = "lowbit"
    summary: ClassVar[str] = "packed low-bit model (.lowbit), weights at their own bits"

    @classmethod
    def write(cls, source: Source, folder: Path) -> Written:
        """See :meth:`Format.write`: id and labels are in the file."""
        cls.require()
        path = folder / f"{source.id}.lowbit"
        notes = {"id": source.id, "labels": json.dumps(list(source.labels))}
        pack_onnx(source.path, path, metadata=notes)
        found, note = packed_agreement(read_packed_model(path), source)
        return Written.compared(cls.name, (path.name,), found, note=note)


def packed_agreement(model: PackedModel, source: Source) -> tuple[Agreement | None, str]:
    """Return how right a packed model is, and why that is not known where it cannot run."""
    from devices.runtime import random_inputs
    from devices.runtimes.conversion import TOLERANCE
    from devices.runtimes.onnxruntime import OnnxRuntime
    from nas.models.c_project.project import runtime_outputs

    reference = OnnxRuntime(graph_optimization="off").load(source.path)
    try:
        found = agreement(lambda inputs: runtime_outputs(model, inputs), reference)
    except EnvironmentProblem as error:
        return None, f"not run: {error}"
    inputs = random_inputs(reference.inputs, 0)
    expected = np.array(reference(*inputs)[0])
    noise, moved = np.random.default_rng(1).standard_normal(inputs[0].shape), 0.0
    for size in NOISES:
        noisy = (inputs[0] + size * noise).astype(np.float32)
        moved = relative_error(np.array(reference(noisy)[0]), expected)
        if moved:
            break
    allowed = max(TOLERANCE["file"], 3 * moved)
    if any(node["op"] == "embed" for node in model.nodes()):
        # Noise does not move numbers of tokens, so it tells nothing of roundings that fall the
        # other way further on.
        allowed = max(allowed, ROUNDED)
    if found.relative_error > allowed:
        raise InputError(
            f"{source.path}: packed, its outputs differ by {found.relative_error:.2g} (relative), "
            f"where noise of {size:g} at the input makes {moved:.2g}; the packing is wrong for it"
        )
    return found, ""
