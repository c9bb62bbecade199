"""Spaces made from a user's module: what they build, what they refuse, and the tutorial."""

from __future__ import annotations

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from devices.runtime import make_runtime
from search_spaces.errors import InputError
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.wrap import bits_space, wrap
from supernet.training.subnets import float_plan
from tests.supernet.sessions import exact_session

BITS = {"weight_bits": (2, 8), "activation_bits": (4, 8)}


class Block(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x):
        h = F.relu(self.norm1(self.conv1(x)), inplace=True)
        h = self.norm2(self.conv2(h))
        h += x
        return F.relu(h)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.body = nn.Sequential(*[Block(8) for _ in range(3)])
        self.down = nn.Conv2d(8, 16, 5, 2, 2)
        self.fc = nn.Linear(16, 4)

    def forward(self, x):
        x = F.relu(self.down(self.body(self.stem(x))))
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


class Attention(nn.Module):
    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.qkv, self.project = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        self.widen, self.contract = (
            nn.Linear(channels, 2 * channels),
            nn.Linear(2 * channels, channels),
        )

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(self.norm1(x)).chunk(3, -1)
        q, k, v = (t.reshape(b, n, self.heads, c // self.heads).transpose(1, 2) for t in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c)
        x = x + self.project(mixed)
        return x + self.contract(F.gelu(self.widen(self.norm2(x))))


class Transformer(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, 8, 2, 2)
        self.positions = nn.Parameter(0.1 * torch.randn(1, 16, 8))
        self.blocks = nn.Sequential(Attention(8, 2), Attention(8, 2))
        self.norm, self.fc = nn.LayerNorm(8), nn.Linear(8, 4)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return self.fc(self.norm(self.blocks(x)).mean(1))


def vgg() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(32, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 4),
    )  # fmt: skip


class Joined(nn.Module):
    """Joins tensors of unlike widths: of one of them twice, of some before they are flattened."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(12)
        self.mixed = nn.Conv2d(20, 12, 1, bias=False)
        self.down = nn.Conv2d(12, 8, 3, 2, 1)
        self.fc = nn.Linear(8 * 4 + 12, 4)

    def forward(self, x):
        left, right = F.relu(self.left(x)), self.right(x)
        both = torch.cat([left, F.relu(torch.cat([right, left], dim=-3))], dim=1)
        mixed = F.relu(self.norm(self.mixed(both)))
        small = F.max_pool2d(F.relu(self.down(mixed)), 2)
        return self.fc(torch.cat([small.flatten(1), mixed.mean((2, 3))], 1))


class Everywhere(nn.Module):
    """Answers for every place of an image, with skip connections that are joined."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 16, 3, 2, 1)
        self.back, self.last = nn.Conv2d(24, 8, 3, padding=1), nn.Conv2d(8, 4, 1)

    def forward(self, x):
        fine = F.relu(self.fine(x))
        up = F.interpolate(F.relu(self.coarse(fine)), scale_factor=2.0)
        return self.last(F.relu(self.back(torch.cat([up, fine], 1))))


class Enlarging(nn.Module):
    """Transposed convolutions, one with a batch norm behind it, inside elements of a sequence."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Conv2d(1, 8, 3, 2, 1)
        self.blocks = nn.Sequential(*[Enlarging.Block() for _ in range(2)])
        self.up = nn.ConvTranspose2d(8, 4, 4, 2, 1, bias=False)
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4, 4)

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up, self.down = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(4, 8, 3, 2, 1)

        def forward(self, x):
            return x + self.down(F.relu(self.up(x)))

    def forward(self, x):
        x = F.relu(self.norm(self.up(F.relu(self.blocks(F.relu(self.down(x)))))))
        return self.fc(x.mean((2, 3)))


CASES = {
    "enlarging": (
        Enlarging,
        {"widths": {"down": (0.5, 1.0)}, "depths": {"blocks": (1, 2)}},
    ),
    "joined": (
        Joined,
        {"widths": {n: (0.5, 1.0) for n in ("left", "right", "mixed", "down")}, "divisor": 2},
    ),
    "everywhere": (
        Everywhere,
        {"widths": {n: (0.5, 1.0) for n in ("fine", "coarse", "back")}},
    ),
    "residual": (
        Residual,
        {
            "widths": {"stem.0": (0.5, 1.0), "down": (0.5, 1.0)},
            "kernels": {"down": (3, 5)},
            "depths": {"body": (1, 2, 3)},
            "resolutions": (6, 8),
        },
    ),
    "vgg": (vgg, {"widths": {"0": (0.5, 1.0), "7": (0.5, 1.0)}}),
    "transformer": (
        Transformer,
        {"widths": {"blocks.*.widen": (0.5, 1)}, "depths": {"blocks": (1, 2)}},
    ),
}  # fmt: skip


def make(case: str):
    torch.manual_seed(0)
    factory, options = CASES[case]
    module = factory()
    for part in module.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return module.eval(), wrap(module, input_shape=(1, 8, 8), **BITS, **options)


@pytest.mark.parametrize("case", CASES)
def test_the_largest_network_is_the_module(case):
    module, space = make(case)
    images = torch.randn(4, 1, 8, 8)
    plan = float_plan(space.plan(space.largest()))
    found = Supernet(space).evaluate(images, plan, space.pretrained_statistics())
    with torch.no_grad():
        torch.testing.assert_close(found, module(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", CASES)
def test_variants_extract_exactly_and_export(case, tmp_path):
    _, space = make(case)
    supernet = Supernet(space)
    rng = np.random.default_rng(0)
    for arch in (space.largest(), space.smallest(), space.sample(rng)):
        assert space.parse(str(arch)) == arch
        plan = space.plan(arch)
        images = torch.randn(8, *plan.input_shape)
        statistics = supernet.statistics(arch, [images])
        network = supernet.extract(arch, statistics)
        with torch.no_grad():
            expected = network(images)
        assert torch.equal(expected, supernet.evaluate(images, arch, statistics))
        summary = export_onnx(network, tmp_path / "m.onnx")
        assert summary.weights_kib == pytest.approx(plan.weights_kib)
        session = exact_session(tmp_path / "m.onnx")
        found = session.run(None, {"input": images.numpy()})[0]
        error = np.linalg.norm(found - expected.numpy())
        assert error <= 0.25 * np.linalg.norm(expected.numpy())


def test_layers_that_are_added_share_one_width():
    _, space = make("residual")
    plan = {layer.name: layer for layer in space.plan(space.smallest()).layers()}
    assert plan["stem.0"].out_channels == plan["body.0.conv2"].out_channels == 4
    assert plan["body.0.conv1"].out_channels == 8
    assert [c.name for c in space.choices if c.name.startswith("width")] == [
        "width.stem.0",
        "width.down",
    ]
    assert "body.1.conv1" not in plan


def test_what_is_joined_keeps_its_widths_and_the_first_channels_of_each_are_read():
    module, space = make("joined")
    supernet = Supernet(space)
    values = {**dict(space.largest().items), "width.left": 0.5}
    layers = {layer.name: layer for layer in space.plan(space.arch(values)).layers()}
    assert layers["mixed"].in_parts == ((4, 8), (4, 4), (4, 8))
    assert layers["mixed"].in_channels == 12
    kept = [*range(4), *range(8, 12), *range(12, 16)]
    taken = supernet.layer("mixed").slice_of(layers["mixed"])
    assert torch.equal(taken, module.mixed.weight[:, kept])
    values |= {"width.left": 1.0, "width.down": 0.5}
    layers = {layer.name: layer for layer in space.plan(space.arch(values)).layers()}
    # Of a flattened map each channel has four places.
    assert layers["fc"].in_parts == ((16, 32), (12, 12))
    whole = {layer.name: layer for layer in space.plan(space.largest()).layers()}
    assert layers["left"].in_parts == () and whole["fc"].in_channels == 44


class Hourglass(nn.Module):
    """Reads a map as it is and pooled, and enlarges what it made of that: a small U-Net."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 8, 3, padding=1)
        self.up, self.back = nn.ConvTranspose2d(8, 4, 2, 2), nn.Conv2d(8, 4, 3, padding=1)
        self.last = nn.Conv2d(4, 4, 1)

    def forward(self, x):
        fine = F.relu(self.fine(x))
        up = self.up(F.relu(self.coarse(F.max_pool2d(fine, 2))))
        return self.last(F.relu(self.back(torch.cat([up, fine], 1))))


def test_what_is_pooled_or_shuffled_stays_codes(tmp_path):
    torch.manual_seed(0)
    space = wrap(Hourglass().eval(), input_shape=(1, 8, 8), weight_bits=(8,), activation_bits=(8,))
    supernet, images = Supernet(space), torch.randn(16, 1, 8, 8)
    network = supernet.extract(space.largest(), supernet.statistics(space.largest(), [images]))
    export_onnx(network, tmp_path / "m.onnx")
    session = make_runtime("lowbit").load(tmp_path / "m.onnx")
    # All five layers; a pool between codes had left the layer behind it to floats.
    assert session.arithmetic() == {"int8": 5}
    found = np.concatenate([session(image[None].numpy())[0] for image in images])
    expected = network(images).detach().numpy()
    assert np.linalg.norm(found - expected) < 0.05 * np.linalg.norm(expected)


def test_channels_of_a_join_that_something_else_needs_are_fixed():
    class Grouped(Joined):
        def __init__(self) -> None:
            super().__init__()
            self.mixed = nn.Conv2d(20, 20, 3, padding=1, groups=2)
            self.norm, self.down = nn.BatchNorm2d(20), nn.Conv2d(20, 8, 3, 2, 1)
            self.fc = nn.Linear(8 * 4 + 20, 4)

    with pytest.raises(InputError, match=r"left cannot vary, because mixed is a convolution in"):
        wrap(Grouped(), input_shape=(1, 8, 8), widths={"left": (0.5, 1.0)})


def test_bits_alone_keep_the_weights():
    torch.manual_seed(0)
    module = vgg()
    space = bits_space(module, input_shape=(1, 8, 8), weight_bits=(2, 8), activation_bits=(8,))
    arch = space.at({"7": (2, 8)})
    bits = {layer.name: layer.weight_bits for layer in space.plan(arch).layers()}
    assert bits == {"0": 8, "3": 8, "7": 2, "10": 8}
    assert torch.equal(Supernet(space).layer("0").weight, module[0].weight)
    with pytest.raises(InputError, match="unknown layer '8'"):
        space.at({"8": (2, 8)})


@pytest.mark.parametrize(
    ("case", "options", "message"),
    [
        ("residual", {"widths": {"fc": (0.5, 1.0)}}, "fc cannot vary, because they are the"),
        ("residual", {"widths": {"steem": (0.5, 1.0)}}, "no layer is called 'steem'"),
        ("residual", {"widths": {"stem.0": (0.5, 1), "body.0.conv2": (0.25, 1)}}, "equal widths"),
        ("residual", {"widths": {"stem.0": (0.9, 1.0)}}, "leave out the equal ones"),
        ("residual", {"kernels": {"down": (3, 7)}}, "the kernel of down has the side 5"),
        ("residual", {"depths": {"body": (1, 2)}}, "must end with the number of its elements, 3"),
        ("residual", {"depths": {"boddy": (1, 2)}}, "'boddy' is no nn.Sequential"),
        ("transformer", {"widths": {"blocks.0.qkv": (0.5, 1.0)}}, "cannot vary.*chunk"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_with_the_reason(case, options, message):
    with pytest.raises(InputError, match=message):
        wrap(CASES[case][0](), input_shape=(1, 8, 8), **options)


def test_a_pattern_leaves_out_what_cannot_vary_and_says_why():
    space = wrap(CASES["residual"][0](), input_shape=(1, 8, 8), widths={"*": (0.5, 1.0)})
    named = wrap(CASES["residual"][0](), input_shape=(1, 8, 8), widths={"stem.0": (0.5, 1.0)})
    assert "outputs" in space.skipped["fc"]
    free = [choice.name for choice in space.choices if choice.name.startswith("width.")]
    assert "width.stem.0" in free and "width.fc" not in free
    assert not named.skipped


class Pyramid(nn.Module):
    """Adds features of half the resolution, brought back to that of ``size`` pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.fine, self.coarse = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(1, 4, 3, 2, 1)
        self.fc = nn.Linear(4, 3)

    def forward(self, x):
        fine = F.relu(self.fine(x))
        up = F.interpolate(F.relu(self.coarse(x)), size=fine.shape[2:], mode="nearest")
        return self.fc((fine + up).mean((2, 3)))


@pytest.mark.parametrize("size", [5, 6, 7, 9, 11, 12])
def test_features_are_resized_as_torch_does_whatever_the_ratio(size, tmp_path):
    torch.manual_seed(0)
    space = wrap(Pyramid().eval(), input_shape=(1, size, size), **BITS)
    network = Supernet(space).extract(float_plan(space.plan(space.largest())), {})
    images = torch.randn(2, 1, size, size)
    export_onnx(network, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(str(tmp_path / "m.onnx"))
    found = session.run(None, {"input": images.numpy()})[0]
    with torch.no_grad():
        np.testing.assert_allclose(found, network(images).numpy(), rtol=1e-4, atol=1e-5)


class Views(nn.Module):
    """Sizes as numbers, with another of the shape left open, as in many scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3), nn.Linear(32, 4)

    def forward(self, x):
        x = self.first(x).relu()
        gate = x.view(-1, 8, 36).mean(2).view(-1, 8, 1, 1).sigmoid()
        return self.last(F.max_pool2d(x * gate, 3).view(-1, 32))


def test_views_of_numbers_leave_the_channels_free(tmp_path):
    torch.manual_seed(0)
    module, images = Views().eval(), torch.randn(3, 3, 8, 8)
    space = wrap(module, input_shape=(3, 8, 8), widths={"first": [0.5, 1.0]})
    supernet = Supernet(space)
    for arch in (space.smallest(), space.largest()):
        network = supernet.extract(arch, supernet.statistics(arch, [images]))
        export_onnx(network, tmp_path / "m.onnx")
        session = exact_session(tmp_path / "m.onnx")
        (found,) = session.run(None, {"input": images.numpy()})
        np.testing.assert_allclose(found, network(images).detach(), atol=0.1)


class Biased(nn.Module):
    """Attention with a bias that is looked up in a learned table, and a mask that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.heads = nn.Conv2d(3, 32, 4, 4), 2
        self.qkv, self.fc = nn.Linear(32, 96), nn.Linear(32, 4)
        self.table, self.scale = nn.Parameter(torch.randn(7, 2)), nn.Parameter(torch.rand(32))
        places = torch.arange(4)
        self.register_buffer("places", places[:, None] - places + 3)
        self.register_buffer("mask", (torch.rand(1, 4, 32) > 0.3).float())

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2) * self.mask
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        bias = self.table[self.places.view(-1)].view(4, 4, -1).permute(2, 0, 1)
        x = F.scaled_dot_product_attention(q, k, v, bias.unsqueeze(0))
        return self.fc((x.transpose(1, 2).reshape(b, n, c) * self.scale).mean(1))


def test_what_is_no_weight_in_shared_weights_is_none_in_the_network_alone():
    torch.manual_seed(0)
    images = torch.randn(64, 3, 8, 8)
    space = wrap(Biased().eval(), input_shape=(3, 8, 8))
    net, plan = Supernet(space), float_plan(space.plan(space.largest()))
    alone = net.extract(plan, {})
    values = {k.rpartition("value_")[2]: p for k, p in alone.named_parameters() if "value_" in k}
    learned = [name for name, p in values.items() if p.requires_grad]
    assert len(values) == 3 and learned == ["scale.value"]
    # An attention whose mask may get gradients rounds otherwise.
    with torch.no_grad():
        assert torch.equal(alone(images), net.evaluate(images, plan, {}))
