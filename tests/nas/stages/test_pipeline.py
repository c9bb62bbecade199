"""The whole job on a tiny space: replay, kills, infeasible bounds, honest fronts."""

from __future__ import annotations

import csv
import importlib
import json
import multiprocessing
import os
import signal
import traceback
from pathlib import Path

import pytest

from nas.job.check import load_job

pytestmark = [pytest.mark.forks, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

JOB = """
name: tiny
seed: 3
threads: 1
data: {name: digits, validation: 0.2, calibration: 128}
space:
  name: mobilenet
  preset: 8x8
  stages: [{channels: 8, stride: 1, depths: [1, 2]}, {channels: 12, stride: 2, depths: [1, 2]}]
  stem_channels: 8
  head_channels: 16
  kernels: [3]
  expands: [2, 3]
  weight_bits: [2, 8]
  activation_bits: [4, 8]
supernet: {epochs: 2, batch_size: 128, warmup_epochs: 0.5, checkpoint_every_s: 0.001}
# Nothing is rejected, however busy the machine: what was is measured again, so a replay differs.
protocol:
  {processes: 2, runs: 5, retries: 0, warmup_tolerance: 10, max_interval: null, max_spread: null,
   max_drift: null, max_starvation: null, max_slowdown: null, max_outlier_share: null,
   max_iqr: null}
search:
  evaluations: 14
  initial: 8
  batch: 3
  latency_samples: 4
  front_size: 3
  options: {population: 60, generations: 6}
"""


IMPORTED_BY_A_JOB = (
    "nas.stages.pipeline", "nas.models.parity", "torch._dynamo", "PIL.Image", "alembic.command",
    "filelock", "moocore", "onnx", "onnxruntime", "optuna.storages._rdb.storage",
    "sklearn.datasets", "sqlalchemy.dialects.sqlite", "supernet.own_model.wrap",
    "supernet.onnx.export", "supernet.training.train",
)  # fmt: skip
"""Imported once, before the forks: else half of what a child does is importing."""


def write_job(folder: Path, text: str = JOB) -> Path:
    path = folder / "job.yaml"
    path.write_text(text)
    return path


def in_child(target, *arguments) -> int:
    """Run ``target`` in a forked process; return its exit code, negative for a signal."""

    def guarded():
        try:
            target(*arguments)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)

    # Forked, so that torch is not imported again; the parent runs no parallel region.
    process = multiprocessing.get_context("fork").Process(target=guarded)
    process.start()
    process.join()
    return process.exitcode


def run_job(job: Path, folder: Path, measurements: Path | None = None) -> None:
    from nas.stages import pipeline

    pipeline.run(load_job(job), folder, measurements=measurements)


def run_with_closed_test_set(job: Path, folder: Path) -> None:
    """Run a job in which no pixel of the test set can be read before it is handed out."""
    from nas.data.splits import DataSplits, Images, Subset
    from nas.stages.opened_job import RunContext

    class Closed:
        def __init__(self, images: Images, splits: DataSplits) -> None:
            self.images, self.splits = images, splits
            self.fingerprint = images.fingerprint

        def at(self, indices, crops=None):
            assert self.splits._test_read is not None, "the test set was read before its time"
            return self.images.at(indices, crops)

    of = RunContext.of

    def closed(*arguments, **keywords) -> RunContext:
        context = of(*arguments, **keywords)
        splits, part = context.splits, context.splits._test
        splits._test = Subset(Closed(part.images, splits), part.labels, part.indices)
        return context

    RunContext.of = closed
    run_job(job, folder)


def resume_job(folder: Path) -> None:
    from nas.stages import pipeline

    pipeline.resume(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A finished run whose latencies were measured here, its test set closed until the end."""
    for name in IMPORTED_BY_A_JOB:
        importlib.import_module(name)
    folder = tmp_path_factory.mktemp("finished")
    assert in_child(run_with_closed_test_set, write_job(folder), folder / "run") == 0
    return folder / "run"


def front_of(run: Path) -> list[dict[str, str]]:
    with open(run / "front.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_what_it_promises(finished):
    front = front_of(finished)
    results = json.loads((finished / "results.json").read_text())
    assert front
    for row in front:
        assert row["latency_source"] == "measured"
        assert row["feasible"] == "true"
        assert float(row["latency_low_ms"]) <= float(row["latency_ms"])
        assert float(row["latency_ms"]) <= float(row["latency_high_ms"])
        assert 0 <= float(row["accuracy"]) <= 1
        model = finished / row["model"]
        assert model.stat().st_size / 1024 == pytest.approx(float(row["size_kib"]))
        assert model.with_suffix(".json").is_file()
        assert model.with_suffix(".md").is_file()
    assert (finished / "report.html").stat().st_size > 10_000
    assert len(results["evaluations"]) == 14
    assert not (finished / "work").exists()
    manifest = json.loads((finished / "manifest.json").read_text())
    splits = manifest["data"]["splits"]
    assert set(splits) == {"train", "calibration", "validation", "test"}


def test_the_test_set_is_read_once_and_for_the_front(finished):
    events = [json.loads(line) for line in (finished / "events.jsonl").read_text().splitlines()]
    reads = [i for i, event in enumerate(events) if event["event"] == "test_read"]
    verified = next(
        i
        for i, event in enumerate(events)
        if event["event"] == "stage_end" and event["stage"] == "verification"
    )
    assert len(reads) == 1
    assert reads[0] > verified


def test_no_reported_point_is_dominated(finished):
    results = json.loads((finished / "results.json").read_text())
    points = [
        (entry["validation_accuracy"], entry["devices"]["cpu"]["latency_ms"])
        for entry in results["front"]
    ]
    for accuracy, latency in points:
        assert not any(a >= accuracy and b <= latency and (a, b) != (accuracy, latency)
                       for a, b in points)  # fmt: skip


def test_the_exported_files_give_the_reported_accuracy(finished):
    from nas.models.parity import evaluate_onnx
    from nas.tasks import TASKS

    job = load_job(write_job(finished.parent))
    splits = TASKS.get("image_classification")().load(job.data, job.seed)
    batches = list(splits.evaluation_batches(splits.test("checking a report")))
    for row in front_of(finished):
        right = sum(
            int((evaluate_onnx(finished / row["model"], [x]).argmax(1) == y.numpy()).sum())
            for x, y in batches
        )
        assert right / sum(len(y) for _, y in batches) == pytest.approx(float(row["accuracy"]))


@pytest.fixture(scope="module")
def replayed(finished, tmp_path_factory) -> Path:
    """The same job again with the measurements of the finished run."""
    folder = tmp_path_factory.mktemp("replayed")
    assert in_child(run_job, write_job(folder), folder / "run", finished) == 0
    return folder / "run"


def test_one_seed_and_the_same_measurements_give_the_same_front(finished, replayed):
    def without_times(run):
        return (run / "front.csv").read_text()

    assert without_times(finished) == without_times(replayed)
    checkpoints = [
        (run / "supernet" / "checkpoint.safetensors").read_bytes() for run in (finished, replayed)
    ]
    assert checkpoints[0] == checkpoints[1]


def kill_after(count: int, run) -> None:
    """Run, and die by SIGKILL at the ``count``-th durable step."""
    from nas.record.evaluations import StudyRecord
    from nas.record.run_folder import RunStore

    left = [count]

    def counted(function):
        def call(*arguments, **keywords):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            result = function(*arguments, **keywords)
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return result

        return call

    os.fsync = counted(os.fsync)
    os.replace = counted(os.replace)
    StudyRecord.record = counted(StudyRecord.record)
    RunStore.event = counted(RunStore.event)
    run()


@pytest.mark.parametrize("gap", [7, 23, 61])
def test_killed_again_and_again_the_front_is_the_same(finished, replayed, tmp_path, gap):
    job, run = write_job(tmp_path), tmp_path / "run"
    kills = 0
    code = in_child(kill_after, gap, lambda: run_job(job, run, finished))
    while code != 0:
        assert code == -signal.SIGKILL
        kills += 1
        # Growing gaps, or a run that dies in its first steps each time would never end.
        step = gap + 11 * kills
        if (run / "manifest.json").exists():
            code = in_child(kill_after, step, lambda: resume_job(run))
        else:
            code = in_child(kill_after, step, lambda: run_job(job, run, finished))
    assert kills >= 3
    assert (run / "front.csv").read_text() == (replayed / "front.csv").read_text()
    results = json.loads((run / "results.json").read_text())
    ids = [evaluation["id"] for evaluation in results["evaluations"]]
    assert len(ids) == len(set(ids)) == 14
    assert not list(run.rglob("*.tmp"))


def test_bounds_that_nothing_meets_end_with_the_closest_architecture(finished, tmp_path):
    from nas.stages import pipeline
    from search_spaces.errors import InfeasibleError

    text = JOB + "  constraints: {weights_kib: {max: 0.01}}\n"
    with pytest.raises(InfeasibleError) as caught:
        pipeline.run(load_job(write_job(tmp_path, text)), tmp_path / "run", measurements=finished)
    assert "closest" in str(caught.value)
    assert "0.01 KiB of weights" in str(caught.value)
    assert not (tmp_path / "run").exists()


def test_energy_that_nothing_measures_is_told_before_training(tmp_path, monkeypatch):
    from devices.measuring import energy
    from nas.stages import pipeline
    from search_spaces.errors import EnvironmentProblem

    monkeypatch.setattr(energy, "make_meter", lambda source: energy.NoMeter())
    text = JOB + "  objectives: [accuracy, energy_mj]\n"
    with pytest.raises(EnvironmentProblem, match="no energy counter"):
        pipeline.run(load_job(write_job(tmp_path, text)), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_run_that_ends_infeasible_records_it(finished, tmp_path):
    from nas.record.run_folder import RunStore
    from nas.stages import pipeline
    from search_spaces.errors import InfeasibleError

    text = JOB + "  constraints: {latency_ms: {cpu: {max: 1.0e-6}}}\n"
    folder = tmp_path / "run"
    with pytest.raises(InfeasibleError, match="closest"):
        pipeline.run(load_job(write_job(tmp_path, text)), folder, measurements=finished)
    (event,) = [e for e in RunStore.open(folder).events() if e["event"] == "infeasible"]
    assert "closest" in event["message"]


def test_a_second_run_in_the_same_folder_is_refused(finished):
    from nas.stages import pipeline
    from search_spaces.errors import InputError

    job = load_job(write_job(finished.parent))
    with pytest.raises(InputError, match="nas resume"):
        pipeline.run(job, finished)


def test_measurements_to_replay_that_moved_are_named(tmp_path):
    from nas.stages import pipeline
    from search_spaces.errors import InputError

    gone = tmp_path / "first"
    gone.mkdir()
    (gone / "measurements.db").touch()
    pipeline.create_run(load_job(write_job(tmp_path)), tmp_path / "run", measurements=gone)
    (gone / "measurements.db").unlink()
    with pytest.raises(InputError, match=r"no measurements to replay at .*first.*put them back"):
        pipeline.resume(tmp_path / "run")


def test_weights_of_ones_own_are_the_start(finished, tmp_path):
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from nas.stages.progress import Progress
    from nas.stages.training import train_supernet

    own = finished / "supernet" / "checkpoint.safetensors"
    text = JOB.replace("supernet: {", f"supernet: {{init_from: {own}, ")
    job = load_job(write_job(tmp_path, text))
    store = RunStore.create(tmp_path / "run", {"job": job.resolved()})
    _, training = train_supernet(RunContext.of(job, threads=1), store, Progress())
    first = training[0]["loss"]
    fresh = json.loads((finished / "results.json").read_text())["training"][0]["loss"]
    assert first < fresh


def test_training_on_focuses_on_the_front_of_the_older_run(finished, tmp_path):
    from nas.record.run_folder import RunStore
    from nas.stages.opened_job import RunContext
    from nas.stages.progress import Progress
    from nas.stages.training import train_supernet
    from search_spaces.errors import InputError

    changed = f"supernet: {{focus: {{run: {finished}, share: 1.0}}, "
    job = load_job(write_job(tmp_path, JOB.replace("supernet: {", changed)))
    context = RunContext.of(job, threads=1)
    store = RunStore.create(tmp_path / "run", {"job": job.resolved()})
    trained, _ = train_supernet(context, store, Progress())
    front = json.loads((finished / "results.json").read_text())["front"]
    assert store.manifest()["focus"] == [entry["arch"] for entry in front]
    # A resumed run draws near what was recorded, whatever has become of the older run.
    store.update_manifest(focus=[str(context.space.smallest())])
    store.checkpoint.unlink()
    other, _ = train_supernet(context, store, Progress())
    a, b = trained.state_dict(), other.state_dict()
    assert any(not a[name].equal(b[name]) for name in a)

    empty = RunStore.create(tmp_path / "older", {"job": job.resolved()})
    changed = changed.replace(str(finished), str(empty.folder))
    unfinished = load_job(write_job(tmp_path, JOB.replace("supernet: {", changed)))
    fresh = RunStore.create(tmp_path / "fresh", {"job": unfinished.resolved()})
    with pytest.raises(InputError, match=r"has no front yet; finish it with 'nas resume"):
        train_supernet(RunContext.of(unfinished, threads=1), fresh, Progress())
