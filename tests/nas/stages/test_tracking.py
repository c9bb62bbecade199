"""TensorBoard logs, and the validation that guards training."""

from __future__ import annotations

import pytest

from nas.job.schema import Job
from nas.stages.opened_job import RunContext
from nas.stages.tracking import tensorboard_log, validation_of
from search_spaces.errors import MissingExtraError


def test_without_a_folder_nothing_is_written(tmp_path):
    with tensorboard_log(None) as log:
        log({"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_records_are_written_as_scalars(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    with tensorboard_log(tmp_path) as log:
        for step in (1, 2):
            log({"step": step, "loss": 1.0 / step})
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(e.step, e.value) for e in events.Scalars("supernet/loss")] == [(1, 1.0), (2, 0.5)]


def test_a_missing_tensorboard_is_told_before_any_work(tmp_path, monkeypatch):
    from nas.stages import pipeline

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    job = Job.model_validate(
        {"name": "tiny", "data": {"name": "digits"}, "supernet": {"tensorboard": True}}
    )
    with pytest.raises(MissingExtraError, match=r"edge-nas\[track\]"):
        pipeline.run(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_validation_is_the_accuracy_of_the_subnet():
    from nas.stages.evaluator import Evaluator
    from supernet.network import Supernet

    stages = [{"channels": 8, "stride": 1, "depths": [1]}]
    job = Job.model_validate(
        {
            "name": "tiny",
            "data": {"name": "digits", "calibration": 100},
            "space": {"name": "mobilenet", "preset": "8x8", "stages": stages},
        }
    )
    context = RunContext.of(job)
    supernet = Supernet(context.space)
    context.splits._test = None  # nothing here may look at it
    evaluator = Evaluator(supernet, context.splits, context.task)
    validate = validation_of(context)
    used = []
    evaluate = supernet.evaluate
    supernet.evaluate = lambda x, plan, statistics: (
        used.append(statistics) or evaluate(x, plan, statistics)
    )
    values = dict(context.space.largest().items)
    for bits in (2, 8):
        at = {n: bits if ".w." in n or ".a." in n else v for n, v in values.items()}
        plan = context.space.plan(context.space.arch(at))
        expected = evaluator.accuracy(evaluator.network(plan))
        assert validate(supernet, plan) == pytest.approx(expected, abs=0.02)
        # Batch norm is calibrated at the bits of the subnet itself.
        images = (x for x, _ in context.splits.evaluation_batches(context.splits.calibration))
        for name, (_, variance) in supernet.statistics(plan, images).items():
            assert variance.allclose(used[-1][name][1], rtol=1e-4), name
