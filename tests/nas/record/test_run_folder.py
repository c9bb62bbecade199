"""The run folder: begun once, resumed safely, readable after a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.job.check import load_job
from nas.job.schema import Job
from nas.record.provenance import command_of
from nas.record.run_folder import RunStore
from search_spaces.errors import EnvironmentProblem, InputError

MANIFEST = {"name": "job", "seed": 1}


@pytest.fixture
def store(tmp_path) -> RunStore:
    return RunStore.create(tmp_path / "run", MANIFEST)


def test_a_run_is_created_and_opened(tmp_path):
    folder = tmp_path / "deep" / "run"
    assert RunStore.create(folder, MANIFEST).manifest() == MANIFEST
    assert RunStore.open(folder).manifest() == MANIFEST
    assert RunStore.open(str(folder)).folder == folder


def test_what_a_run_decides_of_its_job_is_that_of_who_makes_it_again(tmp_path):
    values = {"name": "job", "data": {"name": "digits"}, "space": {"preset": "8x8"}}
    job = Job.model_validate(values)
    store = RunStore.create(tmp_path / "run", {"job": job.resolved()})
    store.record_sections(job.with_space({"widths": [0.5]}), "space")
    assert store.job().space.overrides["widths"] == [0.5]
    again = load_job(store.folder / "job.yaml")
    assert again.space == store.job().space and again.data.name == "digits"
    assert store.first("begun", 1) == 1 and store.first("begun", 2) == 1


def test_a_run_is_not_begun_twice(store):
    with pytest.raises(InputError, match="holds a run already; go on with it by 'nas resume"):
        RunStore.create(store.folder, {"name": "other"})
    assert store.manifest() == MANIFEST


def test_a_folder_of_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        RunStore.create(tmp_path, MANIFEST)
    assert [entry.name for entry in tmp_path.iterdir()] == ["thesis.tex"]
    with pytest.raises(InputError, match="is a file"):
        RunStore.create(tmp_path / "thesis.tex", MANIFEST)


def test_temporary_files_of_a_folder_that_is_no_run_are_left_alone(tmp_path):
    for name in ("thesis.tex", "figures/.plot.tmp", ".notes.tmp"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("x")
    with pytest.raises(InputError, match="is not empty"):
        RunStore.create(tmp_path, MANIFEST)
    assert (tmp_path / "figures" / ".plot.tmp").exists() and (tmp_path / ".notes.tmp").exists()


def test_an_empty_folder_and_one_that_is_only_locked_are_taken(tmp_path):
    (tmp_path / ".lock").touch()
    assert RunStore.create(tmp_path, MANIFEST).manifest() == MANIFEST


@pytest.mark.parametrize("name", ["missing", "empty"])
def test_a_folder_without_a_manifest_is_no_run(tmp_path, name):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"is no run folder: it has no manifest\.json"):
        RunStore.open(tmp_path / name)


def test_a_damaged_manifest_is_named(store):
    store.manifest_path.write_text('{"name": "jo')
    with pytest.raises(InputError, match=r"manifest\.json is damaged"):
        RunStore.open(store.folder).manifest()


def test_entries_of_the_manifest_are_replaced_and_added(store):
    store.update_manifest(seed=2, data={"train": 10})
    assert store.manifest() == {"name": "job", "seed": 2, "data": {"train": 10}}


def test_events_come_back_in_order_with_their_values(store):
    assert store.events() == []
    store.event("first", value=0.5, text="ünï\ncode\u2028")
    store.event("second", items=[1, 2])
    first, second = store.events()
    assert (first["event"], first["value"], first["text"]) == ("first", 0.5, "ünï\ncode\u2028")
    assert (second["event"], second["items"]) == ("second", [1, 2])
    assert first["time"] <= second["time"]
    assert len(store.events_path.read_text().splitlines()) == 2


@settings(max_examples=15)
@given(cut=st.integers(1, 60))
def test_a_torn_line_costs_that_line_only(tmp_path_factory, cut):
    store = RunStore.create(tmp_path_factory.mktemp("run") / "run", MANIFEST)
    store.event("whole", value=1)
    store.event("torn", value=2)
    data = store.events_path.read_bytes()
    last = data.rstrip(b"\n").rfind(b"\n") + 1
    store.events_path.write_bytes(data[: max(last + 1, len(data) - 1 - cut)])
    store.event("next", value=3)
    store.event("after", value=4)
    assert [e["event"] for e in store.events()] == ["whole", "next", "after"]


def test_a_line_that_only_lacks_its_end_is_kept(store):
    store.event("whole")
    store.events_path.write_bytes(store.events_path.read_bytes().rstrip(b"\n"))
    store.event("next")
    assert [e["event"] for e in store.events()] == ["whole", "next"]


def test_times_of_a_stage_add_up_over_resumed_runs(store):
    store.event("stage_end", stage="train", seconds=1.5, cpu_seconds=1.25)
    store.event("stage_end", stage="search", seconds=2.0, cpu_seconds=1.0)
    store.event("stage_begin", stage="train")
    store.event("stage_end", stage="train", seconds=0.25, cpu_seconds=0.5)
    # Recorded before processor seconds were, and resumed since.
    store.event("stage_end", stage="test", seconds=1.0)
    store.event("stage_end", stage="test", seconds=1.0, cpu_seconds=1.0)
    expected = [
        {"stage": "train", "seconds": 1.75, "cpu_seconds": 1.75},
        {"stage": "search", "seconds": 2.0, "cpu_seconds": 1.0},
        {"stage": "test", "seconds": 2.0, "cpu_seconds": None},
    ]
    assert store.timing() == RunStore.open(store.folder).timing() == expected


def test_a_finished_stage_is_timed_and_one_cut_off_is_not(store):
    with store.timed("good"):
        pass
    with pytest.raises(RuntimeError), store.timed("bad"):
        raise RuntimeError
    assert [e["event"] for e in store.events()] == ["stage_begin", "stage_end", "stage_begin"]
    (only,) = store.timing()
    assert only["stage"] == "good" and only["seconds"] >= 0 and only["cpu_seconds"] >= 0


HOLD = """
import sys, pathlib
from nas.record.run_folder import RunStore
with RunStore(pathlib.Path(sys.argv[1])).locked():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_run_belongs_to_one_process_at_a_time(store):
    other = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert other.stdout.readline() == "held\n"
        with (
            pytest.raises(EnvironmentProblem, match="another process is working on"),
            store.locked(),
        ):
            pytest.fail("the lock was given twice")
    finally:
        other.communicate(timeout=60)
    assert other.returncode == 0
    with store.locked():
        pass


def test_a_lock_is_let_go_when_the_run_fails(store):
    for _ in range(2):
        with pytest.raises(RuntimeError), store.locked():
            raise RuntimeError
    assert json.loads(store.manifest_path.read_text()) == MANIFEST


def test_a_job_that_this_version_does_not_understand_is_named(store):
    sound = {"name": "x", "data": {"name": "digits"}, "space": {"name": "mobilenet"}}
    broken = {**sound, "search": {"batch": "many"}}
    store.update_manifest(job=broken, versions={"edge-nas": "9"})
    with pytest.raises(InputError, match=r"\.json: job\.search\.batch: .* began the run \(9\)"):
        store.job()
    store.update_manifest(job=None)
    with pytest.raises(InputError, match=r"manifest\.json: job: "):
        store.job()
    store.update_manifest(job=sound)
    assert store.job().name == "x"


def test_the_job_of_a_run_is_a_job_file_that_can_be_run_again(tmp_path):
    (tmp_path / "job.yaml").write_text(
        "name: again\ndata: {name: digits}\nsupernet: {epochs: 3}\n"
        "search: {evaluations: 9, initial: 4, front_size: 2}\n"
    )
    job = load_job(tmp_path / "job.yaml")
    store = RunStore.create(tmp_path / "run", {"job": job.resolved()})
    assert load_job(store.folder / "job.yaml") == job


@pytest.mark.parametrize(
    ("program", "arguments", "said"),
    [
        ("/usr/bin/nas", ["run", "my job.yaml"], "nas run 'my job.yaml'"),
        ("/x/nas/__main__.py", ["run", "j.yaml"], "nas run j.yaml"),
        ("/x/nas/cli/main.py", ["run", "j.yaml"], "nas run j.yaml"),
        ("/x/nas/stages/torchrun.py", ["j.yaml"], "torchrun -m nas.stages.torchrun j.yaml"),
        ("script.py", ["--fast"], "nas run runs/a/job.yaml --output NEW_FOLDER"),
        ("", [], "nas run runs/a/job.yaml --output NEW_FOLDER"),
        ("-c", [], "nas run runs/a/job.yaml --output NEW_FOLDER"),
    ],
)
def test_the_command_to_make_a_run_again(monkeypatch, program, arguments, said):
    monkeypatch.setattr(sys, "argv", [program, *arguments])
    assert command_of(Path("runs/a")) == said


@pytest.mark.parametrize(("said", "kept"), [({}, 0.35), ({"scale": 0.9}, 0.9)])
def test_images_are_varied_as_when_the_run_began_or_as_its_job_says(store, said, kept):
    job = {"name": "x", "data": {"name": "digits", "augment": said}, "space": {"name": "mobilenet"}}
    store.update_manifest(job=job)
    assert store.job().data.augment.scale == said.get("scale")
    store.update_manifest(data={"augmentation": {"scale": 0.35, "crop_padding": 2, "flip": True}})
    augment = store.job().data.augment
    assert (augment.scale, augment.crop_padding, augment.flip) == (kept, 2, True)
    assert augment.noise is None


@pytest.mark.parametrize(("said", "kept"), [({}, False), ({"stratify": True}, True)])
def test_groups_are_divided_as_when_the_run_began(store, said, kept):
    store.update_manifest(job={"name": "x", "data": {"name": "digits", **said}})
    assert store.job().data.stratify is kept


def test_images_varied_as_now_are_left_to_the_data_set(store):
    store.update_manifest(
        job={"name": "x", "data": {"name": "digits"}, "space": {"name": "mobilenet"}},
        data={"augmentation": {"scale": 1.0, "crop_padding": 1, "flip": False, "erase": 0.0}},
    )
    # So a later job that says as little trains the same supernet.
    assert store.job().data.augment.crop_padding is None
