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
from nas.tasks.anomaly import REFERENCE, given_back
from nas.tasks.normal_errors import NormalErrors
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
        kinds = part.labels[part.indices, 0]
        assert 0.1 < (kinds[kinds != REFERENCE] == 1).float().mean() < 0.3
    assert task.outputs(splits) == 8
    inputs, targets = next(splits.evaluation_batches(splits.validation, batch_size=10))
    assert torch.equal(inputs.flatten(1), targets[:, 1:]), "the values are those of the input"
    noisy, clean = next(splits.training_batches(16, seed=0).epoch(0))
    assert 0.25 < (noisy.flatten(1) - clean[:, 1:]).std() < 0.35, "noise is on the input alone"


@pytest.mark.parametrize("own_validation", [False, True])
def test_errors_are_held_against_windows_of_the_training_set(tmp_path, own_validation):
    """Which are in validation and test, marked, and in no figure but as what is normal."""
    rng = np.random.default_rng(0)
    for part, count in (("train", 60), ("test", 30), *[("validation", 20)] * own_validation):
        np.save(tmp_path / f"x_{part}.npy", rng.standard_normal((count, 2, 16)))
        np.save(tmp_path / f"y_{part}.npy", np.array(["normal", "fault"])[np.arange(count) % 2])
    config = DataConfig(name="signal_numpy", path=str(tmp_path), validation=0.5, calibration=4)
    splits = AnomalyDetection().load(config, 0)

    def windows(part, kind):
        inputs, targets = part.at(torch.arange(len(part)))
        assert torch.equal(splits.normalisation(inputs).flatten(1), targets[:, 1:])
        return {tuple(row) for row in targets[targets[:, 0] == kind, 1:].tolist()}

    learned = windows(splits.train, 0)
    assert learned and windows(splits.train, REFERENCE) == set()
    for part in (splits.validation, splits._test):
        assert windows(part, REFERENCE) == learned
        assert not windows(part, 0) & learned
        assert len(windows(part, 1)) == len(part) - len(learned) - len(windows(part, 0))
        first = part.labels[part.first(len(part) // 2).indices, 0]
        assert set(first.tolist()) == {0.0, 1.0, REFERENCE}, "a part of a set can be judged too"


def outputs_of(windows):
    """Outputs (n, 16, 1, length / 8) that give windows (n, 2, length) back."""
    patches = windows.reshape(len(windows), 2, -1, 8).transpose(2, 3)
    return patches.reshape(len(windows), 16, 1, -1)


def test_the_metric_ranks_by_how_unlike_normal_errors_are():
    """Errors that all windows have say nothing, however large; small ones of another kind do."""
    torch.manual_seed(0)
    windows = torch.randn(1100, 2, 16)
    error = 0.1 * torch.randn(1100, 2, 16)
    error[:, 0] += torch.randn(1100, 1)
    kinds = torch.tensor([REFERENCE] * 1000 + [0.0] * 50 + [1.0] * 50)
    error[1050:, 1] += torch.tensor([0.6, -0.6]).repeat(8)
    targets = torch.cat([kinds[:, None], windows.flatten(1)], 1)
    outputs = outputs_of(windows + error)
    score = AnomalyDetection().score()
    score.add(outputs[:60], targets[:60])
    score.add(outputs[60:], targets[60:])
    expected = NormalErrors.of(error[:1000].numpy()).scores(error[1000:].numpy())
    assert expected[:50].max() < expected[50:].min()
    assert score.values() == {"auc": 1.0, "average_precision": 1.0}
    plain = error.pow(2).mean((1, 2))
    assert plain[1050:].min() < plain[1000:1050].max(), "which plain errors do not tell"


def write_signals(folder, windows, kinds):
    """Write windows (n, channels, length) and their kinds, 1 for anomalies: half are the test."""
    half = len(windows) // 2
    for part, rows in (("train", slice(0, half)), ("test", slice(half, None))):
        np.save(folder / f"x_{part}.npy", windows[rows])
        np.save(folder / f"y_{part}.npy", np.array(["normal", "fault"])[kinds[rows]])
    return DataConfig(name="signal_numpy", path=str(folder), validation=0.3, calibration=32)


def pulses(rng, count):
    """Aligned pulses of two heights; anomalies have the second where no normal one has it."""
    kinds = (rng.random(count) < 0.3).astype(int)
    t = np.arange(128)
    windows = 0.1 * rng.standard_normal((count, 1, 128)) + rng.uniform(-2, 2, (count, 1, 1))
    for at, height in ((np.full(count, 20), 2.0), (np.where(kinds, 38, 46), 1.0)):
        bump = np.exp(-0.5 * ((t - at[:, None]) / 2) ** 2)
        windows[:, 0] += height * rng.uniform(0.5, 1.5, (count, 1)) * bump
    return windows, kinds


def hums(rng, count):
    """Sines of any phase; anomalies are of another frequency, with more noise."""
    kinds = (rng.random(count) < 0.3).astype(int)
    turns = np.where(kinds, 9, 6)[:, None] * np.arange(128) / 64 + rng.random((count, 1))
    noise = rng.standard_normal((count, 1, 128)) * np.where(kinds, 0.5, 0.4)[:, None, None]
    return np.sin(2 * np.pi * turns)[:, None] + noise, kinds


def test_validation_says_whether_segments_or_whole_windows_are_judged(tmp_path):
    """Aligned windows are told apart as wholes; the card says which score it is, and how."""
    rng = np.random.default_rng(0)
    chosen = {}
    for name, made in (("pulses", pulses), ("hums", hums)):
        (tmp_path / name).mkdir()
        task = AnomalyDetection()
        splits = task.load(write_signals(tmp_path / name, *made(rng, 800)), 0)
        chosen[name] = task.directions
        told = task.output_text(splits)
        assert f"judge_of(them, {task.directions})" in told
        assert ("segments" in told) == (task.directions == 0)
        # A network that gives nothing back: the figures are those of the windows themselves.
        aucs = []
        for part in (splits.validation, splits.test("in a test")):
            inputs, targets = part.at(torch.arange(len(part)))
            score = task.score()
            score.add(torch.zeros(len(inputs), 8, 1, 16), targets)
            aucs.append(score.values()["auc"])
        assert f"without a network, has auc {aucs[0]:.1%}" in told and aucs[1] > 0.9
    assert chosen["pulses"] > 0 and chosen["hums"] == 0


def test_a_lead_of_whole_windows_that_may_be_chance_counts_for_nothing():
    """With a dozen anomalies in validation some count of directions is ahead by chance."""
    chosen = []
    for seed in (0, 4):
        task = AnomalyDetection()
        task.load(machine(examples=400, length=64), seed)
        chosen.append(task.directions)
    assert chosen == [0, 0]


def test_without_normal_windows_there_is_nothing_to_hold_errors_against():
    score = AnomalyDetection().score()
    score.add(torch.randn(4, 8, 1, 2), torch.cat([torch.tensor([[0.0], [1]] * 2),
                                                  torch.randn(4, 16)], 1))  # fmt: skip
    with pytest.raises(InputError, match=r"none of these windows is a normal one.*--images"):
        score.values()


def test_anomalies_are_not_learned_from():
    """As where winners are refitted, which learn from validation windows too."""
    task, outputs = AnomalyDetection(), torch.randn(4, 8, 1, 2)
    kinds = torch.tensor([0.0, 1.0, REFERENCE, 1.0])[:, None]
    targets = torch.cat([kinds, torch.randn(4, 16)], 1)
    assert torch.isclose(task.loss(outputs, targets), task.loss(outputs[::2], targets[::2]))
    assert task.loss(outputs[1:2], targets[1:2]) == 0


@pytest.mark.parametrize(
    "config, message",
    [
        (DataConfig(name="digits"), "holds images"),
        (
            DataConfig(name="cylinder_bell_funnel"),
            "classes 'cylinder', 'bell', 'funnel', and none called 'normal'.*data.normal",
        ),
        (DataConfig(name="cylinder_bell_funnel", normal="bel"), "none called 'bel'"),
        (
            DataConfig(name="cylinder_bell_funnel", normal=["bell", "funnel", "cylinder"]),
            "no anomalies",
        ),
        (machine(examples=100, length=100), "multiple of 8: 96 or 104"),
    ],
)
def test_data_without_normal_windows_is_told(config, message):
    with pytest.raises(InputError, match=message):
        AnomalyDetection().load(config, 0)


def test_any_classes_can_be_the_normal_ones():
    config = DataConfig(name="cylinder_bell_funnel", normal=["bell", "funnel"], calibration=30,
                        options={"examples": 60, "length": 64})  # fmt: skip
    splits = AnomalyDetection().load(config, 0)
    kinds = splits._test.labels[splits._test.indices, 0]
    assert (kinds == 1).sum() == 10 and (kinds == 0).sum() == 20
    assert splits.classes == ("bell", "funnel")


def test_sets_without_anomalies_are_told(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("validation", 10), ("test", 10)):
        np.save(tmp_path / f"x_{part}.npy", rng.standard_normal((count, 1, 64)))
        names = np.array(["normal", "fault"])[np.arange(count) % 2 * (part != "validation")]
        np.save(tmp_path / f"y_{part}.npy", names)
    with pytest.raises(InputError, match="validation set has no anomalies"):
        AnomalyDetection().load(DataConfig(name="signal_numpy", path=str(tmp_path)), 0)


@pytest.mark.parametrize("own_validation", [False, True])
def test_windows_that_errors_are_held_against_are_no_copies(tmp_path, own_validation):
    rng = np.random.default_rng(0)
    for part in ("train", "test", *(["validation"] if own_validation else [])):
        np.save(tmp_path / f"x_{part}.npy", rng.standard_normal((40, 1, 64)))
        np.save(tmp_path / f"y_{part}.npy", np.array(["normal", "fault"])[np.arange(40) % 2])
    config = DataConfig(name="signal_numpy", path=str(tmp_path), validation=0.3)
    assert AnomalyDetection().load(config, 0).warnings() == []
    for axis in ("x", "y"):
        np.save(tmp_path / f"{axis}_test.npy", np.load(tmp_path / f"{axis}_train.npy"))
    (copies, *_) = AnomalyDetection().load(config, 0).warnings()
    assert "of the 40 test examples are in the training set too" in copies


def test_anomalies_may_be_in_validation_and_test_alone(tmp_path):
    rng = np.random.default_rng(0)
    for part, count in (("train", 40), ("test", 10)):
        np.save(tmp_path / f"x_{part}.npy", rng.standard_normal((count, 1, 64)))
        names = np.array(["normal", "fault"])[np.arange(count) % 2 * (part != "train")]
        np.save(tmp_path / f"y_{part}.npy", names)
    config = DataConfig(name="signal_numpy", path=str(tmp_path))
    with pytest.raises(InputError, match=r"all normal: give anomalies in a set of its own.*x_val"):
        AnomalyDetection().load(config, 0)
    for name in ("x", "y"):
        np.save(tmp_path / f"{name}_validation.npy", np.load(tmp_path / f"{name}_test.npy"))
    splits = AnomalyDetection().load(config, 0)
    kinds = splits.validation.labels[splits.validation.indices, 0]
    assert (kinds == 1).sum() == 5 and len(splits.train) == 40


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
