"""Runs and studies over seeds: what is left to do, aggregation, claims."""

from __future__ import annotations

import json

import pytest
import yaml

from experiments import results_index
from experiments.value import study


def comparison(ahead, missing=0):
    rows = [
        {
            "budget": 10.0 * (i + 1),
            "front": None if value is None else {"accuracy": 0.9 + value / 100},
            "family": [{"accuracy": 0.9}],
            "ahead": value,
        }
        for i, value in enumerate(ahead)
    ]
    known = [value for value in ahead if value is not None]
    return {
        "rows": rows,
        "mean": sum(known) / len(known) if known else None,
        "worst": min(known, default=None),
        "missing": missing,
    }


def test_seeds_are_gathered_budget_by_budget():
    found = study.gather([comparison([1.0, -1.0]), comparison([2.0, 0.5]), comparison([3.0, 0.8])])
    assert [row["ahead"]["mean"] for row in found["rows"]] == [2.0, 0.1]
    assert found["worst"] == 0.1
    assert found["mean"]["mean"] == pytest.approx((0.0 + 1.25 + 1.9) / 3, abs=1e-3)
    assert found["mean"]["low"] < found["mean"]["mean"] < found["mean"]["high"]
    # Student's t of two degrees of freedom over 1, 2 and 3.
    first = found["rows"][0]["ahead"]
    assert first["high"] - first["mean"] == pytest.approx(4.3027 / 3**0.5, abs=2e-3)


def test_a_budget_without_a_model_of_the_front_cannot_be_met(tmp_path, monkeypatch):
    gathered = study.gather([comparison([None, 5.0], missing=1), comparison([1.0, 5.0])])
    assert gathered["rows"][0]["ahead"] is None and gathered["missing"] == 1
    index = tmp_path / "index.json"
    monkeypatch.setattr(
        study, "record_claim", lambda *a, **k: results_index.record_claim(*a, index=index, **k)
    )
    monkeypatch.setitem(study.CLAIMS, "mine", {"value.mine": ("at_size", "int8", "mean", 0.7)})
    result = {"name": "mine", "command": "c", "at_size": {"int8": gathered}, "at_latency": {}}
    study.record(result)
    assert json.loads(index.read_text())["value.mine"]["met"] is False
    result["at_size"]["int8"] = study.gather([comparison([1.0, 5.0])] * 2)
    study.record(result)
    claim = json.loads(index.read_text())["value.mine"]
    assert claim["met"] is True and claim["value"] == 3.0


def test_only_what_is_left_is_done(tmp_path):
    run = tmp_path / "seed-0"
    first = study.commands(tmp_path / "job.yaml", run, 7, ["--sizes", "6,12"])
    assert [c[3] for c in first] == ["run", "study"] and first[0][-2:] == ["--seed", "7"]
    run.mkdir()
    (run / "manifest.json").touch()
    assert study.commands(tmp_path / "job.yaml", run, 7, [])[0][3:] == ["resume", str(run)]
    (run / "results.json").touch()
    assert [c[3] for c in study.commands(tmp_path / "job.yaml", run, 7, [])] == ["study"]


def test_cores():
    assert study.cores_of("0-2,5") == {0, 1, 2, 5}
    assert study.cores_of("3") == {3}


def test_another_runtime_changes_the_device_and_nothing_else(tmp_path):
    job = tmp_path / "jobs" / "job.yaml"
    job.parent.mkdir()
    job.write_text(
        yaml.safe_dump(
            {
                "name": "one",
                "data": {"name": "digits"},
                "space": {"name": "mobilenet", "preset": "8x8"},
                "budget": {"minutes": 5.0},
                "devices": [{"name": "cpu", "runtime": "onnxruntime", "threads": 1}],
            }
        )
    )
    assert study.job_file(job, tmp_path, None) == job
    copy = study.job_file(job, tmp_path, "lowbit")
    before, after = study.load_job(job), study.load_job(copy)
    assert [d.runtime for d in after.devices] == ["lowbit"]
    same = {"output", "devices"}
    assert after.model_dump(exclude=same) == before.model_dump(exclude=same)


def test_another_budget_is_in_processor_time_and_the_rest_stays(tmp_path):
    job = tmp_path / "jobs" / "job.yaml"
    job.parent.mkdir()
    job.write_text("name: one\ndata: {name: digits}\nbudget: {minutes: 5, supernet: 0.25}\n")
    after = study.load_job(study.job_file(job, tmp_path, None, 7.5))
    assert after.budget.cpu_minutes == 7.5 and after.budget.minutes is None
    assert after.budget.supernet == 0.25
    same = {"output", "budget", "supernet"}
    assert after.model_dump(exclude=same) == study.load_job(job).model_dump(exclude=same)


def test_a_recorded_command_names_no_folder_of_this_machine():
    given = ["digits", "job.yaml", "--runs", "/somewhere", "--seeds", "0", "--only-collect"]
    assert study.repeatable(given) == ["digits", "job.yaml", "--seeds", "0"]
