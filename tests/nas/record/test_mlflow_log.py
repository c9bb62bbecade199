"""What a finished run becomes in MLflow."""

from __future__ import annotations

from pathlib import Path

import pytest

from nas.record.mlflow_log import _flat, _key, _metrics, log_run
from nas.report.results import load_results
from search_spaces.errors import InputError, MissingExtraError

STORED = Path(__file__).parents[3] / "experiments" / "notebooks" / "stored" / "relaxed"


def test_every_evaluation_and_every_model_is_a_metric_with_its_step():
    results = load_results(STORED)
    found = {(key, step): value for key, value, step in _metrics(results)}
    for row in results["evaluations"]:
        assert found["search.accuracy", row["number"]] == row["metrics"]["accuracy"]
    for rank, entry in enumerate(results["front"]):
        assert found["front.test_accuracy", rank] == entry["test_accuracy"]
        assert found["front.latency_ms.cpu", rank] == entry["devices"]["cpu"]["latency_ms"]
    assert len([key for key, _ in found if key == "training.loss"]) == len(results["training"])


def test_names_are_ones_that_mlflow_takes():
    assert _key("search.latency_ms[cpu]") == "search.latency_ms.cpu"
    assert dict(_flat({"a": {"b": 1}, "c": None, "d": [2]})) == {"a.b": "1", "d": "[2]"}


def test_without_mlflow_the_extra_is_named(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "mlflow.entities", None)
    with pytest.raises(MissingExtraError, match=r"edge-nas\[track\]"):
        log_run(STORED, "sqlite:///none.db")


def test_a_run_is_logged_once(tmp_path, monkeypatch):
    pytest.importorskip("mlflow")
    monkeypatch.chdir(tmp_path)
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    id = log_run(STORED, uri)
    assert log_run(STORED, uri) == id
    from mlflow.tracking import MlflowClient

    client = MlflowClient(tracking_uri=uri)
    run = client.get_run(id)
    assert run.data.params["data.name"] == "digits"
    assert {"front.csv", "models"} <= {file.path for file in client.list_artifacts(id)}
    accuracies = client.get_metric_history(id, "search.accuracy")
    assert len(accuracies) == len(load_results(STORED)["evaluations"])


def test_a_folder_that_is_no_run_is_refused(tmp_path):
    pytest.importorskip("mlflow")
    with pytest.raises(InputError, match=r"results\.json"):
        log_run(tmp_path, f"sqlite:///{tmp_path / 'mlflow.db'}")
