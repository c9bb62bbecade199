"""Networks of several outputs: read, quantised, given bits and exported, every output compared."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

from nas.bits.named_network import load_source
from nas.bits.search import allocate_bits, write_bits
from nas.bits.source import module_source
from nas.cli.main import app
from nas.models.file_check import file_problem
from nas.models.parity import evaluate_outputs
from search_spaces.errors import InputError
from supernet.onnx.export import export_onnx
from supernet.own_model.wrap import bits_space
from supernet.ptq.quantize import quantize_post_training
from supernet.ptq.sensitivity import layer_sensitivity


class Finder(nn.Module):
    """Maps of two classes and of boxes, and points, as the networks of MTCNN give them."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.slope = nn.Conv2d(1, 8, 3, padding=1), nn.PReLU(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.classes, self.boxes = nn.Conv2d(8, 2, 1), nn.Conv2d(8, 4, 1)
        self.points = nn.Linear(8, 10)

    def forward(self, x):
        h = torch.relu(self.second(self.slope(self.first(x))))
        return {
            "boxes": self.boxes(h),
            "classes": torch.softmax(self.classes(h), 1),
            "points": self.points(h.mean((2, 3))),
        }


def make() -> nn.Module:
    torch.manual_seed(0)
    return Finder().eval()


def images() -> torch.Tensor:
    return torch.randn(12, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def network():
    return make()


def test_bits_are_found_and_every_output_of_the_file_is_that_of_the_network(network, tmp_path):
    result = allocate_bits(network, [images()], {"weights_kib": "70%"}, adaround=False)
    told = json.loads(write_bits(result, tmp_path, images()).read_text())
    assert told["best"]["proven_optimal"] and told["parity"]["agreement"] is None
    found = evaluate_outputs(tmp_path / told["model"], [images()], optimise=False)
    with torch.no_grad():
        expected = result.network(images())
    assert [f.shape for f in found] == [(12, 4, 8, 8), (12, 2, 8, 8), (12, 10)]
    for one, other in zip(found, expected, strict=True):
        assert np.abs(one - other.numpy()).max() < 0.02 * np.abs(other.numpy()).max()


def test_the_sensitivity_counts_every_output(network):
    table = layer_sensitivity(network, [images()], weight_bits=(2,))
    # Each of the three ends moves an output of its own.
    ends = [table.layers.index(name) for name in ("classes", "boxes", "points")]
    assert all(table.weights["kl"][ends, 0] > 0)


def test_a_file_whose_last_output_is_wrong_is_found_out(network, tmp_path):
    good = quantize_post_training(network, [images()], (32, 32), steps=())
    path = tmp_path / "model.onnx"
    export_onnx(good, path)
    assert file_problem(good, path, images()) is None
    changed = make()
    with torch.no_grad():
        changed.points.weight.mul_(1.1)
    other = quantize_post_training(changed, [images()], (32, 32), steps=())
    assert "points" in str(file_problem(other, path, images()))


def test_inputs_may_have_one_dimension_as_the_network_takes_them(tmp_path):
    from nas.bits.source import _read_array

    class Sound(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.last = nn.Conv1d(1, 6, 5), nn.Linear(6, 3)

        def forward(self, x):
            return self.last(torch.relu(self.first(x[:, None])).mean(2))

    np.save(tmp_path / "sounds.npy", np.random.default_rng(0).normal(size=(16, 40)))
    sounds = _read_array(tmp_path / "sounds.npy", 16, None)
    assert [tuple(part.shape) for part in sounds] == [(16, 40)]
    result = allocate_bits(Sound().eval(), sounds, {"weights_kib": "100%"}, adaround=False)
    write_bits(result, tmp_path / "out", sounds[0])


def test_the_bits_of_its_space_and_an_onnx_file_of_it(network, tmp_path):
    space = bits_space(network, input_shape=(1, 8, 8))
    assert len(list(space.plan(space.largest()).layers())) == 5
    path = tmp_path / "float.onnx"
    export_onnx(quantize_post_training(network, [images()], (32, 32), steps=()), path)
    again = load_source(str(path))
    with torch.no_grad():
        found, expected = again(images()), network(images())
    assert len(found) == 3
    for one, other in zip(found, expected.values(), strict=True):
        assert torch.allclose(one, other, atol=1e-5)
    result = allocate_bits(again, [images()], {"weights_kib": "70%"}, adaround=False)
    assert len(result.table.layers) == 5


def test_labels_of_classes_say_nothing_of_several_outputs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = f"{__name__}:make"
    options = ["--data", "digits", "--count", "32", "--no-adaround", "--budget", "weights_kib=70%"]
    result = CliRunner().invoke(app, ["bits", name, *options, "--output", "bits"])
    assert result.exit_code == 0, result.output
    assert "accuracy is not measured: the network has several outputs" in result.output
    assert "accuracy" not in json.loads((tmp_path / "bits" / "bits.json").read_text())


def test_a_network_that_does_not_take_the_images_is_told():
    with pytest.raises(InputError, match="--data digits: the network does not take its images of"):
        module_source(f"{__name__}:wide", data="digits")


def wide() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).eval()
