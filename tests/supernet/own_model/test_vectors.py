"""Networks of vectors of numbers are read, made elastic and exported like any other."""

from __future__ import annotations

import onnxruntime as ort
import pytest
import torch
from torch import nn

from search_spaces.errors import InputError
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.pretrained import module_space
from supernet.own_model.sources import load_network
from supernet.own_model.vectors import flattening, vector_length
from supernet.own_model.wrap import bits_space, wrap
from supernet.training.subnets import float_plan


def perceptron() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm1d(24)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(
        nn.Linear(12, 24), norm, nn.ReLU(), nn.Linear(24, 16), nn.ReLU(), nn.Linear(16, 3)
    ).eval()


def test_which_networks_take_vectors():
    assert vector_length(perceptron()) == 12
    assert vector_length(nn.Sequential(nn.Flatten(), nn.Linear(64, 2))) == 64
    assert vector_length(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten(), nn.Linear(16, 2))) == 0
    assert vector_length(nn.Sequential(nn.Unflatten(1, (3, 4)), nn.Linear(4, 2))) == 0
    # Two vectors are a sequence to it, whose steps look at each other.
    assert vector_length(nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)) == 0
    training = nn.Sequential(nn.Linear(3, 2)).train()
    assert vector_length(training) == 3 and training.training


def test_a_wrapped_network_of_vectors_computes_the_same_and_is_exported(tmp_path):
    network = perceptron()
    space = wrap(network, input_shape=(12,), widths={"0": [0.5, 1.0], "3": [0.5, 1.0]})
    assert space.cardinality() > 4 and space.input_channels == 1
    supernet = Supernet(space)
    images = torch.randn(8, 1, 1, 12)
    largest = float_plan(space.plan(space.largest()))
    plain = supernet.extract(largest, space.pretrained_statistics())
    with torch.no_grad():
        torch.testing.assert_close(plain(images), network(images.flatten(1)))
    smallest = space.plan(space.smallest())
    quantised = supernet.extract(smallest, supernet.statistics(smallest, [images]))
    path = tmp_path / "small.onnx"
    export_onnx(quantised, path)
    (found,) = ort.InferenceSession(path).run(None, {"input": images.numpy()})
    torch.testing.assert_close(
        torch.from_numpy(found), quantised(images).detach(), atol=0.1, rtol=0.1
    )
    fixed = bits_space(network, input_shape=(12,))
    assert fixed.plan(fixed.largest()).macs == 12 * 24 + 24 * 16 + 48


def test_a_space_of_vectors_by_name_fits_the_data(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "net.py").write_text(
        "from tests.supernet.own_model.test_vectors import perceptron as make\n"
    )
    named = load_network("net.py:make")
    with torch.no_grad():  # as data come
        assert named(torch.zeros(2, 1, 1, 12)).shape == (2, 3)
    assert flattening(named)(torch.zeros(2, 12)).shape == (2, 3)
    own = module_space(model="net.py:make")
    assert own.plan(own.largest()).input_shape == (1, 1, 12)
    space = module_space(model="net.py:make", input_channels=1, input_size=(1, 12), outputs=5)
    assert space.outputs == 5 and any(c.name == "width.0" for c in space.choices)
    with pytest.raises(InputError, match="vectors of 12 numbers, and the data have 1 x 1 x 13"):
        module_space(model="net.py:make", input_channels=1, input_size=(1, 13))
