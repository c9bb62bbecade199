"""Anomalies by reconstruction: what is learned from, what is told, and a job from end to end."""

import csv

import numpy as np
import pytest
import torch
import yaml

from nas.job.check import load_job
from nas.job.sections.data import DataConfig
from nas.report.results import load_results
from nas.stages.pipeline import run
from nas.tasks import AnomalyDetection
from nas.tasks.anomaly import anomaly_scores, given_back
from search_spaces.errors import InputError


def machine(**options):
    return DataConfig(name="rotating_machine", validation=0.25, calibration=32, options=options)


def test_values_stand_where_the_card_says():
    """Value t of channel c is at [8 * c + t % 8, 0, t // 8]."""
    outputs = torch.randn(3, 16, 1, 4)
    windows = given_back(outputs).reshape(3, 2, 32)
    for c, t in ((0, 0), (1, 13), (0, 31)):
        assert torch.equal(windows[:, c, t], outputs[:, 8 * c + t % 8, 0, t // 8])


def test_only_normal_windows_are_learned_from():
    task = AnomalyDetection()
    splits = task.load(machine(examples=100, length=64), 0)
    assert splits.train.labels[splits.train.indices, 0].sum() == 0
    assert splits.calibration.labels[splits.calibration.indices, 0].sum() == 0
    for part in (splits.validation, splits._test):
        assert 0.1 < part.labels[part.indices, 0].mean() < 0.3
    assert task.outputs(splits) == 8
    inputs, targets = next(splits.evaluation_batches(splits.validation, batch_size=10))
    assert torch.equal(inputs.flatten(1), targets[:, 1:]), "the values are those of the input"
    noisy, clean = next(splits.training_batches(16, seed=0).epoch(0))
    assert 0 < (noisy.flatten(1) - clean[:, 1:]).std() < 0.2, "noise is on the input alone"


def test_the_metric_ranks_by_error():
    windows = torch.randn(6, 16)
    wrong = torch.tensor([0.0, 0.1, 0.2, 1.0, 2.0, 3.0])[:, None]
    anomalous = torch.tensor([0.0, 0, 0, 1, 1, 1])[:, None]
    targets = torch.cat([anomalous, windows], 1)
    outputs = (windows + wrong).reshape(6, 2, 8).transpose(1, 2)[:, :, None]
    assert torch.allclose(anomaly_scores(outputs, targets), wrong[:, 0] ** 2, atol=1e-5)
    score = AnomalyDetection().score()
    score.add(outputs, targets)
    assert score.values() == {"auc": 1.0, "average_precision": 1.0}


@pytest.mark.parametrize(
    "config, message",
    [
        (DataConfig(name="digits"), "holds images"),
        (DataConfig(name="cylinder_bell_funnel"), "name the one to learn from 'normal'"),
        (machine(examples=100, length=100), "multiple of 8"),
    ],
)
def test_data_without_normal_windows_is_told(config, message):
    with pytest.raises(InputError, match=message):
        AnomalyDetection().load(config, 0)


def test_sets_without_anomalies_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("validation", 10), ("test", 10)):
        np.save(tmp_path / f"x_{part}.npy", rng.standard_normal((count, 1, 64)))
        names = np.array(["normal", "fault"])[np.arange(count) % 2 * (part != "validation")]
        np.save(tmp_path / f"y_{part}.npy", names)
    with pytest.raises(InputError, match="validation set has no anomalies"):
        AnomalyDetection().load(DataConfig(name="signal_numpy", path=str(tmp_path)), 0)


def test_a_job_runs_from_yaml_to_a_front(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(
        yaml.safe_dump(
            {
                "name": "machine",
                "threads": 1,
                "task": "anomaly_detection",
                "data": {
                    "name": "rotating_machine",
                    "options": {"examples": 120, "length": 64},
                    "validation": 0.3,
                    "calibration": 32,
                },
                "space": {"name": "signal_autoencoder", "widths": [0.5]},
                "supernet": {"epochs": 2, "batch_size": 16, "warmup_epochs": 1},
                "devices": [{"name": "mcu", "simulator": "roofline", "hardware": "mcu-simd"}],
                "search": {
                    "objectives": ["auc", "weights_kib"],
                    "evaluations": 6,
                    "initial": 4,
                    "batch": 2,
                    "latency_samples": 2,
                    "front_size": 2,
                },
            }
        )
    )
    run(load_job(path), tmp_path / "run")
    results = load_results(tmp_path / "run")
    assert results["metric"] == "auc"
    assert all(abs(e["parity"]["accuracy_difference"]) <= 0.02 for e in results["front"])
    with open(tmp_path / "run" / "front.csv", newline="", encoding="utf-8") as file:
        assert {"auc", "validation_auc", "average_precision"} <= set(next(csv.reader(file)))
    card = next((tmp_path / "run" / "models").glob("*.md")).read_text()
    assert "anomaly score" in card
