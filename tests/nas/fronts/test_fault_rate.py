"""The metric ``accuracy_at_fault_rate``, from the job to the front."""

from __future__ import annotations

import csv
import json

import pytest

from nas.fronts.fault_rate import FAULTY, asked_faults
from nas.job.schema import Job

JOB = {
    "name": "faults",
    "data": {"name": "digits", "train": 400, "validation": 200, "calibration": 64},
    "space": {
        "name": "mobilenet",
        "preset": "8x8",
        "stages": [{"channels": 8, "stride": 1, "depths": [1, 2]}],
        "stem_channels": 4,
        "head_channels": 8,
    },
    "supernet": {"epochs": 1},
    "finetune": {"epochs": 0},
    "devices": [{"name": "npu", "simulator": "roofline", "hardware": "bitfusion-16x32"}],
    "search": {
        "objectives": ["accuracy", "latency_ms", FAULTY],
        "constraints": {FAULTY: {"min": 0.01}},
        "faults": {"rate": 0.02, "draws": 2},
        "evaluations": 6,
        "initial": 4,
        "batch": 2,
        "latency_samples": 4,
        "front_size": 2,
        "early_stopping": {"images": 50},
    },
}


def test_faults_are_drawn_only_where_they_are_asked_for():
    job = Job.model_validate(JOB)
    asked = asked_faults(job)
    assert (asked.kind, asked.rate, asked.draws) == ("flips", 0.02, 2)
    plain = {"objectives": ["accuracy", "latency_ms"], "faults": {"rate": 0.02}}
    assert asked_faults(Job.model_validate({**JOB, "search": plain})) is None
    bounded = {"constraints": {FAULTY: {"min": 0.5}}}
    assert asked_faults(Job.model_validate({**JOB, "search": bounded})) is not None


def test_the_mean_over_draws_counts():
    asked = asked_faults(Job.model_validate(JOB))

    class Network:
        """Counts what it is asked."""

    seen = []

    def evaluate(network):
        seen.append(network)
        return float(len(seen))

    import supernet.faults.injection as injection

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(injection, "with_faults", lambda network, faults: faults.seed)
        assert asked.accuracy(Network(), evaluate) == 1.5
    assert len(set(seen)) == 2


def test_a_job_trades_it_off_and_its_front_has_it(tmp_path):
    from typer.testing import CliRunner

    from nas.cli.main import app

    path = tmp_path / "job.yaml"
    path.write_text(json.dumps(JOB))
    done = CliRunner().invoke(app, ["run", str(path), "--output", str(tmp_path / "run")])
    assert done.exit_code == 0, done.output
    with open(tmp_path / "run" / "front.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(0 <= float(row[FAULTY]) <= 1 for row in rows)
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert f"{FAULTY}" in results["goals"]
    # Faults cost accuracy, on average over what was evaluated.
    known = [e["metrics"] for e in results["evaluations"]]
    assert len(known) == 6 and not any(e["early_stopped"] for e in results["evaluations"])
    assert sum(m[FAULTY] for m in known) < sum(m["accuracy"] for m in known)
