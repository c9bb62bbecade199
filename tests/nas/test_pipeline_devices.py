"""Several devices, early stopping, worker processes, and an older run to go on from."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from nas.job.check import load_job
from nas.record.evaluations import StudyRecord
from nas.record.run_folder import RunStore
from nas.stages import pipeline
from nas.stages.progress import Progress
from search_spaces.errors import InputError

pytestmark = [pytest.mark.long, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

JOB = """
name: two
seed: 5
threads: 1
{top}
data: {{name: digits, validation: 0.2, calibration: 128}}
space:
  name: mobilenet
  preset: 8x8
  stages: [{{channels: 8, stride: 1, depths: [1, 2]}}, {{channels: 12, stride: 2, depths: [1, 2]}}]
  stem_channels: 8
  head_channels: 16
  kernels: [3]
  expands: [2, 3]
  weight_bits: [2, 8]
  activation_bits: [4, 8]
supernet: {{epochs: 2, batch_size: 128, warmup_epochs: 0.5}}
devices:
  - {{name: one, batch: 1}}
  - {{name: many, batch: 16}}
# Nothing is rejected, however busy the machine: what was is measured again, so a replay differs.
protocol:
  {{processes: 2, runs: 5, retries: 0, warmup_tolerance: 10, max_interval: null, max_spread: null,
   max_drift: null, max_starvation: null, max_slowdown: null, max_outlier_share: null,
   max_iqr: null}}
search:
  evaluations: {evaluations}
  initial: 8
  batch: 3
  latency_samples: 4
  front_size: 2
  options: {{population: 60, generations: 6}}
{search}
"""


def write_job(folder: Path, *, top: str = "", search: str = "", evaluations: int = 14) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "job.yaml"
    path.write_text(JOB.format(top=top, search=search, evaluations=evaluations))
    return path


def results_of(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run on two devices with early stopping and all kinds of objectives."""
    folder = tmp_path_factory.mktemp("devices")
    job = write_job(
        folder,
        search="  early_stopping: {images: 60, risk: 0.1}\n  constraints: {size_kib: {max: 500.0}}",
    )
    pipeline.run(load_job(job), folder / "run")
    return folder / "run"


def test_every_architecture_of_a_front_has_a_row_for_each_device(finished):
    with open(finished / "front.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    ids = {row["id"] for row in rows}
    assert {(row["id"], row["device"]) for row in rows} == {
        (i, device) for i in ids for device in ("one", "many")
    }
    assert {name for row in rows for name in row["fronts"].split()} == {"joint", "one", "many"}


def test_each_front_holds_what_no_other_member_dominates_on_its_device(finished):
    results = results_of(finished)
    assert [f["name"] for f in results["fronts"]] == ["joint", "one", "many"]
    assert results["fronts"][1]["goals"] == ["accuracy", "latency_ms[one]"]
    for device in ("one", "many"):
        members = [
            (-e["validation_accuracy"], e["devices"][device]["latency_ms"])
            for e in results["front"]
            if device in e["fronts"]
        ]
        assert members
        for mine in members:
            assert not any(
                other != mine and other[0] <= mine[0] and other[1] <= mine[1] for other in members
            )


def test_each_front_has_its_own_knee(finished):
    results = results_of(finished)
    knees = [name for entry in results["front"] for name in entry["knees"]]
    assert sorted(knees) == ["joint", "many", "one"]


def test_what_was_given_up_on_is_marked_and_on_no_front(finished):
    job = load_job(finished.parent / "job.yaml")
    context = RunStore.open(finished)
    manifest = context.manifest()
    assert manifest["job"]["search"]["early_stopping"] == {"images": 60, "risk": 0.1}
    from nas.stages.opened_job import RunContext

    space = RunContext.of(job, threads=1).space
    with StudyRecord(finished / "study.db", space=space, goals=job.objectives()) as study:
        evaluations = study.evaluations("search")
    stopped = [e for e in evaluations if e.attributes["early_stopped"]]
    assert len(evaluations) == 14
    assert {e.attributes["images"] for e in stopped} <= {60}
    front = {entry["id"] for entry in results_of(finished)["front"]}
    for evaluation in stopped:
        assert evaluation.metrics["accuracy"] <= evaluation.attributes["accuracy_upper"]
        assert evaluation.arch.id not in front


def test_the_size_of_the_file_is_predicted_before_and_counted_after(finished):
    results = results_of(finished)
    for entry in results["front"]:
        assert entry["metrics"]["size_kib"] == pytest.approx(entry["size_kib"])
    for evaluation in results["evaluations"]:
        assert evaluation["metrics"]["size_kib"] == pytest.approx(
            evaluation["metrics"]["weights_kib"], abs=60
        )


def test_worker_processes_find_the_same_front(finished, tmp_path):
    job = write_job(
        tmp_path,
        top="executor: processes\nworkers: 2",
        search="  constraints: {size_kib: {max: 500.0}}",
        evaluations=8,
    )
    alone = write_job(tmp_path / "alone", search="  constraints: {size_kib: {max: 500.0}}",
                      evaluations=8)  # fmt: skip
    pipeline.run(load_job(alone), tmp_path / "alone" / "run")
    measured = tmp_path / "alone" / "run"
    pipeline.run(load_job(job), tmp_path / "run", measurements=measured)
    first, second = results_of(tmp_path / "alone" / "run"), results_of(tmp_path / "run")
    accuracies = [
        sorted((e["id"], e["metrics"]["accuracy"]) for e in r["evaluations"])
        for r in (first, second)
    ]
    assert accuracies[0] == accuracies[1]
    assert [e["id"] for e in first["front"]] == [e["id"] for e in second["front"]]


def test_a_changed_budget_costs_only_the_search(finished, tmp_path):
    latencies = [e["devices"]["one"]["latency_ms"] for e in results_of(finished)["front"]]
    budget = float(max(latencies)) * 2
    job = write_job(
        tmp_path,
        search=f"  warm_start: {finished}\n"
        f"  constraints: {{latency_ms: {{one: {{max: {budget}}}}}}}",
        evaluations=9,
    )
    pipeline.run(load_job(job), tmp_path / "run")
    results = results_of(tmp_path / "run")
    older = results_of(finished)
    # The supernet is the older one, so its evaluations count and are not made again.
    old_store, new_store = RunStore.open(finished), RunStore.open(tmp_path / "run")
    assert new_store.checkpoint.read_bytes() == old_store.checkpoint.read_bytes()
    mine = {e["id"]: e for e in results["evaluations"]}
    taken = [e for e in mine.values() if e["round"] == -1]
    assert taken
    accuracy = {e["id"]: e["metrics"]["accuracy"] for e in older["evaluations"]}
    assert all(accuracy[e["id"]] == e["metrics"]["accuracy"] for e in taken)
    assert len(mine) == len(taken) + 9


def test_only_runs_of_one_space_can_be_joined(finished, tmp_path):
    path = write_job(tmp_path, search=f"  warm_start: {finished}")
    path.write_text(path.read_text().replace("expands: [2, 3]", "expands: [2, 4]"))
    with pytest.raises(InputError, match="only runs of one space"):
        pipeline.run(load_job(path), tmp_path / "run")


def test_two_runs_on_one_study_evaluate_nothing_twice(finished, tmp_path):
    shared = f"study: sqlite:///{tmp_path / 'shared.db'}"
    bounds = "  constraints: {size_kib: {max: 500.0}}"
    measured = None
    for name in ("first", "second"):
        job = write_job(tmp_path / name, top=shared, search=bounds, evaluations=8)
        pipeline.run(load_job(job), tmp_path / name / "run", measurements=measured)
        measured = tmp_path / name / "run"
    first, second = (results_of(tmp_path / name / "run") for name in ("first", "second"))
    # The same job twice asks for the same architectures, and the second finds them all there.
    assert [e["number"] for e in first["evaluations"]] == list(range(8))
    assert first["evaluations"] == second["evaluations"]


def test_a_predictor_that_would_learn_too_little_is_refused_before_training(tmp_path):
    job = load_job(write_job(tmp_path, top="latency: {predictor: help, known_devices: null}"))
    with pytest.raises(InputError, match=r"latency\.predictor: help: HELP needs at least one"):
        pipeline.run(job, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_test_set_read_in_two_goes_is_one_reading(tmp_path):
    job = load_job(write_job(tmp_path))
    store = RunStore(tmp_path)
    for _ in range(2):
        pipeline.Pipeline(job, store, Progress())._test_read("final front")
    assert [event["event"] for event in store.events()] == ["test_read", "test_resumed"]
