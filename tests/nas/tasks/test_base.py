"""What a task of somebody else's must not do, and would not notice."""

from __future__ import annotations

import pytest
import torch

from nas.tasks import Task
from search_spaces.errors import InputError


class Distance(Task):
    """Outputs (batch, 1) of numbers."""

    metric_name = "distance_of_tests"
    higher_is_better = False

    def load(self, config, seed):
        raise NotImplementedError

    def outputs(self, splits):
        return 1

    def loss(self, outputs, targets):
        return (outputs[:, 0] - targets).abs().mean()

    def distillation_loss(self, outputs, teacher_outputs):
        return (outputs - teacher_outputs).abs().mean()

    def terms(self, outputs, targets):
        return (outputs[:, 0] - targets).abs()


BATCH = (torch.ones(4, 1), torch.tensor([1.0, 1.0, 2.0, 2.0]))


def test_terms_are_one_an_example():
    assert Distance().evaluate(lambda x: x, [BATCH]) == 0.5

    class Broadcast(Distance):
        def terms(self, outputs, targets):
            return (outputs - targets).abs()

    class Mean(Distance):
        def terms(self, outputs, targets):
            return (outputs[:, 0] - targets).abs().mean()

    for wrong, shape in ((Broadcast, r"\(4, 4\)"), (Mean, r"\(\)")):
        with pytest.raises(InputError, match=rf"terms\(\) gave {shape} for a batch of 4"):
            wrong().evaluate(lambda x: x, [BATCH])


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("my error", "a word of lower-case letters"),
        ("error[cpu]", "a word of lower-case letters"),
        ("latency_ms", "a run has latency_ms of its own"),
        ("macs", "a run has macs of its own"),
    ],
)
def test_a_metric_has_a_name_of_its_own(name, message):
    with pytest.raises(TypeError, match=message):
        type("Wrong", (Distance,), {"metric_name": name})
