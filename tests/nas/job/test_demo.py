"""The demonstration job is part of the package, and the one that the documentation shows."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from nas.job.demo import demo_job

ROOT = Path(__file__).parents[3]


def test_it_is_the_job_of_the_experiments():
    shipped = (resources.files("nas.job") / "digits.yaml").read_text()
    assert shipped == (ROOT / "experiments" / "digits.yaml").read_text()


def test_small_is_smaller_and_otherwise_the_same():
    whole, small = demo_job(), demo_job(small=True)
    assert small.search.evaluations < whole.search.evaluations
    assert small.budget.minutes < whole.budget.minutes
    assert small.objectives() == whole.objectives() and small.space == whole.space
