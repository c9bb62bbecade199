"""Which channels may vary, and that a narrower network reads the first channels of each tensor."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from nas.models.file_check import file_problem
from supernet.network import Supernet
from supernet.onnx.export import export_onnx
from supernet.own_model.pretrained import find_elastic
from supernet.own_model.wrap import wrap
from supernet.training.reconstruct import reconstruct
from supernet.training.subnets import float_plan


class Wired(nn.Module):
    """Modules by name, a function that wires them, and a linear layer behind the mean."""

    def __init__(self, wire: Callable[..., Tensor], channels: int, **parts: nn.Module) -> None:
        super().__init__()
        self.wire = wire
        for name, part in parts.items():
            self.add_module(name, part)
        self.fc = nn.Linear(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.wire(self, x).mean((2, 3)))


def conv(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False)


def block(inputs: int, outputs: int, kernel: int = 3, groups: int = 1) -> nn.Sequential:
    return nn.Sequential(conv(inputs, outputs, kernel, groups), nn.BatchNorm2d(outputs), nn.ReLU())


def dense() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.stem(x)
        for norm, layer in ((m.norm1, m.conv1), (m.norm2, m.conv2)):
            x = torch.cat([x, layer(F.relu(norm(x)))], 1)
        return F.relu(m.norm3(x))

    return Wired(
        wire, 24, stem=conv(2, 8), conv1=conv(8, 8), conv2=conv(16, 8),
        norm1=nn.BatchNorm2d(8), norm2=nn.BatchNorm2d(16), norm3=nn.BatchNorm2d(24),
    )  # fmt: skip


def ghost() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.first(x)
        return m.last(m.apart(torch.cat([x, m.cheap(x)], 1)))

    parts = {"cheap": block(8, 8, 3, 8), "apart": block(16, 16, 3, 16), "last": block(16, 8, 1)}
    return Wired(wire, 8, first=block(2, 8), **parts)


def grouped() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        x = m.stem(x)
        return m.down(m.mixed(torch.cat([m.left(x), m.right(x)], 1)))

    parts = {"left": block(8, 8), "right": block(8, 16, 1), "mixed": block(24, 24, 3, 6)}
    return Wired(wire, 8, stem=block(2, 8), **parts, down=block(24, 8, 1))


def multiplied() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        return m.last(m.apart(m.stem(x)))

    return Wired(wire, 8, stem=block(2, 8), apart=block(8, 24, 3, 8), last=block(24, 8, 1))


def normed(norm: Callable[[int], nn.Module]) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        def wire(m: Wired, x: Tensor) -> Tensor:
            x = F.relu(m.norm1(m.conv1(x)))
            return F.relu(x + m.norm3(m.conv3(F.relu(m.norm2(m.conv2(x))))))

        norms = {"norm1": norm(16), "norm2": norm(8), "norm3": norm(16)}
        return Wired(wire, 16, conv1=conv(2, 16), conv2=conv(16, 8), conv3=conv(8, 16), **norms)

    return make


def scaled() -> nn.Module:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv1, self.conv2, self.fc = conv(2, 8), conv(8, 8), nn.Linear(8, 3)
            self.act = nn.PReLU(8)
            self.gamma = nn.Parameter(torch.rand(8, 1, 1))
            self.register_buffer("mask", (torch.rand(1, 8, 1, 1) > 0.3).float())
            self.weight = nn.Parameter(torch.rand(()))

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.conv1(x)) * self.weight
            return self.fc(((x + self.gamma * self.conv2(x)) * self.mask).mean((2, 3)))

    return Scaled()


def enlarged() -> nn.Module:
    def wire(m: Wired, x: Tensor) -> Tensor:
        a = m.a(x)
        up = F.relu(m.norm(m.up(m.b(F.max_pool2d(a, 2)))))
        return F.relu(m.shuffle(m.more(torch.cat([a, up], 1))))

    parts = {"up": nn.ConvTranspose2d(8, 8, 2, 2, bias=False), "norm": nn.BatchNorm2d(8)}
    more = {"more": conv(16, 32), "shuffle": nn.PixelShuffle(2)}
    return Wired(wire, 8, a=block(2, 8), b=block(8, 8), **parts, **more)


CASES = {
    "dense": (dense, {"stem", "conv1", "conv2"}),
    "ghost": (ghost, {"first.0", "last.0"}),
    "grouped": (grouped, {"stem.0", "left.0", "right.0", "down.0"}),
    "multiplied": (multiplied, {"stem.0", "last.0"}),
    "group norm": (normed(lambda n: nn.GroupNorm(n // 4, n)), {"conv1", "conv2"}),
    "one group": (normed(lambda n: nn.GroupNorm(1, n)), {"conv1", "conv2"}),
    "instance norm": (normed(lambda n: nn.InstanceNorm2d(n, affine=True)), {"conv1", "conv2"}),
    "constants of channels": (scaled, {"conv1"}),
    "enlarged": (enlarged, {"a.0", "b.0", "up", "more"}),
}  # fmt: skip


@torch.no_grad()
def made(case: str) -> nn.Module:
    torch.manual_seed(0)
    module = CASES[case][0]().eval()
    for name, value in module.named_parameters():
        if value.dim() == 1 and name.endswith("weight"):
            value.uniform_(0.5, 1.5)  # scales of norms, by which channels can be told
    return module


def space_of(module: nn.Module, **options: object):
    elastic = find_elastic(module, (2, 8, 8), shares=(0.5, 1.0))
    return wrap(
        module, input_shape=(2, 8, 8), weight_bits=(4, 8), activation_bits=(8,), **elastic,
        **options,
    )  # fmt: skip


@pytest.mark.parametrize("case", list(CASES))
@torch.no_grad()
def test_a_narrow_network_is_the_wide_one_without_the_last_channels(case):
    module = made(case)
    space = space_of(module)
    assert {name.removeprefix("width.") for name in (c.name for c in space.choices)
            if name.startswith("width.")} == CASES[case][1]  # fmt: skip
    if case == "one group":
        return  # Its moments are those of the channels that are left.
    images = torch.randn(2, 2, 8, 8)
    small = float_plan(space.plan(space.smallest()))
    layers = dict(module.named_modules())
    for layer in small.layers():
        own = layers[layer.name]  # convolutions that hold a norm have the norm's name
        if isinstance(own, nn.ConvTranspose2d):
            own.weight[:, layer.out_channels // layer.shared_norm :] = 0.0
        elif not layer.out_parts and layer.groups == 1 and layer.name != "fc":
            own.weight[layer.out_channels :] = 0.0
    expected = module(images)
    supernet = Supernet(space_of(module))
    statistics = {
        layer.name: (
            torch.zeros(layer.out_channels // layer.shared_norm),
            torch.ones(layer.out_channels // layer.shared_norm),
        )
        for layer in small.layers()
    }
    found = supernet.evaluate(images, small, statistics)
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("case", list(CASES))
def test_sorted_channels_compute_the_same_and_variants_are_exported_as_they_are(case, tmp_path):
    module = made(case)
    space = space_of(module, sort_channels=True)
    supernet, images = Supernet(space), torch.randn(8, 2, 8, 8)
    largest = float_plan(space.plan(space.largest()))
    found = supernet.evaluate(images, largest, space.pretrained_statistics())
    with torch.no_grad():
        assert torch.allclose(found, module(images), rtol=1e-4, atol=1e-5)
    arch = space.smallest()
    statistics = supernet.statistics(arch, [images])
    network = supernet.extract(arch, statistics)
    assert torch.equal(network(images), supernet.evaluate(images, arch, statistics))
    export_onnx(network, tmp_path / "small.onnx")
    assert file_problem(network, tmp_path / "small.onnx", images) is None
    fitted = reconstruct(supernet, space.plan(arch), [images])
    assert torch.isfinite(fitted.evaluate(images, arch, fitted.statistics(arch, [images]))).all()


def test_elements_within_elements_may_all_be_left_out():
    class Step(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = conv(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return x + F.relu(self.conv(x))

    torch.manual_seed(0)
    inner = [nn.Sequential(Step(), Step()) for _ in range(3)]
    body = nn.Sequential(*inner)
    module = nn.Sequential(conv(2, 8), body, nn.Flatten(1), nn.Linear(8 * 64, 3)).eval()
    depths = {"1": (1, 2, 3), "1.0": (1, 2), "1.1": (1, 2), "1.2": (1, 2)}
    space = wrap(module, input_shape=(2, 8, 8), depths=depths, weight_bits=(8,),
                 activation_bits=(8,))  # fmt: skip
    supernet, images = Supernet(space), torch.randn(2, 2, 8, 8)
    values = {name: option for name, option in space.smallest().items if "depth" not in name}
    for deep, first in ((1, 1), (1, 2), (2, 1)):
        arch = {**dict(space.largest().items), **values, "depth.1": deep, "depth.1.0": first}
        plan = float_plan(space.plan(space.arch(arch)))
        steps = [*inner[0][:first], *[step for part in inner[1:deep] for step in part]]
        with torch.no_grad():
            expected = module[3](nn.Sequential(*steps)(module[0](images)).flatten(1))
        assert torch.allclose(supernet.evaluate(images, plan, {}), expected, atol=1e-5)
