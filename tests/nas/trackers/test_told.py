"""What of a run is told to a tracker, and that nothing is told twice."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from pathlib import Path

import pytest

from nas.job.sections.tracking import TrackerConfig
from nas.record.live import LossLog
from nas.record.run_folder import RunStore
from nas.report.results import load_results
from nas.stages.progress import Progress
from nas.trackers import TRACKERS, Tracker
from nas.trackers.follow import Following
from nas.trackers.rows import flat, front_rows, search_rows, training_rows
from nas.trackers.told import Told, log_run
from search_spaces.errors import EnvironmentProblem, InputError, MissingExtraError

STORED = Path(__file__).parents[3] / "experiments" / "notebooks" / "stored" / "relaxed"


class Notebook(Tracker):
    """Keeps what it is told in a list that all of them share."""

    package = "json"
    told: list = []  # noqa: RUF012  (cleared for each test)
    fails_on = ""
    waits: threading.Event | None = None

    def __init__(self, place: str = "here") -> None:
        self.at = place

    def begin(self, run, known):
        self.told.append(("begin", known))
        return known or f"{run.label}-1"

    def log(self, group, rows):
        if self.waits is not None:
            self.waits.wait()
        if group == self.fails_on:
            raise EnvironmentProblem("the shelf is full")
        self.told.append((group, [step for step, _ in rows]))

    def keep(self, files):
        self.told.append(("keep", sorted(files)))

    def end(self, *, finished):
        self.told.append(("end", finished))

    def place(self):
        return f"shelf {self.at}"


@pytest.fixture
def notebook(monkeypatch):
    TRACKERS.names()
    monkeypatch.setitem(TRACKERS._parts, "notebook", Notebook)
    monkeypatch.setattr(Notebook, "told", [])
    return Notebook


@pytest.fixture
def finished(tmp_path):
    return Path(shutil.copytree(STORED, tmp_path / "finished"))


def test_every_evaluation_and_every_model_is_a_row():
    results = load_results(STORED)
    rows = dict(search_rows((row["number"], row["metrics"]) for row in results["evaluations"]))
    for row in results["evaluations"]:
        assert rows[row["number"]]["accuracy"] == row["metrics"]["accuracy"]
    for (rank, figures), entry in zip(front_rows(results), results["front"], strict=True):
        assert figures["test_accuracy"] == entry["test_accuracy"], rank
        assert figures["latency_ms[cpu]"] == entry["devices"]["cpu"]["latency_ms"]
    training = training_rows(results["training"])
    assert len(training) == len(results["training"])
    assert all("step" not in values and "loss" in values for _, values in training)


def test_a_job_is_flat_text():
    assert dict(flat({"a": {"b": 1}, "c": None, "d": [2]})) == {"a.b": "1", "d": "[2]"}


def test_a_finished_run_is_told_once(notebook, finished):
    assert log_run(finished, "notebook") == "shelf here"
    results = load_results(finished)
    told = dict(notebook.told)
    assert len(told["training"]) == len(results["training"])
    assert told["front"] == list(range(len(results["front"])))
    assert {"front.csv", "manifest.json", "results.json"} <= set(told["keep"])
    assert any(name.startswith("models/") for name in told["keep"])
    notebook.told.clear()
    assert log_run(finished, "notebook") == "shelf here"
    assert notebook.told == [("begin", "finished-1"), ("end", True)]
    # Another place is another record.
    notebook.told.clear()
    log_run(finished, "notebook", {"place": "there"})
    assert notebook.told[0] == ("begin", None) and len(notebook.told) > 3


def test_what_was_cut_off_goes_on(notebook, finished, monkeypatch):
    monkeypatch.setattr(notebook, "fails_on", "front")
    with pytest.raises(EnvironmentProblem, match="shelf is full"):
        log_run(finished, "notebook")
    assert notebook.told[-1] == ("end", False)
    monkeypatch.setattr(notebook, "fails_on", "")
    notebook.told.clear()
    log_run(finished, "notebook")
    groups = [group for group, _ in notebook.told]
    assert "training" not in groups and "front" in groups


def test_a_run_that_has_not_ended_is_refused_before_anything_is_begun(notebook, tmp_path):
    RunStore.create(tmp_path / "run", {"job": {"name": "a"}})
    with pytest.raises(InputError, match=r"results\.json"):
        log_run(tmp_path / "run", "notebook")
    assert notebook.told == []


def test_options_and_packages_are_checked_first(notebook, finished, monkeypatch):
    with pytest.raises(InputError, match="'notebook' cannot take its options"):
        log_run(finished, "notebook", {"colour": "red"})
    with pytest.raises(InputError, match="unknown tracker 'notebok'; did you mean 'notebook'"):
        log_run(finished, "notebok")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError):
        log_run(finished, "notebook")
    assert notebook.told == []


def test_a_damaged_record_names_its_file(notebook, finished):
    log_run(finished, "notebook")
    (record,) = (finished / "tracking").iterdir()
    record.write_text("{")
    with pytest.raises(InputError, match="delete it, and everything is told"):
        log_run(finished, "notebook")


# ------------------------------------------------------------------------ while it works


def job_manifest() -> dict:
    return {"job": {"name": "a", "data": {"name": "digits"}}, "created": "now"}


def wait_for(what, seconds=20.0):
    end = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < end
        time.sleep(0.01)


def test_losses_are_told_while_the_run_works_and_not_again_when_it_resumes(notebook, tmp_path):
    store = RunStore.create(tmp_path / "run", job_manifest())
    configs = [TrackerConfig(name="notebook")]
    quiet = Progress(stream=io.StringIO())

    def interrupted(steps, awaited):
        following = Following(configs, store, quiet, every_s=0.01).begin()
        with pytest.raises(KeyboardInterrupt), following:
            with LossLog(store.folder) as log:
                for step in steps:
                    log.write({"step": step, "loss": 2.0 / step})
            wait_for(lambda: ("training", awaited) in notebook.told)
            raise KeyboardInterrupt

    interrupted([1], [1])
    assert notebook.told[-1] == ("end", False)
    notebook.told.clear()
    interrupted([1, 2], [2])
    assert notebook.told[0] == ("begin", "run-1")


def test_a_block_that_ends_well_completes_the_run(notebook, finished):
    with Following(
        [TrackerConfig(name="notebook")],
        RunStore.open(finished),
        Progress(stream=io.StringIO()),
    ).begin():
        pass
    assert [group for group, _ in notebook.told][-2:] == ["keep", "end"]
    assert notebook.told[-1] == ("end", True)


def test_a_tracker_that_fails_is_told_of_and_does_not_stop_the_run(notebook, tmp_path, monkeypatch):
    monkeypatch.setattr(notebook, "fails_on", "training")
    store = RunStore.create(tmp_path / "run", job_manifest())
    stream = io.StringIO()
    with Following(
        [TrackerConfig(name="notebook")], store, Progress(stream=stream), every_s=0.01
    ).begin():
        with LossLog(store.folder) as log:
            log.write({"step": 1, "loss": 2.0})
        wait_for(lambda: "goes on without notebook" in stream.getvalue())
    assert "the shelf is full" in stream.getvalue()
    assert f"nas report {store.folder} --track notebook" in stream.getvalue()


def test_the_end_does_not_wait_for_a_tracker_for_ever(notebook, finished, monkeypatch):
    stuck = threading.Event()
    monkeypatch.setattr(notebook, "waits", stuck)
    stream = io.StringIO()
    following = Following(
        [TrackerConfig(name="notebook")],
        RunStore.open(finished),
        Progress(stream=stream),
        ending_s=0.05,
    ).begin()
    with following:
        pass
    assert "did not take everything" in stream.getvalue()
    stuck.set()
    following._thread.join(10)


def test_an_address_that_is_wrong_is_told_before_any_work(notebook, tmp_path, monkeypatch):
    def begin(self, run, known):
        raise EnvironmentProblem("nobody answers")

    other = type("Other", (Notebook,), {"begin": begin})
    monkeypatch.setitem(TRACKERS._parts, "other", other)
    store = RunStore.create(tmp_path / "run", job_manifest())
    configs = [TrackerConfig(name="notebook"), TrackerConfig(name="other")]
    with pytest.raises(EnvironmentProblem, match="nobody answers"):
        Following(configs, store, Progress(stream=io.StringIO())).begin()
    assert notebook.told == [("begin", None), ("end", False)]


def test_a_missing_tensorboard_is_told_before_any_work(tmp_path, monkeypatch):
    from nas.job.schema import Job
    from nas.stages import pipeline

    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    job = Job.model_validate(
        {"name": "tiny", "data": {"name": "digits"}, "supernet": {"tensorboard": True}}
    )
    assert [one.name for one in job.trackers()] == ["tensorboard"]
    with pytest.raises(MissingExtraError, match=r"edge-nas\[track\]"):
        pipeline.run(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_record_of_what_was_told_is_json(notebook, finished):
    told = Told("notebook", {}, RunStore.open(finished))
    told.begin()
    told.log("training", [(3, {"loss": 1.0}), (4, {})])
    (record,) = (finished / "tracking").iterdir()
    assert json.loads(record.read_text())["steps"] == {"training": 3}
