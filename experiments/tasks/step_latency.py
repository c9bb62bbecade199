"""Steps of architectures of one run timed in turn, so that whatever else runs slows all alike.

A run measures its models in rounds, minutes apart on a busy machine, and keeps the files of its
front alone. What a step takes follows from the architecture and not from the values of its weights,
so the files are made anew, from the run's shared weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from devices.runtime import make_runtime, random_inputs
from experiments.kernels.contenders import interleave
from nas.job.schema import Job
from nas.models.language.export_parts import export_part
from nas.record.run_folder import RunStore
from nas.stages.opened_job import RunContext

ROUNDS = 400
QUARTILE = 25
"""Per cent of the times below the one that is told: interference only adds to a time."""


def step_ms(
    folder: Path, archs: Sequence[str], parts: Sequence[str]
) -> dict[str, dict[str, float]]:
    """Return the ms of each part of each architecture, in ONNX Runtime on one thread.

    Args:
        folder: of the run.
        archs: of its space.
        parts: of :mod:`nas.models.language.parts`.
    """
    store = RunStore.open(folder)
    context = RunContext.of(Job.model_validate(store.manifest()["job"]), threads=1)
    evaluator, splits = context.evaluator(store), context.splits
    inputs, _ = next(splits.evaluation_batches(splits.calibration, batch_size=4))
    runtime = make_runtime("onnxruntime", {"threads": 1})
    runs = {}
    with tempfile.TemporaryDirectory() as place:
        for i, arch in enumerate(archs):
            network = evaluator.network(context.space.parse(arch)).eval()
            for part in parts:
                path = Path(place) / f"{i}-{part}.onnx"
                export_part(network, path, part, inputs)
                session = runtime.load(path)
                runs[f"{i} {part}"] = session.bind(*random_inputs(session.inputs, 0))
        times = interleave(runs, ROUNDS)
    return {
        arch: {
            part: round(float(np.percentile(times[f"{i} {part}"], QUARTILE)), 5) for part in parts
        }
        for i, arch in enumerate(archs)
    }
