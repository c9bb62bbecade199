"""Every job that comes with the project is a valid one."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest
import yaml

from nas.job.check import load_job
from nas.job.schema import job_space

JOBS = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))
OF_TASKS = sorted((JOBS[0].parent / "tasks").glob("*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_job_is_valid_and_has_a_choice_to_make(path):
    job = load_job(path)
    assert job_space(job).cardinality() > 1
    assert job.objectives()


def plain(path):
    return yaml.safe_load(path.read_text(encoding="utf-8"))


# Of the others the data is made, or brought, by whoever runs them.
@pytest.mark.parametrize(
    "path", [p for p in OF_TASKS if "path" not in plain(p)["data"]], ids=lambda path: path.stem
)
def test_the_job_of_a_task_is_valid(path):
    assert job_space(load_job(path)).cardinality() > 1


def test_there_is_a_job_for_each_task_that_is_built_in():
    from nas.tasks import TASKS

    shown = {plain(path).get("task", "image_classification") for path in (*JOBS, *OF_TASKS)}
    # Vectors of signals and sounds are made as those of images are.
    assert shown >= {name for name in TASKS if TASKS.get(name).__module__.startswith("nas.")} - {
        "signal_embedding", "audio_embedding",
    }  # fmt: skip


def test_there_is_a_job_for_each_use():
    names = {path.stem for path in JOBS}
    assert {
        "digits",
        "fashion_mnist",
        "three_devices",
        "microcontroller",
        "bits_only",
        "vit",
    } <= names


@pytest.mark.parametrize("name", ["bits_only", "microcontroller"])
def test_a_quick_job_runs_from_start_to_end(name, tmp_path, monkeypatch):
    """With little training, so that nothing but the way through is tested."""
    from nas.stages import pipeline

    monkeypatch.chdir(tmp_path)
    path = next(path for path in JOBS if path.stem == name)
    search = yaml.safe_load(path.read_text(encoding="utf-8"))["search"]
    less = {"evaluations": 6, "initial": 4, "batch": 2, "latency_samples": 3, "front_size": 2}
    job = load_job(
        path,
        changes={
            "threads": 1,
            "data": {"name": "digits", "validation": 0.2, "train": 300, "calibration": 64},
            "budget": None,
            "supernet": {"epochs": 1, "warmup_epochs": 0.5},
            "protocol": {"processes": 2, "runs": 5, "retries": 0, "warmup_max_s": 0.2},
            "search": {**search, **less},
        },
    )
    pipeline.run(job, tmp_path / "run")
    with open(tmp_path / "run" / "front.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert rows and (tmp_path / "run" / "report.html").exists()
    for row in rows:
        assert (tmp_path / "run" / row["model"]).exists()
        estimated = name == "microcontroller"
        assert row["latency_source"] == ("estimated" if estimated else "measured")


def test_the_documentation_lists_every_job():
    page = (JOBS[0].parents[1] / "docs" / "example-jobs.md").read_text(encoding="utf-8")
    for path in (*JOBS, *OF_TASKS):
        assert f"{path.name}`" in page, f"docs/example-jobs.md does not say what {path.name} is for"
