"""The validation that guards training."""

from __future__ import annotations

import pytest

from nas.job.schema import Job
from nas.stages.collapse import validation_of
from nas.stages.opened_job import RunContext


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
