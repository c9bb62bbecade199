"""What a job's mistakes are told with: the value, the place and the fix."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from nas.job.check import load_job
from nas.job.yaml_source import DiagnosticsError

GOOD = "name: a\ndata: {name: digits}\n"


@pytest.fixture
def told(tmp_path):
    def run(text: str) -> str:
        path = tmp_path / "job.yaml"
        path.write_text(GOOD + text, encoding="utf-8")
        with pytest.raises(DiagnosticsError) as caught:
            load_job(path)
        (line,) = str(caught.value).replace(f"{path}:", "").splitlines()
        return line

    return run


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("search: {fronts: [device]}", "'device' is not one of joint, per_device"),
        ("devices: [cpu]", "write {name: cpu}"),
        ("devices: cpu", "write [{name: cpu}]"),
        ("space: vit", "write {name: vit}"),
        ("search: {constraints: {weights_kib: 60}}", "write {max: 60} or {min: 60}"),
        ("search: {constraints: {latency_ms: 5}}", "write {DEVICE: {max: 5}}"),
        (
            "search: {constraints: {latency_ms: {cpu: {max: 5ms}}}}",
            "'5ms' is not a number; write the number alone, in milliseconds",
        ),
        (
            "search: {constraints: {weights_kib: {max: 60 KB}}}",
            "write the number alone, in KiB",
        ),
        ("search: {confidence: 95%}", "'95%' is not a number; write 0.95"),
        ("study: shared.db", "no database URL; write sqlite:///shared.db for a file"),
        ("study: 'sqlite://'", "names no file"),
        ("space: {name: 'net.py:make'}", "a module is named without its ending: net:make"),
    ],
)
def test_the_fix_is_named(told, text, message):
    assert message in told(text)


@pytest.mark.parametrize(
    ("bound", "message"),
    [
        ("latency_ms: {cpu: {max: -5}}", "-5 must not be negative"),
        ("latency_ms: {cpu: {max: 0}}", "0 must be greater than 0"),
        ("weights_kib: {min: -1}", "-1 must not be negative"),
        ("accuracy: {min: 95}", "for 95 % write 0.95"),
        ("accuracy: {min: 950}", "accuracies are 0 to 1"),
    ],
)
def test_bounds_that_no_value_can_mean(told, bound, message):
    assert message in told(f"search: {{constraints: {{{bound}}}}}")


def test_a_space_whose_file_does_not_parse_is_told_with_its_line(told, tmp_path, monkeypatch):
    (tmp_path / "broken_space_example.py").write_text("import os\ndef make(:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    line = told("space: {name: 'broken_space_example:make'}")
    assert "broken_space_example.py:2:" in line


@pytest.mark.parametrize("predictor", ["transfer_gp", "help", "ridge", "trees", "macs", "lookup"])
def test_every_latency_predictor_can_be_named(tmp_path, predictor):
    path = tmp_path / "job.yaml"
    path.write_text(f"{GOOD}latency: {{predictor: {predictor}}}\n")
    assert load_job(path).latency.predictor == predictor


def test_the_file_of_a_shared_study_is_relative_to_the_job(tmp_path):
    path = tmp_path / "job.yaml"
    path.write_text(f"{GOOD}study: sqlite:///shared.db\n")
    assert load_job(path).study == f"sqlite:///{tmp_path / 'shared.db'}"
    path.write_text(f"{GOOD}study: postgresql://user@host/nas\n")
    assert load_job(path).study == "postgresql://user@host/nas"
    assert not list(Path(tmp_path).glob("*.db"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("budget: {}", "3:9: budget: give minutes of the wall clock or cpu_minutes"),
        (
            "budget: {minutes: 5, cpu_minutes: 5}",
            "budget: give minutes of the wall clock or cpu_minutes of processors, not both",
        ),
        ("budget: 25", "budget: 25 is not a mapping of keys to values"),
        ("budget: {minutes: 0}", "budget.minutes: 0 must be greater than 0"),
        ("budget: {minutes: 25 min}", "'25 min' is not a number; write the number alone"),
        (
            "budget: {minutes: 5}\nsupernet: {epochs: 3}",
            "4:20: supernet.epochs: the budget divides the time; leave epochs out",
        ),
        (
            "finetune: {sparsity: {pattern: often}}",
            "finetune.sparsity.pattern: no sparsity 'often'; give dense, a share of zeros such as",
        ),
        (
            "finetune: {sparsity: {layers: {head: '5:4'}}}",
            "finetune.sparsity.layers.head: the pattern 5:4 keeps no part of its weights",
        ),
        ("finetune: {refit: true, epochs: 3}", "finetune.refit: takes a part of the time"),
        (
            "finetune: {refit: true}\nsupernet: {epochs: 3}",
            "leaves, and there is none; give budget",
        ),
        ("finetune: {sparsity: {}}", "finetune.sparsity: every layer is dense; give a pattern"),
        ("search: {training: {layers: 0}}", "search.training.layers"),
        ("search: {training: {optimizer: lion}}", "'lion' is not one of sgd, momentum, adam"),
        ("search: {constraints: {worst_class_loss: {max: 5}}}", "for 5 % write 0.05"),
        (
            "budget: {minutes: 5}\nfinetune: {epochs: 3}",
            "finetune.epochs: the budget divides the time; leave epochs out, or leave out budget",
        ),
    ],
)
def test_a_budget_is_one_and_divides_the_time_alone(told, text, message):
    assert message in told(text)


def test_a_job_with_a_budget_trains_a_teacher_first(tmp_path):
    path = tmp_path / "job.yaml"
    for text, schedule in (
        ("budget: {minutes: 5}", "taught"),
        ("budget: {minutes: 5}\nsupernet: {batch_size: 64}", "taught"),
        ("budget: {minutes: 5}\nsupernet: {schedule: sandwich}", "sandwich"),
        ("", "sandwich"),
    ):
        path.write_text(GOOD + text, encoding="utf-8")
        job = load_job(path)
        assert job.supernet.schedule == schedule
        assert type(job).model_validate(job.resolved()) == job


@pytest.mark.parametrize("text", ["", "budget: {minutes: 5}", "budget: {cpu_minutes: 5}"])
def test_the_job_that_a_run_keeps_is_a_job(text, tmp_path):
    """It names every key, defaults included."""
    path = tmp_path / "job.yaml"
    path.write_text(GOOD + text, encoding="utf-8")
    job = load_job(path)
    path.write_text(yaml.safe_dump(job.resolved()), encoding="utf-8")
    assert load_job(path) == job


def test_too_few_first_evaluations_are_told_before_anything_is_trained(told):
    line = told("search: {evaluations: 6, initial: 2, front_size: 1}\n")
    assert line.startswith("3:") and "search.initial: initial 2 (at least 4)" in line


@pytest.mark.parametrize(
    ("task", "space", "message"),
    [
        ("object_detection", "mobilenet", "needs answers for the cells of an image; use detector"),
        ("semantic_segmentation", "detector", "for every place of an image; use segmenter"),
        ("image_classification", "segmenter", "once for a whole example; use hybrid, mobilenet"),
    ],
)
def test_a_space_that_answers_for_something_else_is_told(told, task, space, message):
    line = told(f"task: {task}\nspace: {{name: {space}}}\n")
    assert line.startswith("4:") and message in line


def test_a_space_of_one_architecture_has_nothing_to_search(told):
    """A run ended at its predictor, which cannot tell architectures apart."""
    text = "space: {name: mobilenet, preset: 8x8, weight_bits: [8], activation_bits: [8], "
    one = "resolutions: [8], widths: [1.0], kernels: [3], expands: [3], "
    stages = "stages: [{channels: 8, depths: [1], stride: 1}]}"
    assert "there is one architecture alone, and nothing to search" in told(text + one + stages)


@pytest.mark.parametrize("task", ["signal_regression", "anomaly_detection", "language_modelling"])
def test_what_has_no_rare_classes_is_not_balanced(tmp_path, task):
    path = tmp_path / "job.yaml"
    path.write_text(f"name: a\ntask: {task}\ndata: {{name: digits, balance: 0.5}}\n")
    with pytest.raises(DiagnosticsError, match=rf"3:\d+: data.balance: {task} has no classes"):
        load_job(path)


@pytest.mark.parametrize(("kernel", "fits"), [(3, False), ((1, 3), True)])
def test_a_network_of_images_is_told_where_the_data_are_signals(tmp_path, kernel, fits):
    (tmp_path / "nets.py").write_text(
        "from torch import nn\n"
        "def make():\n"
        f"    layers = [nn.Conv2d(1, 8, {kernel}), nn.ReLU(), nn.AdaptiveAvgPool2d(1)]\n"
        "    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(8, 3))\n"
    )
    path = tmp_path / "job.yaml"
    path.write_text(
        "name: a\ndata: {name: cylinder_bell_funnel}\n"
        "space: {name: module, model: 'nets.py:make'}\n"
    )
    if fits:
        load_job(path)
        return
    with pytest.raises(DiagnosticsError, match="takes images, and cylinder_bell_funnel holds sig"):
        load_job(path)
    path.write_text(path.read_text().replace("cylinder_bell_funnel", "digits"))
    load_job(path)
