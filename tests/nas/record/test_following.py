"""A run seen from outside while it works."""

from __future__ import annotations

import io
import json
import os
from pathlib import Path

import pytest

from nas.job.schema import Job
from nas.record.following import SILENT_S, Losses, RunFollower
from nas.record.live import LossLog, ProgressFile
from nas.record.run_folder import RunStore
from nas.record.run_trials import RunTrials
from nas.stages.progress import Progress
from search_spaces.errors import EnvironmentProblem, InputError
from tests.nas.record.begun_run import JOB, evaluated


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore.create(tmp_path / "run ?#%", {"job": Job.model_validate(JOB).resolved()})


def test_a_run_that_has_only_begun_has_nothing_to_show(store):
    with RunFollower(store.folder) as follower:
        seen = follower.look()
    assert seen["state"] == "running" and seen["name"] == "tiny"
    assert seen["losses"] == seen["evaluations"] == []
    assert {stage["state"] for stage in seen["stages"]} == {"waiting"}
    assert "winners" not in [stage["stage"] for stage in seen["stages"]]
    assert not store.study.exists()  # looking makes no file


def test_evaluations_and_the_front_so_far_are_read_as_they_come(store):
    with RunFollower(store.folder) as follower:
        assert follower.look()["evaluated"] == 0
        ids = evaluated(store, [(0.5, 5.0), (0.7, 6.0), (0.4, 5.5), (0.9, 20.0)])
        seen = follower.look()
        assert [one["id"] for one in seen["evaluations"]] == ids
        # The third is beaten, the last over its bound.
        assert [one["fronts"] for one in seen["evaluations"]] == [["joint"], ["joint"], [], []]
        assert seen["goals"] == [
            {"metric": "accuracy", "maximise": True},
            {"metric": "weights_kib", "maximise": False},
        ]
        assert len(follower.look(most_evaluations=1)["evaluations"]) == 3


def test_reading_changes_nothing(store):
    evaluated(store, [(0.5, 5.0)])
    before = {path: path.read_bytes() for path in store.folder.iterdir() if path.suffix == ".db"}
    trials = RunTrials(store.study)
    assert len(trials.read("nas/search")) == 1 and trials.read("nas/none") == []
    import optuna

    study = optuna.load_study(study_name="nas/search", storage=trials.storage())
    with pytest.raises(optuna.exceptions.StorageInternalError):
        study.set_user_attr("a", 1)
    trials.close()
    assert {path: path.read_bytes() for path in before} == before


def test_a_study_that_is_damaged_is_told(store):
    store.study.write_bytes(b"no database" * 100)
    with (
        RunFollower(store.folder) as follower,
        pytest.raises(EnvironmentProblem, match=r"study\.db"),
    ):
        follower.look()


def test_a_study_in_a_folder_that_cannot_be_written_is_read(store, monkeypatch):
    import nas.record.run_trials as module

    evaluated(store, [(0.5, 5.0)])
    opened = module._opened

    def refuses(address):
        if "mode=rw" in address:
            raise module.sqlite3.OperationalError("attempt to write a readonly database")
        return opened(address)

    monkeypatch.setattr(module, "_opened", refuses)
    assert len(RunTrials(store.study).read("nas/search")) == 1


def test_losses_are_read_from_where_the_last_reading_ended(tmp_path):
    losses = Losses(tmp_path / "training.jsonl")
    assert losses.read() == {}
    with LossLog(tmp_path) as log:
        log.write({"step": 1, "loss": 2.0})
        log.write({"step": 2, "loss": float("nan")})
    assert losses.read() == {1: {"step": 1, "loss": 2.0}, 2: {"step": 2, "loss": None}}
    with (tmp_path / "training.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert len(losses.read()) == 2
    # A resumed run takes steps again; the torn line is no record.
    with LossLog(tmp_path) as log:
        log.write({"step": 2, "loss": 1.0})
    assert losses.read()[2]["loss"] == 1.0 and set(losses.read()) == {1, 2}
    (tmp_path / "training.jsonl").write_text('{"step": 1, "loss": 9.0}\n')
    assert losses.read() == {1: {"step": 1, "loss": 9.0}}


def test_without_a_folder_no_loss_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with LossLog(None) as log:
        log.write({"step": 1, "loss": 0.5})
    assert list(tmp_path.iterdir()) == []


def test_progress_is_kept_beside_the_run(store):
    progress = Progress(stream=io.StringIO())
    progress.listener = ProgressFile(store.folder)
    progress.log("warning: few images")
    with RunFollower(store.folder) as follower:
        with progress.stage("search", 100, unit="subnets") as bar:
            bar.advance(40, "accuracy 0.5")  # of an earlier process
            progress.listener._written = float("-inf")
            bar.advance(20, "accuracy 0.6")
            seen = follower.look()
        (activity,) = seen["activities"]
        assert activity["done"] == 60 and activity["total"] == 100 and activity["left_s"] < 60
        assert activity["note"] == "accuracy 0.6" and activity["name"] == "search"
        assert [one["text"] for one in seen["messages"]] == ["warning: few images"]
        assert follower.look()["activities"] == []


def test_stages_have_their_times(store):
    with store.timed("supernet"):
        pass
    store.event("stage_begin", stage="search")
    with RunFollower(store.folder) as follower:
        states = {one["stage"]: one["state"] for one in follower.look()["stages"]}
        assert (states["supernet"], states["search"], states["test"]) == (
            "done",
            "running",
            "waiting",
        )
        follower._now = lambda: os.stat(store.manifest_path).st_mtime + SILENT_S + 5
        seen = follower.look()
    assert seen["state"] == "stopped"
    assert {one["stage"]: one["state"] for one in seen["stages"]}["search"] == "stopped"


def test_who_holds_the_lock_works_and_a_killed_run_is_told_at_once(store):
    with RunFollower(store.folder) as follower:
        with store.locked():
            follower._now = lambda: os.stat(store.manifest_path).st_mtime + SILENT_S + 5
            assert follower.state() == "running"
            assert store.is_held()
        follower._now = lambda: os.stat(store.manifest_path).st_mtime
        assert follower.state() == "stopped"
        # Locks of another machine are not seen here: its signs of life count.
        (store.folder / "spending").mkdir()
        (store.folder / "spending" / "1.json").write_text('{"host": "elsewhere"}')
        assert follower.state() == "running"


@pytest.mark.parametrize(
    ("events", "state"),
    [
        (["stage_begin", "finished"], "finished"),
        (["stage_begin", "infeasible"], "infeasible"),
        (["infeasible", "resumed"], "running"),
        (["finished", "resumed", "finished"], "finished"),
    ],
)
def test_the_last_event_says_how_a_run_stands(store, events, state):
    for event in events:
        store.event(event)
    with RunFollower(store.folder) as follower:
        assert follower.state() == state


def test_what_is_no_run_or_is_damaged_is_told(store, tmp_path):
    with pytest.raises(InputError, match="no run folder"):
        RunFollower(tmp_path)
    (store.folder / "progress.json").write_text("{")
    with RunFollower(store.folder) as follower, pytest.raises(InputError, match=r"progress\.json"):
        follower.look()


def test_what_is_seen_is_json(store):
    evaluated(store, [(0.5, 5.0)])
    with RunFollower(Path(store.folder)) as follower:
        json.dumps(follower.look(), allow_nan=False)
