"""Each tracker keeps the contract; what only one of them promises is here too."""

from __future__ import annotations

import json
import re
import struct
import time
from pathlib import Path

import pytest

from nas.testing.tracker import TrackerContract
from nas.trackers import TRACKERS, TrackedRun
from nas.trackers.mlflow import MLflow, _key
from nas.trackers.tensorboard import TensorBoard
from nas.trackers.wandb import WandB
from search_spaces.errors import EnvironmentProblem, InputError


def test_the_built_in_ones_are_registered():
    assert {"mlflow", "tensorboard", "wandb"} <= set(TRACKERS)


class TestTensorBoard(TrackerContract):
    @pytest.fixture
    def make(self):
        pytest.importorskip("tensorboard")
        return TensorBoard

    @pytest.fixture
    def read(self, tmp_path):
        def shown():
            from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

            events = EventAccumulator(
                str(tmp_path / "run" / "tensorboard"), size_guidance={"scalars": 0}
            )
            events.Reload()
            return {
                tuple(tag.split("/", 1)): {e.step: e.value for e in events.Scalars(tag)}
                for tag in events.Tags()["scalars"]
            }

        return shown

    def test_runs_stand_side_by_side_in_a_folder_that_is_given(self, tmp_path, run):
        pytest.importorskip("tensorboard")
        tracker = TensorBoard(str(tmp_path / "all"))
        tracker.begin(run, None)
        tracker.end(finished=True)
        assert list((tmp_path / "all" / "run").glob("events.out.tfevents.*"))

    def test_a_folder_that_was_cleared_is_told_everything_again(self, run):
        pytest.importorskip("tensorboard")
        first = TensorBoard()
        name = first.begin(run, None)
        # Its thread writes when it likes, also after the file is gone.
        first.end(finished=False)
        for file in (run.folder / "tensorboard").iterdir():
            file.unlink()
        assert TensorBoard().begin(run, name) != name


class TestMLflow(TrackerContract):
    @pytest.fixture
    def uri(self, tmp_path, monkeypatch):
        pytest.importorskip("mlflow")
        pytest.importorskip("sqlalchemy")
        monkeypatch.chdir(tmp_path)  # where MLflow keeps artefacts of a database
        return f"sqlite:///{tmp_path / 'mlflow.db'}"

    @pytest.fixture
    def make(self, uri):
        return lambda: MLflow(uri)

    @pytest.fixture
    def read(self, uri):
        def shown():
            from mlflow.tracking import MlflowClient

            client = MlflowClient(tracking_uri=uri)
            (experiment,) = [e for e in client.search_experiments() if e.name == "project"]
            (one,) = client.search_runs([experiment.experiment_id])
            return {
                tuple(key.split(".", 1)): {
                    m.step: m.value for m in client.get_metric_history(one.info.run_id, key)
                }
                for key in one.data.metrics
            }

        return shown

    def test_the_job_and_files_are_there(self, uri, run):
        from mlflow.tracking import MlflowClient

        (run.folder / "front.csv").write_text("id\n")
        tracker = MLflow(uri, experiment="another")
        id = tracker.begin(run, None)
        tracker.keep({"front.csv": run.folder / "front.csv", "models/a": run.folder / "front.csv"})
        tracker.end(finished=True)
        client = MlflowClient(tracking_uri=uri)
        assert client.get_run(id).data.params == {"data.name": "digits", "seed": "0"}
        assert client.get_run(id).info.status == "FINISHED"
        assert {"front.csv", "models"} == {file.path for file in client.list_artifacts(id)}
        assert client.get_experiment_by_name("another")

    def test_an_address_that_is_none_is_refused(self, run):
        pytest.importorskip("mlflow")
        with pytest.raises((InputError, EnvironmentProblem), match="MLflow at nowhere://x"):
            MLflow("nowhere://x").begin(run, None)


def test_names_are_ones_that_mlflow_takes():
    assert _key("search.latency_ms[cpu]") == "search.latency_ms.cpu"


class TestWandB(TrackerContract):
    @pytest.fixture
    def make(self, monkeypatch):
        pytest.importorskip("wandb")

        def made():
            time.sleep(1.1)  # W&B names its files by the second
            return WandB(mode="offline")

        return made

    @pytest.fixture
    def read(self, tmp_path):
        return lambda: history(tmp_path / "run")

    def test_the_job_is_the_configuration_and_nothing_of_the_machine_is_kept(self, make, run):
        tracker = make()
        tracker.begin(run, None)
        tracker.log("training", [(1, {"loss": 1.0})])
        tracker.end(finished=True)
        records = list(records_of(run.folder))
        (header,) = [r.run for r in records if r.WhichOneof("record_type") == "run"]
        config = {item.key: json.loads(item.value_json) for item in header.config.update}
        assert config["data.name"] == "digits" and config["seed"] == "0"
        kinds = {record.WhichOneof("record_type") for record in records}
        assert not kinds & {"stats", "output", "output_raw"}
        assert header.project == "project" and header.display_name == "run"
        assert not header.git.remote_url and not header.host
        assert not any((run.folder / "wandb").glob("offline-run-*/files/*"))

    def test_it_says_how_an_offline_run_is_sent(self, make, run):
        tracker = make()
        tracker.begin(run, None)
        tracker.end(finished=True)
        folder = Path(tracker.place().removeprefix("wandb sync "))
        assert list(folder.glob("*.wandb"))
        assert folder.is_relative_to(run.folder / "wandb")

    def test_without_a_login_it_says_what_to_do(self, run, monkeypatch):
        wandb = pytest.importorskip("wandb")
        monkeypatch.setattr(wandb, "login", lambda **options: False)
        with pytest.raises(EnvironmentProblem, match="wandb login"):
            WandB().begin(run, None)


def test_a_mode_that_there_is_not_is_refused():
    with pytest.raises(InputError, match="'dark' of Weights & Biases is none of: online, offline"):
        WandB(mode="dark")


def records_of(run: Path):
    """Yield every record of W&B's offline files of a run, in order.

    A file is a log as LevelDB writes it: blocks of 32 KiB, in which each piece of a record has a
    head of checksum, length and kind (whole, first, middle or last piece).
    """
    import wandb
    from wandb.proto import wandb_internal_pb2

    wandb.teardown()  # its process writes on after a run has ended, as long as this one lives
    for file in sorted((run / "wandb").glob("offline-run-*/*.wandb")):
        data, at, pieces = file.read_bytes(), 7, b""
        while at + 7 <= len(data):
            if 32768 - at % 32768 < 7:
                at += 32768 - at % 32768
                continue
            length, kind = struct.unpack("<HB", data[at + 4 : at + 7])
            pieces += data[at + 7 : at + 7 + length]
            at += 7 + length
            if kind in (1, 4):
                record = wandb_internal_pb2.Record()
                record.ParseFromString(pieces)
                pieces = b""
                yield record


def history(run: Path):
    """Return (group, name) -> step -> value of W&B's offline files."""
    found: dict[tuple[str, str], dict[int, float]] = {}
    for record in records_of(run):
        if record.WhichOneof("record_type") != "history":
            continue
        values = {
            item.key or "/".join(item.nested_key): json.loads(item.value_json)
            for item in record.history.item
        }
        for key, value in values.items():
            group, slash, name = key.partition("/")
            if slash and not re.fullmatch("step", name):
                found.setdefault((group, name), {})[values[f"{group}/step"]] = value
    return found


def test_tracked_runs_have_an_identity_that_a_move_does_not_change(tmp_path):
    from nas.record.run_folder import RunStore
    from nas.trackers.rows import tracked_run

    manifest = {"job": {"name": "a", "tracking": [{"name": "wandb"}]}, "created": "now"}
    one = tracked_run(RunStore.create(tmp_path / "one", manifest))
    (tmp_path / "one").rename(tmp_path / "two")
    two = tracked_run(RunStore.open(tmp_path / "two"))
    assert isinstance(one, TrackedRun) and one.identity == two.identity
    assert (one.label, two.label) == ("one", "two")
    # Where a run is told of is no parameter of it.
    assert one.parameters == {"name": "a"}
    other = tracked_run(RunStore.create(tmp_path / "three", {**manifest, "created": "later"}))
    assert other.identity != one.identity
