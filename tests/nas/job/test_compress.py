"""From a network, budgets and data to a job that any other command takes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import save_file
from typer.testing import CliRunner

from nas.cli.main import app
from nas.job.check import load_job
from nas.job.compress import (
    Limit,
    Trained,
    compress_job,
    describe_network,
    job_yaml,
    read_data,
    read_limits,
    read_normalisation,
    told_size,
)
from nas.job.schema import Job
from search_spaces.errors import InputError

TRAINED = Trained("torchvision.models:resnet18", None, {"weights": "DEFAULT"}, 1000, 2048, 224,
                  "imagenet")  # fmt: skip

NETWORK = """
from torch import nn


def make():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, 10),
    )
"""


def test_budgets_are_read_with_their_devices_and_shares():
    assert read_limits(["latency_ms=3@board,size_kib=500", "macs=50%", "accuracy=0.9"]) == [
        Limit("latency_ms", 3.0, "board"), Limit("size_kib", 500.0),
        Limit("macs", 0.5, share=True), Limit("accuracy", 0.9),
    ]  # fmt: skip
    assert read_limits(["latency_ms=3"])[0].device == "cpu"


@pytest.mark.parametrize(
    ("text", "message"),
    [("latency=3", "no quantity 'latency'"), ("size_kib", "not of the form QUANTITY=MAX"),
     ("size_kib=3@board", "the same on every device"), ("size_kib=50%", "a share is for macs"),
     ("macs=0", "above 0"), ("macs=1,macs=2", "has a budget already"), ("macs=1-1", "no number")],
)  # fmt: skip
def test_a_budget_that_is_none_is_told(text, message):
    with pytest.raises(InputError, match=message):
        read_limits([text])


def test_the_job_is_valid_and_holds_what_was_asked():
    limits = read_limits(["latency_ms=3@board,macs=50%,weights_kib=25%,accuracy=0.8"])
    made = compress_job(
        TRAINED, limits, {"name": "image_folder", "path": "/p"}, name="small", minutes=30,
        devices={"hub": "https://hub", "token_file": "/t"}, labels=False,
        teacher={"model": "/big.onnx"},
    )  # fmt: skip
    text = job_yaml(made, "nas compress x")
    assert text.startswith("# Written by: nas compress x\n")
    job = Job.model_validate(yaml.safe_load(text))
    bounds = {(str(c.metric), c.upper): c.bound for c in job.constraints()}
    assert bounds == {("latency_ms[board]", True): 3.0, ("macs", True): 500.0,
                      ("weights_kib", True): 2.0, ("accuracy", False): 0.8}  # fmt: skip
    assert [str(goal.metric) for goal in job.objectives()] == [
        "accuracy", "latency_ms[board]", "macs", "weights_kib",
    ]  # fmt: skip
    assert [d.hub for d in job.devices] == ["https://hub"]
    assert (job.data.normalisation, job.data.image_size) == ("imagenet", 224)
    assert job.supernet.distillation == job.finetune.distillation == "only"
    assert job.supernet.teacher.model == "/big.onnx"


def test_random_weights_are_refused():
    with pytest.raises(InputError, match="random weights: give --weights FILE, or --argument"):
        describe_network("torchvision.models:resnet18", None, {}, data={"name": "digits"})


def test_normalisation_is_read():
    assert read_normalisation("imagenet") == "imagenet"
    assert read_normalisation("data") is None
    assert read_normalisation("0.5,0.4,0.3/0.2") == {"mean": [0.5, 0.4, 0.3], "deviation": [0.2]}
    with pytest.raises(InputError, match="neither imagenet nor data"):
        read_normalisation("0.5")


def test_data_is_a_folder_or_a_name(tmp_path):
    assert read_data(str(tmp_path), None, 32) == {
        "name": "image_folder", "path": str(tmp_path), "image_size": 32,
    }  # fmt: skip
    assert read_data("digits", None, None) == {"name": "digits"}
    with pytest.raises(InputError, match="neither a folder nor a data set"):
        read_data("nowhere", None, None)


def test_the_command_writes_the_job_with_files_and_costs_of_the_network(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    torch.manual_seed(0)
    scope: dict = {}
    exec(NETWORK, scope)
    save_file(scope["make"]().state_dict(), tmp_path / "net.safetensors")
    found = CliRunner().invoke(
        app,
        ["compress", "net.py:make", "--weights", "net.safetensors", "--data", "digits",
         "--budget", "macs=50%", "--minutes", "30", "--dry-run", "--trust"],
    )  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "exactly" in found.output
    # Timing takes minutes on large pictures: what it is at is told.
    assert "timing steps of training" in found.stderr
    job = load_job(tmp_path / "runs" / "net-make.yaml")
    # Of pictures of 8x8, which the data has, not of some usual size.
    macs = 64 * 9 * 16 + 64 * 9 * 16 * 16 + 160
    assert job.constraints()[0].bound == pytest.approx(0.5 * macs, rel=1e-5)
    assert job.space.overrides["model"] == f"{tmp_path}/net.py:make"
    assert job.space.overrides["weights"] == f"{tmp_path}/net.safetensors"
    assert job.budget.minutes == 30


def test_the_size_of_pictures_that_nobody_asked_for_is_told(tmp_path):
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        for i in range(3):
            Image.new("RGB", (60, 48)).save(tmp_path / name / f"{i}.png")
    data = read_data(str(tmp_path), None, None)
    trained = Trained("m", None, {}, macs=1, parameters=1, side=None, normalisation=None)
    told = told_size(data, trained)
    assert told is not None
    assert told.startswith("images: made 224 pixels wide and high, and their own are about 48")
    assert told_size(data, replace(trained, side=160)) is None
    assert told_size(read_data("digits", None, None), trained) is None
