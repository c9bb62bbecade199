"""Transposed convolutions are convolutions before a pixel shuffle, and are quantised as such."""

import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from supernet.onnx.export import export_onnx
from supernet.ptq.graph import trace_float
from supernet.ptq.quantize import layer_bits, quantize_post_training
from supernet.ptq.transposed import phases


def around(*layers):
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), *layers, nn.ReLU(), nn.Conv2d(12, 4, 1)
    ).eval()


FORMS = {
    "blocks": {"kernel_size": 2, "stride": 2},
    "overlap": {"kernel_size": 3, "stride": 2, "padding": 1, "output_padding": 1},
    "groups": {"kernel_size": 4, "stride": 2, "padding": 1, "groups": 4},
    "stride 1": {"kernel_size": 3, "padding": 1, "groups": 2},
    "stride 3": {"kernel_size": 5, "stride": 3, "padding": 2, "output_padding": 2},
    "gaps between blocks": {"kernel_size": (1, 2), "stride": 2, "output_padding": 1},
    "oblong": {"kernel_size": (3, 5), "stride": 2, "bias": False},
    "gaps between weights": {"kernel_size": 3, "dilation": 2, "groups": 2},
    "gaps and nothing beyond": {"kernel_size": 3, "dilation": (2, 1), "output_padding": (1, 0)},
    "gaps and blocks": {"kernel_size": 3, "stride": 2, "dilation": (2, 3), "padding": 1},
    "rows alone": {"kernel_size": 3, "stride": (2, 1), "padding": 1, "output_padding": (1, 0)},
    "columns alone": {"kernel_size": (2, 4), "stride": (1, 2), "groups": 4},
    "both, unlike": {"kernel_size": (4, 3), "stride": (2, 3), "padding": (1, 0)},
    "unlike with gaps": {"kernel_size": 3, "stride": (1, 2), "dilation": (2, 1), "bias": False},
}


@pytest.mark.parametrize("name", FORMS)
def test_it_computes_the_same(name):
    torch.manual_seed(0)
    network = around(nn.ConvTranspose2d(8, 12, **FORMS[name]))
    x = torch.randn(2, 3, 6, 7)
    graph = trace_float(network, x)
    assert list(graph.layers) == ["0", "1", "3"] and graph.transposed == {"1"}
    assert graph.beside() == {}
    torch.testing.assert_close(graph.module(x), network(x), atol=1e-5, rtol=1e-5)
    # What was read is read again as it is.
    again = trace_float(graph.module, x)
    assert list(again.layers) == ["0", "1", "3"] and again.transposed == {"1"}


def test_a_batch_norm_behind_it_is_part_of_it():
    torch.manual_seed(0)
    network = around(nn.ConvTranspose2d(8, 12, 4, 2, 1, bias=False), nn.BatchNorm2d(12))
    network.train()
    for _ in range(3):
        network(torch.randn(8, 3, 6, 6) * 3)
    x = torch.randn(2, 3, 6, 6)
    graph = trace_float(network.eval(), x)
    assert list(graph.layers) == ["0", "1", "4"]
    torch.testing.assert_close(graph.module(x), network(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["gaps between weights", "both, unlike", "unlike with gaps"])
def test_its_file_computes_in_integers_what_the_network_does(name, tmp_path):
    torch.manual_seed(0)
    network = nn.Sequential(
        around(nn.ConvTranspose2d(8, 12, **FORMS[name])), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    ).eval()
    images = torch.randn(32, 3, 6, 7)
    found = quantize_post_training(network, [images], (8, 8), steps=())
    export_onnx(found, tmp_path / "up.onnx")
    kinds = {node.op_type for node in onnx.load(tmp_path / "up.onnx").graph.node}
    assert "ConvTranspose" not in kinds
    session = onnxruntime.InferenceSession(tmp_path / "up.onnx")
    (outputs,) = session.run(None, {"input": images.numpy()})
    expected = network(images).detach()
    assert (torch.from_numpy(outputs) - expected).norm() < 0.05 * expected.norm()


class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 4, 1), nn.ConvTranspose2d(4, 4, 2, 2)

    def forward(self, x):
        return self.up(self.up(self.first(x)))


def test_one_that_is_used_twice_stays():
    network, x = Twice().eval(), torch.randn(2, 3, 4, 4)
    graph = trace_float(network, x)
    assert not graph.transposed
    torch.testing.assert_close(graph.module(x), network(x))


def test_weights_of_a_block_of_several_pixels_stand_where_the_transposed_ones_did():
    weight = torch.arange(1.0, 7.0).view(1, 1, 1, 6)
    # Strides of 1 and 2: blocks of two rows, of which each is a pixel of the input, and 2 columns.
    found = phases(weight, (1, 2), 1)
    assert found.shape == (4, 1, 2, 3)
    assert found[0, 0].tolist() == [[5, 3, 1], [0, 0, 0]]  # first row, first column
    assert found[3, 0].tolist() == [[0, 0, 0], [6, 4, 2]]


def test_its_weights_have_eight_bits_unless_they_are_named():
    torch.manual_seed(0)
    network = around(nn.ConvTranspose2d(8, 12, 2, 2))
    images = torch.randn(4, 3, 6, 6)
    plain = quantize_post_training(network, [images], (4, 8), steps=(), edge_bits=None)
    bits = {layer.name: layer.weight_bits for layer in plain.plan.layers()}
    assert bits == {"0": 4, "1": 8, "3": 4}
    named = layer_bits(("0", "1"), {"0": (4, 8), "1": (2, 8)}, transposed=frozenset("1"))
    assert named["1"] == (2, 8)
    assert layer_bits(("0", "1", "2"), (32, 32), transposed=frozenset("1"))["1"] == (32, 32)
