import pytest

from search_spaces import build_space
from search_spaces.errors import InputError
from search_spaces.sparsity import (
    NO_SPARSITY,
    Sparsity,
    layer_sparsity,
    parse_sparsity,
    refusal,
    sparse_kib,
)


@pytest.mark.parametrize(
    ("text", "share", "told"),
    [("dense", 0, "dense"), ("50%", 0.5, "50%"), ("0.75", 0.75, "75%"), ("2:4", 0.5, "2:4"),
     ("1:4", 0.75, "1:4")],
)  # fmt: skip
def test_patterns_are_read_and_told(text, share, told):
    found = parse_sparsity(text)
    assert (found.share, str(found)) == (share, told)
    assert parse_sparsity(str(found)) == found


@pytest.mark.parametrize("text", ["4:2", "0:4", "4:4", "2:0", "1:64", "100%", "-1%", "half", "nan"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(InputError, match=r"such as|from 0"):
        parse_sparsity(text)


def test_what_sparse_storage_would_take():
    # Half of 64 weights of 8 bits, and a map of 64 bits, or two bits for each that is left.
    assert parse_sparsity("50%").stored_bits(64, 8) == 32 * 8 + 64
    assert parse_sparsity("2:4").stored_bits(64, 8) == 32 * (8 + 2)
    assert parse_sparsity("1:4").stored_bits(64, 4) == 16 * (4 + 2)
    assert NO_SPARSITY.stored_bits(64, 4) == 256


def test_why_layers_cannot_have_a_pattern():
    two = parse_sparsity("2:4")
    assert refusal(two, inputs=8, weight_bits=8) is None
    assert "1 input channel" in refusal(two, inputs=1, weight_bits=8)
    assert "no zero" in refusal(two, inputs=8, weight_bits=2, weight_format="shift2")
    assert "1 bit" in refusal(Sparsity(0.5), inputs=8, weight_bits=1)
    assert refusal(NO_SPARSITY, inputs=1, weight_bits=1) is None


@pytest.fixture(scope="module")
def layers():
    space = build_space("mobilenet", preset="8x8", input_channels=1)
    return list(space.plan(space.largest()).layers())


def test_one_pattern_leaves_the_edges_and_what_cannot_have_it(layers):
    found = layer_sparsity(layers, parse_sparsity("2:4"))
    assert found[layers[0].name].dense and found[layers[-1].name].dense
    for layer in layers[1:-1]:
        assert found[layer.name].dense == bool((layer.in_channels // layer.groups) % 4)
    assert any(not pattern.dense for pattern in found.values())


def test_layers_and_roles_have_patterns_of_their_own(layers):
    half = parse_sparsity("50%")
    found = layer_sparsity(layers, named={"depthwise": half, layers[0].name: half})
    assert {n for n, p in found.items() if p == half} == {layers[0].name} | {
        layer.name for layer in layers if layer.role == "depthwise"
    }
    with pytest.raises(InputError, match="no layer and no role is called 'nothing'"):
        layer_sparsity(layers, named={"nothing": half})
    with pytest.raises(InputError, match=r"depthwise.* cannot have the sparsity 2:4: .* 1 input"):
        layer_sparsity(layers, named={"depthwise": parse_sparsity("2:4")})


def test_an_estimate_is_never_above_what_dense_layers_take(layers):
    dense = sum(layer.packed_bytes for layer in layers) / 1024
    assert sparse_kib(layers, {}) == dense
    few = dict.fromkeys((layer.name for layer in layers), parse_sparsity("1%"))
    assert sparse_kib(layers, few) == dense
    most = dict.fromkeys((layer.name for layer in layers), parse_sparsity("90%"))
    assert sparse_kib(layers, most) < 0.75 * dense
