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
    rigid_limits,
    told_size,
    trained_with,
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

FLAT = """

def flat():
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4), nn.Flatten(),
        nn.Linear(16 * 64, 10),
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


def test_a_folder_of_other_data_is_told(tmp_path):
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "1.csv").write_text("x,label\n1,a\n")
    with pytest.raises(InputError, match=r"looks like signal_csv.*nas bits"):
        read_data(str(tmp_path), None, None)


def test_what_bits_alone_cannot_meet_is_told_before_anything_is_done():
    rigid = replace(TRAINED, rigid=True)
    with pytest.raises(InputError, match=r"no layer's width.*nas inspect"):
        rigid_limits(rigid, read_limits(["macs=50%"]))
    rigid_limits(rigid, read_limits(["weights_kib=50%,latency_ms=3"]))
    rigid_limits(TRAINED, read_limits(["macs=50%"]))


def test_a_network_of_outputs_alone_is_rigid_and_one_of_more_layers_is_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(NETWORK)
    (tmp_path / "outputs.py").write_text(
        "from torch import nn\n\n\n"
        "def make():\n    return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))\n"
    )
    data = {"name": "digits"}
    assert not describe_network("net.py:make", None, {}, data=data).rigid
    assert describe_network("outputs.py:make", None, {}, data=data).rigid


def test_what_a_network_was_trained_with_is_known_of_collections():
    network = torch.nn.Linear(1, 1)
    assert trained_with("torchvision.models:resnet18", network) == ("imagenet", 224)
    assert trained_with("my.py:make", network) == (None, None)
    network.default_cfg = {"mean": (0.5,) * 3, "std": (0.25,) * 3, "input_size": (3, 160, 160)}
    found = {"mean": [0.5] * 3, "deviation": [0.25] * 3}
    assert trained_with("timm:some", network) == (found, 160)


def test_an_onnx_file_is_told_what_it_is_good_for(tmp_path):
    with pytest.raises(InputError, match=r"an ONNX file can teach .*nas bits"):
        describe_network(str(tmp_path / "net.onnx"), None, {}, data={"name": "digits"})


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


def test_the_size_of_pictures_is_that_of_the_data_where_the_network_takes_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        NETWORK.replace("Conv2d(1,", "Conv2d(3,") + FLAT.replace("Conv2d(1,", "Conv2d(3,")
    )
    pictures = tmp_path / "pictures"
    for name in ("cats", "dogs"):
        (pictures / name).mkdir(parents=True)
        for i in range(8):
            Image.effect_noise((60, 48), 50).convert("RGB").save(pictures / name / f"{i}.png")
    data = read_data(str(pictures), None, None)

    def described(call, **asked):
        return describe_network(f"net.py:{call}", None, {}, data={**data, **asked})

    any_size = described("make")
    assert any_size.side == 48
    assert "made 48 pixels wide and high, as most of them are" in str(
        told_size(any_size.side, any_size.sized)
    )
    fixed = described("flat")
    assert fixed.side == 32
    assert "which the network takes, and their own are about 48" in str(
        told_size(fixed.side, fixed.sized)
    )
    asked = described("make", image_size=40)
    assert told_size(asked.side, asked.sized) is None
    assert described("make", name="digits", path=None).side is None
    for name in ("cats", "dogs"):
        for path in (pictures / name).iterdir():
            Image.effect_noise((500, 400), 50).save(path)
    assert described("make").side == 224


def test_pictures_are_made_grey_for_a_network_of_one_channel(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "grey.py").write_text(NETWORK)
    (tmp_path / "colour.py").write_text(NETWORK.replace("Conv2d(1,", "Conv2d(3,"))
    for name in ("cats", "dogs"):
        (tmp_path / "pictures" / name).mkdir(parents=True)
        for i in range(8):
            Image.effect_noise((40, 40), 50).save(tmp_path / "pictures" / name / f"{i}.png")
    data = read_data(str(tmp_path / "pictures"), None, None)
    limits = read_limits(["macs=50%"])
    channels = {}
    for model in ("grey", "colour"):
        trained = describe_network(f"{model}.py:make", None, {}, data=data)
        channels[model] = compress_job(trained, limits, data, name="n")["data"].get("channels")
    assert channels == {"grey": 1, "colour": None}


def test_batches_are_smaller_where_a_step_would_hold_much():
    small, large = (
        compress_job(
            replace(TRAINED, image_bytes=size), read_limits(["macs=50%"]), {"name": "digits"},
            name="n",
        )
        for size in (100_000, 50_000_000)
    )  # fmt: skip
    assert "batch_size" not in small["supernet"] and "finetune" not in small
    assert large["supernet"]["batch_size"] == large["finetune"]["batch_size"] == 16
    Job.model_validate(large)
