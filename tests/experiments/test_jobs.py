"""Every job that comes with the project is a valid one."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.job import job_space, load_job

JOBS = sorted((Path(__file__).parents[2] / "experiments").glob("*.yaml"))


@pytest.mark.parametrize("path", JOBS, ids=lambda path: path.stem)
def test_the_job_is_valid_and_has_a_choice_to_make(path):
    job = load_job(path)
    assert job_space(job).cardinality() > 1
    assert job.objectives()


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
