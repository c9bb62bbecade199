"""What a network consists of is told before any work, and ONNX files are networks too."""

from __future__ import annotations

import json

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import nas
from nas.bits.onnx_source import OnnxNetwork
from nas.cli.main import app
from nas.models.inspection import inspect_network, inspection_lines
from search_spaces.errors import InputError
from supernet.onnx.export import export_onnx
from supernet.ptq.quantize import quantize_post_training


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.wide = nn.Conv2d(1, 8, (3, 1), padding=(1, 0)), nn.Conv2d(8, 12, 1)
        self.fc = nn.Linear(12, 3)

    def forward(self, x):
        x = torch.relu(self.stem(x))
        return self.fc(torch.relu(self.wide(x.roll(1, 1))).mean((2, 3)))


def test_layers_costs_and_what_may_vary():
    found = inspect_network(Net(), (1, 6, 5))
    by_name = {layer.name: layer for layer in found.layers}
    assert [layer.kernel for layer in found.layers] == ["3x1", "1x1", "1x1"]
    assert by_name["stem"].macs == 8 * 3 * 6 * 5
    assert by_name["wide"].width == "" and by_name["fc"].width == "they are the network's outputs"
    assert "roll" in by_name["stem"].width
    assert found.macs == sum(layer.macs for layer in found.layers)
    assert found.parameters == sum(p.numel() for p in Net().parameters())
    assert found.operations["relu"] == 2
    text = "\n".join(inspection_lines(found))
    assert "fixed: they go into 'roll'" in text


def onnx_file(path):
    torch.manual_seed(0)
    module = Net().eval()
    images = torch.randn(4, 1, 6, 5)
    export_onnx(quantize_post_training(module, [images], (32, 32), steps=()), path)
    return module, images


def test_an_onnx_file_is_a_network(tmp_path):
    module, images = onnx_file(tmp_path / "m.onnx")
    network = OnnxNetwork(tmp_path / "m.onnx")
    torch.testing.assert_close(network(images), module(images), rtol=1e-4, atol=1e-5)
    codes = quantize_post_training(network, [images], (8, 8), steps=("mse",))
    assert [layer.layer.name for layer in codes.plain_layers()] == [
        "stem", "wide", "fc",
    ]  # fmt: skip
    error = (codes(images) - module(images)).norm() / module(images).norm()
    assert error < 0.1


def test_command_line(tmp_path):
    onnx_file(tmp_path / "m.onnx")
    run = CliRunner().invoke
    found = run(app, ["inspect", str(tmp_path / "m.onnx"), "--input", "1x6x5", "--json"])
    assert found.exit_code == 0, found.output
    assert len(json.loads(found.stdout)["layers"]) == 3
    wrong = run(app, ["inspect", str(tmp_path / "m.onnx"), "--input", "six"])
    assert wrong.exit_code == 2
    missing = run(app, ["bits", str(tmp_path / "none.onnx"), "--budget", "bops=50%"])
    assert missing.exit_code == 2


def test_costs_are_those_of_the_inputs_that_the_network_states(tmp_path):
    """An ONNX file says them; costs for other inputs would be of another network."""
    module, _ = onnx_file(tmp_path / "m.onnx")
    found = nas.inspect(str(tmp_path / "m.onnx"))
    same = inspect_network(module, (1, 6, 5))
    assert found.input_shape == (1, 6, 5) and found.macs == same.macs
    assert found.parameters == same.parameters
    assert "for an input of 1x6x5, " in inspection_lines(found)[0]
    other = nas.inspect(str(tmp_path / "m.onnx"), (1, 12, 5))
    assert other.input_shape == (1, 12, 5) and other.macs > found.macs
    module.default_cfg = {"input_size": (1, 8, 8)}
    assert inspect_network(module).input_shape == (1, 8, 8)


def test_arguments_of_a_command_make_the_network(tmp_path):
    code = "from torch import nn\ndef make(width):\n    return nn.Conv2d(1, width, 3)\n"
    (tmp_path / "nets.py").write_text(code)
    call = ["--trust", "inspect", f"{tmp_path / 'nets.py'}:make", "--input", "1x6x6", "--json"]
    found = CliRunner().invoke(app, [*call, "--argument", "width=7"])
    assert found.exit_code == 0, found.output
    assert json.loads(found.stdout)["layers"][0]["outputs"] == 7
    lacking = CliRunner().invoke(app, call)
    assert lacking.exit_code == 2


def test_what_cannot_be_read_says_why():
    class Peeks(nn.Module):
        def forward(self, x):
            return x if x.sum() > 0 else -x

    with pytest.raises(InputError, match="cannot be captured"):
        inspect_network(Peeks(), (1, 6, 5))


def test_networks_of_vectors_need_no_shape():
    network = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 2))
    for shape in (None, (6,)):
        found = nas.inspect(network, shape)
        assert found.macs == 32 and found.layers[0].width == ""
    assert "layer  kind" in "\n".join(inspection_lines(found))


def test_recurrent_nodes_of_files_are_refused_by_name(tmp_path):
    import onnx
    from onnx import TensorProto, helper

    gates, inner = 12, 4
    values = [("w", (1, gates, 3)), ("r", (1, gates, inner))]
    graph = helper.make_graph(
        [helper.make_node("GRU", ["x", "w", "r"], ["y"], name="ears", hidden_size=inner)], "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [5, 1, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [5, 1, 1, inner])],
        [helper.make_tensor(n, TensorProto.FLOAT, s, [0.0] * (s[1] * s[2])) for n, s in values],
    )  # fmt: skip
    opset = [helper.make_opsetid("", 17)]
    onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=9), tmp_path / "gru.onnx")
    with pytest.raises(InputError, match=r"GRU \(node ears\); give the torch module"):
        nas.inspect(str(tmp_path / "gru.onnx"))


class Twice(nn.Module):
    """Enlarges two images by the same weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 3, (1, 2), dilation=2)
        self.last = nn.Conv2d(4, 4, 3)

    def forward(self, x):
        return self.last(self.up(self.up(self.first(x))))


def test_weights_that_stay_in_float_are_named():
    found = inspect_network(Twice(), (1, 8, 8))
    assert found.weighted == ["conv_transpose2d"]
    text = "\n".join(inspection_lines(found))
    assert (
        "weights that stay in float, and widths around them that are fixed: those of conv" in text
    )
    network = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ConvTranspose2d(4, 4, 3, 2), nn.Conv2d(4, 4, 3))
    once = inspect_network(network, (1, 8, 8))
    # A convolution before a pixel shuffle, with weights of few bits.
    assert [layer.name for layer in once.layers] == ["0", "1", "2"]
    assert once.weighted == once.untranslated == []
    plain = inspect_network(network[:1], (1, 8, 8))
    assert plain.weighted == [] and "stay in float" not in "\n".join(inspection_lines(plain))
