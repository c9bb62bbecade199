"""Files with pre-processing inside: how they are made from the run's, and held against it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from devices.runtime import Session
from devices.runtimes.agreement import SEEDS, Agreement
from devices.runtimes.conversion import TOLERANCE
from devices.runtimes.onnxruntime import OnnxRuntime
from nas.models.formats.base import Source
from nas.models.formats.preprocessing import raw_inputs, with_preprocessing
from search_spaces.atomic import write_bytes_atomic
from search_spaces.errors import InputError

_NOISE = 1e-3
"""In deviations of the inputs: what roundings that fall the other way may answer."""


def write_embedded(
    source: Source,
    path: Path,
    target: Path,
    *,
    floats: bool = False,
    with_class: bool = True,
) -> Path:
    """Write ``path``, an ONNX file of the model of ``source``, with the pre-processing in it.

    Args:
        source: says how inputs are made.
        path: the run's file, or its float twin.
        target: of the new file.
        floats, with_class: see :func:`~nas.models.formats.preprocessing.with_preprocessing`.

    Raises:
        InputError: what is recorded cannot be embedded.
    """
    import onnx

    made = with_preprocessing(
        onnx.load(str(path)), source.preprocessing, floats=floats, with_class=with_class
    )
    write_bytes_atomic(target, made.SerializeToString())
    return target


def agreement_of_embedded(
    session: Session, source: Source, path: Path, *, floats: bool = False
) -> Agreement:
    """Compare a model with pre-processing with the network on inputs that were prepared outside.

    Args:
        session: takes pixels, samples or values.
        source: says how inputs are made.
        path: ONNX file of the network without pre-processing, float where ``session`` is.
        floats: whole numbers go in as floats.

    Raises:
        InputError: the outputs differ by more than rounding explains, or the class is not the
            largest output.
    """
    reference = OnnxRuntime(graph_optimization="off").load(path)
    shape = reference.inputs[0].shape
    outputs, expected, moved = [], [], []
    for seed in range(SEEDS):
        raw, inputs = raw_inputs(shape, source.preprocessing, seed)
        wanted = np.array(reference(inputs)[0])
        logits, *classes = (np.array(o) for o in session(raw.astype(np.float32) if floats else raw))
        outputs.append(logits.reshape(wanted.shape))
        expected.append(wanted)
        noise = np.random.default_rng(seed).standard_normal(inputs.shape).astype(np.float32)
        moved.append(np.array(reference(inputs + np.float32(_NOISE) * noise)[0]))
        if classes and not np.array_equal(outputs[-1].argmax(1), classes[0].reshape(-1)):
            raise InputError(f"{source.path}: with its pre-processing, the class is wrong")
    found = Agreement.of(outputs, expected)
    allowed = max(TOLERANCE["file"], 3 * Agreement.of(moved, expected).relative_error)
    if not found.relative_error <= allowed:
        raise InputError(
            f"{source.path}: with its pre-processing, the outputs differ by "
            f"{found.relative_error:.2g} (relative), where {allowed:.2g} is rounding; the "
            "conversion is wrong for this model"
        )
    return found
