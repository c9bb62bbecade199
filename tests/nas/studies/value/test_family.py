"""The reference family: sizes, shapes, families of the user's own."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from nas.studies.value.family import (
    PlainMobileNet,
    Request,
    family_sizes,
    find_family,
    packed_kib,
)
from nas.studies.value.plain_signal import PlainSignalNet
from nas.studies.value.probe import probe_members
from search_spaces.errors import InputError
from supernet.ptq.quantize import quantize_post_training


@pytest.mark.parametrize("side", [8, 28, 32, 64, 96])
@pytest.mark.parametrize(("channels", "outputs"), [(1, 10), (3, 37)])
def test_any_images_and_classes(side, channels, outputs):
    net = PlainMobileNet(channels, side, outputs, 0.25).eval()
    assert net(torch.zeros(2, channels, side, side)).shape == (2, outputs)


def test_the_size_is_that_of_the_exported_network():
    for width in (0.25, 0.6, 1.3):
        net = PlainMobileNet(1, 28, 10, width).eval()
        network = quantize_post_training(net, [torch.randn(8, 1, 28, 28)], (8, 8), steps=())
        assert packed_kib(net) == pytest.approx(network.plan.weights_kib)


@settings(max_examples=6)
@given(st.lists(st.floats(2, 200), min_size=1, max_size=6, unique=True))
def test_members_keep_within_their_sizes_and_nearly_fill_them(sizes):
    members = find_family(None, Request(1, 28, 10, tuple(sorted(sizes))))
    kib = [member.weights_kib for member in members]
    assert kib == sorted(set(kib))
    for size in sizes:
        within = max((value for value in kib if value <= size), default=None)
        if within is None:
            # Below the narrowest network.
            assert size < kib[0] < 2.5
        else:
            assert within >= 0.7 * size


@pytest.mark.parametrize("length", [8, 24, 150, 1460])
@pytest.mark.parametrize(("channels", "outputs"), [(1, 3), (9, 6)])
def test_any_signals(length, channels, outputs):
    net = PlainSignalNet(channels, length, outputs, 0.1).eval()
    assert net(torch.zeros(2, channels, 1, length)).shape == (2, outputs)


@pytest.mark.parametrize(("height", "width"), [(1, 96), (49, 40)])
def test_signals_and_spectrograms_have_a_family_that_can_be_quantised(height, width):
    request = Request(1, width, 4, (3.0, 6.0), height)
    members = find_family(None, request)
    assert all(m.weights_kib < size for m, size in zip(members, (3, 6), strict=True))
    probe_members(members, request)


def test_sizes_span_those_of_a_front():
    sizes = family_sizes([5.0, 80.0, 20.0])
    assert sizes[0] == pytest.approx(5.0) and sizes[-1] == pytest.approx(80.0)
    assert len(sizes) == 5 and sizes == sorted(set(sizes))
    one = family_sizes([10.0])
    assert one[0] < 10.0 < one[-1] and len(set(one)) == 5


OWN = """
from torch import nn

def net(request, width):
    return nn.Sequential(
        nn.Conv2d(request.input_channels, width, 3), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, request.outputs))

def good(request):
    return {"wide": lambda: net(request, 16), "narrow one": lambda: net(request, 4)}

def modules(request):
    return {"a": net(request, 4)}

def nothing(request):
    return {}

def same(request):
    return {"a b": lambda: net(request, 4), "a_b": lambda: net(request, 8)}

def no_argument():
    return {}

def two(first, second):
    return {}

def raises(request):
    raise RuntimeError("trouble of my own")

def single(request):
    return net(request, 4)

def makes_no_module(request):
    return {"a": lambda: 3}

def makes_with_arguments(request):
    return {"a": lambda width: net(request, width)}

def making_raises(request):
    def make():
        raise ValueError("no such width")
    return {"a": make}

def shared(request):
    made = net(request, 4)
    return {"a": lambda: made}

class Branches(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.last = nn.Linear(64, outputs)

    def forward(self, x):
        return self.last(x.flatten(1)) if x.sum() > 0 else self.last(-x.flatten(1))

class Pair(Branches):
    def forward(self, x):
        return self.last(x.flatten(1)), x

def too_few_answers(request):
    return {"a": lambda: nn.Sequential(nn.Flatten(), nn.Linear(64, request.outputs - 3))}

def two_answers(request):
    return {"a": lambda: Pair(request.outputs)}

def other_images(request):
    return {"a": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4, 10))}

def nothing_to_train(request):
    return {"a": lambda: nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(request.outputs))}

def not_captured(request):
    return {"a": lambda: Branches(request.outputs)}
"""


def test_a_family_of_the_users_own(tmp_path, monkeypatch):
    (tmp_path / "own_family.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    request = Request(1, 8, 10, (1.0,))
    members = find_family("own_family:good", request)
    assert [member.name for member in members] == ["narrow_one", "wide"]
    assert members[0].make() is not members[0].make()
    for name, why in (
        ("own_family:modules", "'a'"),
        ("own_family:nothing", "an empty mapping; it must return"),
        ("own_family:same", "differ"),
        ("own_family:missing", "no function 'missing'"),
        ("no_such_module_here:good", "no_such_module_here"),
        ("own_family", "module:function"),
        ("own_family:no_argument", r"no_argument\(\) must take one argument, the request"),
        ("own_family:two", r"two\(first, second\) must take one argument"),
        ("own_family:raises", r"RuntimeError: trouble of my own \(.*own_family.py:28\)"),
        ("own_family:single", "returned a Sequential"),
        ("own_family:makes_no_module", "the entry 'a' makes a int"),
        ("own_family:makes_with_arguments", "'a' is a function of arguments"),
        ("own_family:making_raises", r"'a' raises ValueError: no such width \(.*own_family.py"),
        ("own_family:shared", "'a' returns the same module each time"),
    ):
        with pytest.raises(InputError, match=why):
            find_family(name, request)


@pytest.mark.parametrize(
    ("function", "why"),
    [
        ("too_few_answers", r"gives \[8, 7\], and \[8, 10\] is needed"),
        ("two_answers", r"gives a tuple, and \[8, 10\] is needed"),
        ("other_images", r"on images \[8, 1, 8, 8\] it raises RuntimeError: .*3 channels"),
        ("nothing_to_train", "no weights to train"),
        ("not_captured", "must not depend on values of tensors"),
    ],
)
def test_what_a_member_cannot_do_is_told_before_any_training(tmp_path, monkeypatch, function, why):
    (tmp_path / "own_probed.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    request = Request(1, 8, 10, (1.0,))
    probe_members(find_family("own_probed:good", request), request)
    with pytest.raises(InputError, match=f"member a: .*{why}"):
        probe_members(find_family(f"own_probed:{function}", request), request)


@pytest.mark.parametrize("answers", ["cells", "grid"])
def test_the_built_in_family_is_refused_where_it_cannot_answer(answers):
    with pytest.raises(InputError, match="give --family module:function"):
        find_family(None, Request(1, 96, 14, (20.0,)), answers=answers)
