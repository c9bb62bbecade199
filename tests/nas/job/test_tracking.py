"""The key ``tracking`` of a job: names, options, packages, each mistake at its place."""

from __future__ import annotations

import pytest

from nas.job.check import load_job
from nas.job.yaml_source import DiagnosticsError
from nas.trackers.base import Tracker


@pytest.fixture
def job(tmp_path, monkeypatch):
    monkeypatch.setattr(Tracker, "require", classmethod(lambda kind: None))
    path = tmp_path / "job.yaml"

    def load(tracking: str):
        path.write_text(f"name: a\ndata: {{name: digits}}\ntracking: {tracking}\n")
        return load_job(path)

    return load


def test_a_word_is_a_name_and_options_are_kept(job):
    found = job("[tensorboard, {name: wandb, options: {mode: offline}}]")
    assert [(one.name, one.options) for one in found.tracking] == [
        ("tensorboard", {}),
        ("wandb", {"mode": "offline"}),
    ]
    assert found.resolved()["tracking"][0] == {"name": "tensorboard", "options": {}}
    # The older option is the same tracker, once.
    raw = found.model_dump() | {"supernet": {"tensorboard": True}}
    assert [one.name for one in type(found).model_validate(raw).trackers()] == [
        "tensorboard",
        "wandb",
    ]


@pytest.mark.parametrize(
    ("tracking", "message"),
    [
        ("[wandbb]", r":3:\d+: tracking.0.name: unknown tracker 'wandbb'; did you mean 'wandb'"),
        ("[mlflow]", "tracker 'mlflow' needs the option uri"),
        ("[{name: wandb, options: {mode: dark}}]", "none of: online, offline"),
        ("[{name: wandb, options: {colour: 1}}]", "unknown option 'colour' of tracker 'wandb'"),
        ("[{name: wandb, project: x}]", "unknown key 'project' in tracking.0"),
        ("[tensorboard, tensorboard]", "tracking.1: 'tensorboard' is there twice"),
        ("tensorboard", "is not a list"),
        ("[{name: mlflow, options: {uri: 'http://me:pw@host'}}]", "leave the password out"),
    ],
)
def test_mistakes_are_told_at_their_place(job, tracking, message):
    with pytest.raises(DiagnosticsError, match=message):
        job(tracking)


def test_a_missing_package_is_a_mistake_of_the_job(tmp_path, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    path = tmp_path / "job.yaml"
    path.write_text("name: a\ndata: {name: digits}\ntracking: [wandb]\n")
    with pytest.raises(DiagnosticsError, match=r"tracking\.0: wandb is not installed.*\[wandb\]"):
        load_job(path)
