"""The metric ``worst_class_loss``, from the job to the front."""

from __future__ import annotations

import csv
import json
import math

import pytest

from nas.fronts.class_loss import CLASS_LOSS, asks_class_loss, largest_class_loss
from nas.fronts.metrics import METRICS, TRAINING_MEMORY
from nas.job.schema import Job
from nas.job.sections.constraints import quantities
from nas.tasks import ImageRegression
from tests.nas.fronts.test_fault_rate import JOB

SEARCH = {key: value for key, value in JOB["search"].items() if key != "faults"}
ASKED = {
    **JOB,
    "name": "classes",
    # Layers that may have 2 bits lose something.
    "finetune": {"epochs": 0.5, "sparsity": {"pattern": "2:4"}},
    "search": {
        **SEARCH,
        "objectives": ["accuracy", CLASS_LOSS, TRAINING_MEMORY],
        "constraints": {CLASS_LOSS: {"max": 1.0}, TRAINING_MEMORY: {"max": 1000.0}},
        "training": {"layers": 2, "optimizer": "momentum"},
    },
}


def test_the_largest_loss_counts_and_classes_without_images_do_not():
    nan = math.nan
    assert largest_class_loss([0.5, 0.9, nan], [0.75, 0.8, 1.0]) == 0.25
    assert largest_class_loss([0.9], [0.8]) == pytest.approx(-0.1)
    assert math.isnan(largest_class_loss([nan], [nan]))


def test_floats_are_evaluated_only_where_it_is_asked_for():
    assert asks_class_loss(Job.model_validate(ASKED))
    assert not asks_class_loss(Job.model_validate(JOB))
    assert not METRICS.get(CLASS_LOSS).maximise and METRICS.get(CLASS_LOSS).share
    assert CLASS_LOSS not in quantities(ImageRegression)


def test_a_job_bounds_it_and_its_front_has_it(tmp_path):
    """With zeros among the weights, and the memory of training, beside it."""
    from typer.testing import CliRunner

    from nas.cli.main import app
    from search_spaces.training.memory import training_memory_kib
    from search_spaces.training.update import Update

    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(ASKED))
    run = tmp_path / "run"
    done = CliRunner().invoke(app, ["run", str(path), "--output", str(run)])
    assert done.exit_code == 0, done.output
    with open(run / "front.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(-1 <= float(row[CLASS_LOSS]) <= 1 for row in rows)
    results = json.loads((run / "results.json").read_text())
    assert CLASS_LOSS in results["goals"]
    known = [e["metrics"] for e in results["evaluations"]]
    assert len(known) == 6 and all(math.isfinite(m[CLASS_LOSS]) for m in known)
    assert not any(e["early_stopped"] for e in results["evaluations"])
    job = Job.model_validate(ASKED)
    from nas.job.schema import job_space

    space = job_space(job, input_channels=1, outputs=10)
    for entry in results["front"]:
        genes = space.genes([space.parse(entry["arch"])])
        memory = training_memory_kib(space, genes, Update(last=2, optimizer="momentum"))[0]
        assert entry["costs"][TRAINING_MEMORY] == pytest.approx(memory)
        layers = [layer for block in entry["plan"]["blocks"] for layer in block["layers"]]
        sparse = [layer for layer in layers if layer["sparsity"] == "2:4"]
        assert sparse and layers[0]["sparsity"] == layers[-1]["sparsity"] == "dense"
        assert entry["costs"]["sparse_weights_kib"] <= entry["costs"]["weights_kib"]
        assert _zeros(run / entry["model"]) > 0
    card = next((run / "models").glob("*.md")).read_text()
    assert "2:4 sparse" in card and "an estimate: the file stores zeros" in card
    page = (run / "report.html").read_text()
    assert '"2:4"' in page


def _zeros(model):
    """Return the share of zeros among the codes of a file's weights."""
    import numpy as np
    import onnx
    from onnx import numpy_helper

    found = [numpy_helper.to_array(t) for t in onnx.load(model).graph.initializer]
    codes = [np.asarray(c, np.int32) for c in found if c.ndim >= 2 and c.dtype.kind != "f"]
    return sum(int((c == 0).sum()) for c in codes) / max(1, sum(c.size for c in codes))
