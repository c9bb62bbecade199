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
        ("own_family:nothing", "mapping"),
        ("own_family:same", "differ"),
        ("own_family:missing", "no function 'missing'"),
        ("no_such_module_here:good", "no_such_module_here"),
        ("own_family", "module:function"),
    ):
        with pytest.raises(InputError, match=why):
            find_family(name, request)


@pytest.mark.parametrize("answers", ["cells", "grid"])
def test_the_built_in_family_is_refused_where_it_cannot_answer(answers):
    with pytest.raises(InputError, match="give --family module:function"):
        find_family(None, Request(1, 96, 14, (20.0,)), answers=answers)
