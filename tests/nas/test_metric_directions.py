"""A metric that is better when smaller, from the job to the front: nothing is turned round."""

import math

import numpy as np
import pytest
import torch

from nas.fronts.metrics import Constraint, Goal, Metric
from nas.fronts.spec import FrontSpec
from nas.job.check import load_job
from nas.job.schema import Job
from nas.job.yaml_source import DiagnosticsError
from nas.report.front import columns, front_rows
from nas.report.results import metric_text
from nas.stages.early_stopping import accuracy_needed
from nas.tasks import ImageClassification, ImageRegression

JOB = """\
name: weigh
task: {task}
data: {{name: digits}}
search:
  constraints: {constraints}
  {rest}
"""


def load(tmp_path, *, task="image_regression", constraints="{}", rest="{}"):
    path = tmp_path / "job.yaml"
    rest = "front_size: 4" if rest == "{}" else rest
    path.write_text(JOB.format(task=task, constraints=constraints, rest=rest))
    return load_job(path)


def test_a_job_trades_off_the_metric_of_its_task_by_name(tmp_path):
    job = load(tmp_path, constraints="{rmse: {max: 3.5}}")
    assert [str(goal.metric) for goal in job.objectives()] == ["rmse", "latency_ms[cpu]"]
    assert job.objectives()[0].direction == "minimize"
    (bound,) = job.constraints()
    assert bound.name == "rmse max" and bound.violation(4.0) > 0 > bound.violation(3.0)
    # What a run records is the same job again.
    again = Job.model_validate(job.resolved())
    assert again.objectives() == job.objectives() and again.constraints() == job.constraints()
    named = load(tmp_path, rest="objectives: [rmse, macs]").objectives()
    assert [str(goal.metric) for goal in named] == ["rmse", "macs"]
    other = load(tmp_path, task="image_classification").objectives()
    assert str(other[0].metric) == "accuracy"


@pytest.mark.parametrize(
    "changes, place, message",
    [
        ({"constraints": "{accuracy: {min: 0.9}}"}, "5:", "unknown key 'accuracy'"),
        ({"constraints": "{rsme: {max: 1}}"}, "5:", "did you mean 'rmse'"),
        ({"rest": "objectives: [accuracy, macs]"}, "6:", "unknown objective 'accuracy'"),
        ({"task": "image_classification", "constraints": "{rmse: {max: 1}}"}, "5:", "'rmse'"),
        ({"constraints": "{worst_class_accuracy: {min: 0.5}}"}, "5:", "worst_class_accuracy"),
        (
            {"task": "multi_label_classification", "rest": "early_stopping: {images: 50}"},
            "6:",
            "says nothing certain of mean_average_precision",
        ),
        (
            {
                "task": "multi_label_classification",
                "constraints": "{mean_average_precision: {min: 90}}",
            },
            "5:",
            "write 0.9",
        ),
    ],
)
def test_quantities_of_another_task_are_refused_at_their_place(tmp_path, changes, place, message):
    with pytest.raises(DiagnosticsError) as error:
        load(tmp_path, **changes)
    (told,) = [str(d) for d in error.value.diagnostics]
    assert f"job.yaml:{place}" in told and message in told


def test_what_is_needed_of_an_error_is_an_upper_limit():
    goals = (Goal(Metric("rmse")), Goal(Metric("macs")))
    front = FrontSpec("joint", goals, ())
    seen = [{"rmse": 3.0, "macs": 10.0}, {"rmse": 2.0, "macs": 20.0}, {"rmse": 9.0, "macs": 5.0}]
    assert accuracy_needed({"macs": 15.0}, seen, [front], metric="rmse") == 3.0
    assert accuracy_needed({"macs": 25.0}, seen, [front], metric="rmse") == 2.0
    assert accuracy_needed({"macs": 1.0}, seen, [front], metric="rmse") == math.inf
    bound = Constraint(Metric("rmse"), 2.5)
    bounded = FrontSpec("joint", goals, (bound,))
    assert accuracy_needed({"macs": 1.0}, seen, [bounded], metric="rmse") == 2.5


@pytest.mark.parametrize("risk", [0.05, 0.2])
def test_few_limits_of_a_part_exclude_the_whole(risk):
    """The risk is kept: how often the error of all examples is better than the limit."""
    rng = np.random.default_rng(0)
    task = ImageRegression()
    task.mean, task.std = torch.zeros(1), torch.ones(1)
    missed = 0
    for _ in range(400):
        error = torch.from_numpy(rng.normal(0, 1, (300, 1)))
        part, whole = task.score(), task.score()
        part.add(error[:100], torch.zeros(100, 1))
        whole.add(error, torch.zeros(300, 1))
        missed += whole.values()["rmse"] < part.limit(300, risk)
    assert missed / 400 < risk + 0.05


def test_a_front_file_carries_the_metric_by_its_name():
    entry = {"id": "a", "arch": "x", "test_accuracy": 2.5, "validation_accuracy": 2.25,
             "test": {"rmse": 2.5, "mae": 2.0, "r2": 0.5}, "per_class": {"height": 2.5},
             "devices": {"cpu": {"latency_ms": 1.0}}}  # fmt: skip
    results = {
        "metric": "rmse",
        "higher_is_better": False,
        "task": {
            "metric": {"unit": "kg", "share": False},
            "has_classes": False,
            "further_metrics": {"mae": {}, "r2": {}},
        },
        "front": [entry],
    }
    (row,) = front_rows(results)
    assert row["accuracy"] is None and row["validation_accuracy"] is None
    assert row["worst_class_accuracy"] is None
    assert (row["rmse"], row["validation_rmse"], row["mae"], row["r2"]) == (2.5, 2.25, 2.0, 0.5)
    assert columns(results)[-4:] == ("rmse", "validation_rmse", "mae", "r2")
    assert metric_text(2.5, results) == "2.5 kg"
    assert metric_text(0.5, {"metric": "accuracy"}) == "50.00 %"


def test_a_task_cannot_turn_a_known_metric_round():
    with pytest.raises(TypeError, match="'accuracy' is known as one that is better when larger"):

        class Wrong(ImageClassification):
            higher_is_better = False
