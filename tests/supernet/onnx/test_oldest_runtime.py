"""Every exported file holds operators and types alone that the oldest promised runtime has."""

from __future__ import annotations

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import nn
from torch.nn import functional as F

from search_spaces.model_files.packing import pack_model
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.wrap import wrap
from supernet.ptq.quantize import quantize_post_training
from tests.supernet.kernels import without_kernel


class Moving(nn.Module):
    """Codes that are shuffled, enlarged, joined, cut, turned, padded and pooled."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.more = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 1)
        self.up, self.norm = nn.ConvTranspose2d(16, 8, 4, 2, 1), nn.GroupNorm(2, 8)
        self.shuffle, self.mixed = nn.PixelShuffle(2), nn.ChannelShuffle(4)
        self.act, self.last, self.fc = nn.PReLU(8), nn.Conv2d(36, 8, 3), nn.Linear(8, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = F.relu(self.first(x))
        a, b = self.mixed(F.max_pool2d(self.more(x), 2)).chunk(2, 1)
        b = F.interpolate(torch.cat([b, a], 1), scale_factor=4.0)
        up = self.up(x)
        parts = [up, F.relu(self.norm(up)), self.shuffle(self.more(x)).roll(1, 2).flip(3), b]
        y = F.pad(torch.cat(parts, 1), (1, 2, 1, 0), mode="reflect")
        return self.fc(F.adaptive_avg_pool2d(self.act(self.last(y)), 2).mean((2, 3)))


class Joined(nn.Module):
    """Layers that read all before them, each behind a norm, and a scale of each channel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm1, self.conv1 = (
            nn.Conv2d(3, 8, 3),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 8, 3),
        )
        self.norm2, self.conv2 = nn.BatchNorm2d(16), nn.Conv2d(16, 8, 3, padding=1, groups=2)
        self.gamma, self.fc = nn.Parameter(torch.rand(8, 1, 1)), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = torch.cat([x[:, :, 1:-1, 1:-1], self.conv1(F.relu(self.norm1(x)))], 1)
        y = F.hardswish(self.gamma * self.conv2(F.relu(self.norm2(x))))
        return self.fc(torch.cat([F.avg_pool2d(y, 2), F.max_pool2d(y, 2)], 1).mean((2, 3)))


class Tokens(nn.Module):
    """Attention over patches."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.layer = nn.Conv2d(3, 16, 4, 4), nn.TransformerEncoderLayer(16, 2, 32)
        self.head = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))


def exported(make, bits, path):
    torch.manual_seed(0)
    images = torch.randn(4, 3, 12, 12)
    export_onnx(quantize_post_training(make().eval(), [images], bits, steps=()), path)
    return onnx.load(path)


@pytest.mark.parametrize("make", [Moving, Joined, Tokens])
@pytest.mark.parametrize("bits", [(32, 32), (8, 8), (2, 4), (3, 16)])
def test_a_quantised_network_needs_no_newer_runtime(make, bits, tmp_path):
    model = exported(make, bits, tmp_path / "m.onnx")
    assert without_kernel(model) == set()
    assert model.ir_version <= 10 and model.opset_import[0].version <= 21


@pytest.mark.parametrize("make", [Moving, Joined])
def test_a_network_of_a_search_needs_no_newer_runtime(make, tmp_path):
    torch.manual_seed(0)
    space = wrap(make().eval(), input_shape=(3, 12, 12))
    net = Supernet(space)
    statistics = net.statistics(space.smallest(), [torch.randn(4, 3, 12, 12)])
    export_onnx(net.extract(space.smallest(), statistics), tmp_path / "m.onnx")
    assert without_kernel(onnx.load(tmp_path / "m.onnx")) == set()


class Shuffled(nn.Module):
    """Pixels that are shuffled between layers, with a quantiser on either side."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.up = nn.Conv2d(3, 16, 3), nn.ConvTranspose2d(16, 8, 2, 2)
        self.shuffle, self.last = nn.PixelShuffle(2), nn.Conv2d(2, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.shuffle(self.up(F.relu(self.first(x)))))


def test_shuffled_codes_are_one_operation_on_integers_in_packed_models(tmp_path):
    model = exported(Shuffled, (8, 8), tmp_path / "m.onnx")
    assert "DepthToSpace" not in {node.op_type for node in model.graph.node}
    found = [node["op"] for node in pack_model(model).nodes()]
    assert found.count("depth_to_space") == 2 and not {"reshape", "transpose"}.intersection(found)


def test_a_type_that_the_runtime_lacks_is_told():
    graph = helper.make_graph(
        [helper.make_node("DepthToSpace", ["x"], ["y"], blocksize=2)], "g",
        [helper.make_tensor_value_info("x", TensorProto.UINT8, (1, 4, 2, 2))],
        [helper.make_tensor_value_info("y", TensorProto.UINT8, (1, 1, 4, 4))],
    )  # fmt: skip
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)])
    (told,) = without_kernel(model)
    assert told.startswith("DepthToSpace") and "uint8" in told
