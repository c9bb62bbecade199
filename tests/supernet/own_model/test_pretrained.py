"""A trained network becomes a supernet: its function stays, its best channels come first."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from search_spaces.errors import InputError
from supernet.network import Supernet
from supernet.own_model.pretrained import (
    find_elastic,
    for_channels,
    module_space,
    of_signals,
    own_channels,
    own_side,
)
from supernet.own_model.sources import load_network
from supernet.own_model.wrap import wrap
from supernet.reading import reader
from supernet.training.checkpoint import save_checkpoint
from supernet.training.subnets import float_plan

SOURCE = """
import torch
from torch import nn
from torch.nn import functional as F


class Block(nn.Module):
    def __init__(self, channels):
        super().__init__()
        self.conv = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * channels)
        self.mix = nn.Conv2d(2 * channels, 2 * channels, 3, padding=1, groups=2 * channels)
        self.back = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, x):
        return x + self.back(F.relu(self.mix(F.relu(self.norm(self.conv(x))))))


class Net(nn.Module):
    def __init__(self, channels=3):
        super().__init__()
        self.stem = nn.Conv2d(channels, 8, 3, padding=1)
        self.blocks = nn.Sequential(Block(8), Block(8))
        self.wide, self.norm, self.fc = nn.Linear(8, 16), nn.LayerNorm(16), nn.Linear(16, 5)

    def forward(self, x):
        x = self.blocks(F.relu(self.stem(x))).mean((2, 3))
        return self.fc(self.norm(F.gelu(self.wide(x))))


def make():
    torch.manual_seed(0)
    net = Net()
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.normal_()
            part.running_var.uniform_(0.5, 2)
    return net.eval()
"""


@pytest.fixture
def name(tmp_path):
    path = tmp_path / "own_net.py"
    path.write_text(SOURCE)
    return f"{path}:make"


def evaluated(space, arch, images):
    supernet = Supernet(space)
    return supernet.evaluate(images, float_plan(space.plan(arch)), space.pretrained_statistics())


def test_everything_that_can_vary_is_found(name):
    found = find_elastic(load_network(name), (3, 8, 8), shares=(0.5, 1.0))
    # The stem, the ends of the blocks and the input of the head are added to each other.
    assert found["widths"] == {
        "stem": [0.5, 1.0], "blocks.0.conv": [0.5, 1.0], "blocks.1.conv": [0.5, 1.0],
        "wide": [0.5, 1.0],
    }  # fmt: skip
    assert found["depths"] == {"blocks": [1, 2]}


def test_a_network_is_captured_once_however_many_sequences_are_tried(monkeypatch):
    class Grouped(nn.Module):
        """Passes on what came in, too, so it cannot be left out."""

        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(8, 8, 3, padding=1)

        def forward(self, x):
            return self.conv(x) + x.mean()

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = nn.Conv2d(3, 8, 3, padding=1)
            self.plain = nn.Sequential(Block(8), Block(8))
            self.deep = nn.Sequential(*[Block(8) for _ in range(3)])
            self.odd = nn.Sequential(nn.Sequential(Grouped()), nn.Sequential(Grouped()))
            self.fc = nn.Linear(8, 4)

        def forward(self, x):
            x = self.odd(self.deep(self.plain(self.stem(x))))
            return self.fc(x.mean((2, 3)))

    class Block(nn.Module):
        def __init__(self, channels):
            super().__init__()
            self.conv = nn.Conv2d(channels, channels, 3, padding=1)

        def forward(self, x):
            return x + F.relu(self.conv(x))

    captured = []
    real = reader.capture
    monkeypatch.setattr(reader, "capture", lambda *a, **k: captured.append(a) or real(*a, **k))
    found = find_elastic(Net(), (3, 8, 8))
    assert found["depths"]["plain"] == [1, 2] and found["depths"]["deep"] == [1, 2, 3]
    assert len(captured) == 1


def test_sorting_keeps_the_function_of_the_largest(name):
    network = load_network(name)
    space = module_space(input_channels=3, outputs=5, model=name, input_size=(8, 8))
    images = torch.randn(6, 3, 8, 8)
    found = evaluated(space, space.largest(), images)
    torch.testing.assert_close(found, network(images), rtol=1e-4, atol=1e-5)
    # In order, each channel matters no more than the one before it.
    first = space.graph.modules["blocks.0.conv"].weight
    assert not torch.equal(first, network.blocks[0].conv.weight)


class Uneven(nn.Module):
    """Its first channels hardly matter."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 16, 3, padding=1), nn.Conv2d(16, 8, 3, padding=1)
        self.fc = nn.Linear(8, 3)
        with torch.no_grad():
            self.first.weight[:8] *= 1e-3
            self.first.bias[:8] *= 1e-3

    def forward(self, x):
        return self.fc(F.relu(self.second(F.relu(self.first(x)))).mean((2, 3)))


class Skipping(nn.Module):
    """Joins what it made before to what it made of it, and answers for every place."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(2, 16, 3, padding=1), nn.BatchNorm2d(16)
        self.second = nn.Conv2d(16, 8, 3, padding=1)
        self.last = nn.Conv2d(24, outputs, 1)

    def forward(self, x):
        first = F.relu(self.norm(self.first(x)))
        return self.last(torch.cat([F.relu(self.second(first)), first], 1))


def test_channels_are_sorted_in_every_part_of_a_join():
    torch.manual_seed(0)
    network = Skipping().eval()
    network.norm.weight.data.uniform_(0.1, 2)
    found = find_elastic(network, (2, 6, 6), shares=(0.5, 1.0))
    assert found["widths"] == {"first": [0.5, 1.0], "second": [0.5, 1.0]}
    space = wrap(network, input_shape=(2, 6, 6), sort_channels=True, **found)
    images = torch.randn(4, 2, 6, 6)
    torch.testing.assert_close(
        evaluated(space, space.largest(), images), network(images), rtol=1e-4, atol=1e-5
    )
    assert not torch.equal(space.graph.modules["first"].weight, network.first.weight)


def test_networks_that_answer_for_every_place_are_spaces_too(tmp_path):
    path = tmp_path / "skipping.py"
    path.write_text(
        "import torch\nfrom tests.supernet.own_model.test_pretrained import Skipping, Uneven\n"
        "class Both(Uneven):\n    def forward(self, x):\n        return [super().forward(x)] * 2\n"
    )
    space = module_space(input_channels=2, outputs=5, model=f"{path}:Skipping", input_size=(6, 6))
    assert (space.outputs, space.answers) == (5, "grid")
    assert space.trained is False  # its last layer is new
    network = Supernet(space)
    assert network.extract(
        space.smallest(), network.statistics(space.smallest(), [torch.randn(4, 2, 6, 6)])
    )(torch.randn(2, 2, 6, 6)).shape == (2, 5, 6, 6)
    with pytest.raises(InputError, match=r"returns a list; it must return one tensor \(batch, out"):
        module_space(input_channels=2, outputs=3, model=f"{path}:Both", input_size=(6, 6))


def test_half_the_channels_are_the_better_half():
    torch.manual_seed(0)
    network = Uneven().eval()
    images = torch.randn(16, 2, 6, 6)
    errors = []
    for sort in (False, True):
        space = wrap(network, input_shape=(2, 6, 6), widths={"first": (0.5, 1.0)},
                     sort_channels=sort)  # fmt: skip
        half = space.arch({**dict(space.largest().items), "width.first": 0.5})
        errors.append((evaluated(space, half, images) - network(images)).norm())
    assert errors[1] < 0.01 * errors[0]


def test_one_channel_is_the_same_picture_in_all_three():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(64, 2)).eval()
    images = torch.randn(2, 1, 6, 6)
    expected = network(images.expand(-1, 3, -1, -1))
    torch.testing.assert_close(for_channels(network, 1)(images), expected)
    with pytest.raises(InputError, match="takes 1 channels and the data have 4"):
        for_channels(network, 4)


def test_other_outputs_get_a_new_last_layer(name):
    space = module_space(input_channels=1, outputs=7, model=name, input_size=(8, 8))
    assert space.outputs == 7
    assert space.input_channels == 1


@pytest.mark.parametrize(
    ("name", "message"),
    [("nothing", "names no network"), ("missing.py:make", "no file missing.py"),
     ("torch.nn:Nothing", "has no 'Nothing'"), ("json:loads", "'s'")],
)  # fmt: skip
def test_what_is_no_network_is_told(name, message):
    with pytest.raises((InputError, TypeError), match=message):
        load_network(name)


class HeadFirst(nn.Module):
    """Layers are made in another order than they are called in."""

    def __init__(self, channels) -> None:
        super().__init__()
        self.gate, self.head = nn.Conv1d(1, 1, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.stem = nn.Conv2d(channels, 8, 3)

    def forward(self, x):
        x = self.stem(x)
        gate = self.gate(x.mean((2, 3))[:, None])[:, 0, :, None, None]
        return self.head(x * gate.sigmoid()).mean((2, 3))


def test_what_a_network_takes_is_seen_where_its_inputs_enter():
    torch.manual_seed(0)
    images = torch.randn(2, 1, 12, 12)
    for channels in (1, 3):
        network = HeadFirst(channels).eval()
        assert own_channels(network) == channels and not of_signals(network)
        expected = network(images.expand(-1, channels, -1, -1))
        torch.testing.assert_close(for_channels(network, 1)(images), expected)
    folded = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, 4, 3))
    assert own_channels(folded) == 3 and for_channels(folded, 3)[1].in_channels == 12
    with pytest.raises(InputError, match="takes 3 channels and the data have 1"):
        for_channels(folded, 1)


def test_wrappers_are_taken_off_and_weights_are_float32(tmp_path):
    (tmp_path / "nets.py").write_text(WRAPPED)
    plain = load_network(f"{tmp_path / 'nets.py'}:plain")
    for name in ("parallel", "compiled", "half"):
        network = load_network(f"{tmp_path / 'nets.py'}:{name}")
        assert type(network) is nn.Conv2d and network.weight.dtype is torch.float32
    saved = {f"module.{key}": value + 1 for key, value in plain.state_dict().items()}
    save_checkpoint(tmp_path / "saved.safetensors", saved, {})
    network = load_network(f"{tmp_path / 'nets.py'}:plain", weights=tmp_path / "saved.safetensors")
    torch.testing.assert_close(network.weight, plain.weight + 1)


WRAPPED = """
import torch
from torch import nn

def plain():
    torch.manual_seed(0)
    return nn.Conv2d(1, 2, 3)

def parallel(): return nn.DataParallel(plain())

def compiled(): return torch.compile(plain())

def half(): return plain().half()
"""


NETS = """
import torch
from torch import nn

class Two(nn.Module):
    def forward(self, image, numbers):
        return image.mean((2, 3)) + numbers

def two(): return Two()

def sized(width, depth=1):
    return nn.Conv2d(1, width, 3)

def broken():
    weights = {}
    return weights["stem"]

def traced():
    return torch.jit.trace(nn.Conv2d(1, 2, 3), torch.zeros(1, 1, 8, 8))

number = 5
"""


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("two", {}, r"needs 2 inputs \(image, numbers\), and networks of one are read"),
        ("sized", {}, r"missing a required argument: 'width'; it takes width, depth=1, each"),
        ("sized", {"widht": 3}, "it takes width, depth=1"),
        ("sized", {"width": "x"}, "sized raises TypeError"),
        ("broken", {}, r"broken raises KeyError: 'stem' \(.*nets.py:16\)"),
        ("number", {}, "is a int, and makes no network"),
        ("traced", {}, "is TorchScript, which is not read"),
    ],
)
def test_what_goes_wrong_in_code_of_the_user_is_told_with_its_line(
    tmp_path, name, arguments, message
):
    (tmp_path / "nets.py").write_text(NETS)
    with pytest.raises(InputError, match=message):
        load_network(f"{tmp_path / 'nets.py'}:{name}", arguments=arguments)


def test_files_that_do_not_run_are_told_with_their_line(tmp_path):
    for text, message in (
        ("import nowhere_at_all\n", r"raises ModuleNotFoundError.*nowhere_at_all.*:1\)"),
        ("def make(:\n", "raises SyntaxError"),
        ("x = 1\ny = x / 0\n", r"raises ZeroDivisionError.*bad.py:2\)"),
    ):
        (tmp_path / "bad.py").write_text(text)
        with pytest.raises(InputError, match=message):
            load_network(f"{tmp_path / 'bad.py'}:make")


def test_arguments_make_the_network(tmp_path):
    (tmp_path / "nets.py").write_text(NETS)
    network = load_network(f"{tmp_path / 'nets.py'}:sized", arguments={"width": 7})
    assert network.out_channels == 7


SIGNAL_NETS = """
from torch import nn

class Net(nn.Module):
    def __init__(self, channels=2, outputs=3):
        super().__init__()
        self.conv, self.wide = nn.Conv1d(channels, 8, 5, padding=2), nn.Conv1d(8, 12, 3, padding=1)
        self.steps, self.fc = nn.GRU(12, 6, batch_first=True), nn.Linear(6, outputs)

    def forward(self, x):
        x = self.wide(self.conv(x).relu()).relu()
        return self.fc(self.steps(x.transpose(1, 2))[0][:, -1])
"""


def test_networks_of_signals_are_spaces_too(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "nets.py").write_text(SIGNAL_NETS)
    name = f"{tmp_path / 'nets.py'}:Net"
    space = module_space(model=name, input_channels=2, outputs=3, input_size=(1, 40))
    plan = space.plan(space.largest())
    assert plan.input_shape == (2, 1, 40)
    # The width between the convolutions may vary; what goes into recurrent steps may not.
    assert [c.name for c in space.choices if c.name.startswith("width.")] == ["width.conv"]
    recurrent = 40 * 3 * 6 * (12 + 6)
    assert plan.macs == sum(layer.macs for layer in plan.layers()) + recurrent
    images = torch.randn(4, 2, 1, 40)
    network = space.module.eval()
    found = evaluated(space, space.largest(), images)
    torch.testing.assert_close(found, network(images.flatten(2)), rtol=1e-4, atol=1e-5)
    assert of_signals(network) and own_side(network, 2) == 32
    other = module_space(model=name, resolution=100)
    assert other.plan(other.largest()).input_shape == (2, 1, 100)
    with pytest.raises(InputError, match=r"takes signals .*, and the data are 28 high and 28 wide"):
        module_space(model=name, input_channels=2, outputs=3, input_size=(28, 28))
