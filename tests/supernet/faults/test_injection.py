"""Faults in codes: as many as asked for, only where asked for, the same for the same seed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from search_spaces.errors import InputError
from supernet.faults.injection import Faults, faulty_codes, stored_bits, with_faults
from supernet.ptq.quantize import quantize_post_training


def network(bits=(4, 8), group=0):
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Conv2d(8, 16, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(256, 10),
    ).eval()  # fmt: skip
    return quantize_post_training(
        module, [images()], bits, steps=("mse",), edge_bits=None, group=group
    )


def images() -> torch.Tensor:
    return torch.randn(16, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def weights(net) -> list[torch.Tensor]:
    return [layer.op.weight.detach().clone() for layer in net.plain_layers()]


@given(st.integers(1, 8), st.floats(0, 1), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_flipped_twice_is_what_it_was(bits, rate, seed):
    codes = np.random.default_rng(0).integers(0, 2**bits, 200).astype(np.uint8)
    faults = Faults("flips", rate)
    once = faulty_codes(codes, bits, faults, np.random.default_rng(seed))
    assert once.max() < 2**bits
    again = faulty_codes(once, bits, faults, np.random.default_rng(seed))
    np.testing.assert_array_equal(again, codes)


def test_as_many_bits_are_faulty_as_asked_for():
    codes = np.zeros(200_000, np.uint8)
    flipped = faulty_codes(codes, 4, Faults("flips", 0.03), np.random.default_rng(0))
    assert np.unpackbits(flipped).mean() * 2 == pytest.approx(0.03, rel=0.05)
    # A cell that is stuck holds the right bit half of the time.
    stuck = faulty_codes(codes, 4, Faults("stuck", 0.03), np.random.default_rng(0))
    assert np.unpackbits(stuck).mean() * 2 == pytest.approx(0.015, rel=0.05)
    assert (faulty_codes(codes, 4, Faults("flips", 1.0), np.random.default_rng(0)) == 15).all()


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), ("fp4_e2m1", 8), ("fp8_e4m3", 8), ("bitmod4", 8)])
@pytest.mark.parametrize("kind", ["flips", "stuck", "variation"])
def test_faults_are_in_the_layers_asked_for_and_follow_the_seed(bits, kind):
    plain = network(bits)
    before = weights(plain)
    _, second, third = (layer.layer.name for layer in plain.plain_layers())
    faults = Faults(kind, 0.05, seed=3)
    found = with_faults(plain, faults, protected=[second])
    assert all(torch.equal(a, b) for a, b in zip(weights(plain), before, strict=True))
    changed = [not torch.equal(a, b) for a, b in zip(weights(found), before, strict=True)]
    assert changed == [True, False, True]
    assert all(torch.isfinite(w).all() for w in weights(found))
    alone = with_faults(plain, faults, layers=[third])
    assert torch.equal(weights(alone)[2], weights(found)[2])
    assert torch.equal(weights(alone)[0], before[0])
    other = with_faults(plain, Faults(kind, 0.05, seed=4))
    assert not torch.equal(weights(other)[2], weights(found)[2])
    nothing = with_faults(plain, Faults(kind, 0.0))
    for w, old in zip(weights(nothing), before, strict=True):
        torch.testing.assert_close(w, old)


def test_weights_with_faults_are_weights_that_the_memory_can_hold():
    plain = network((4, 8))
    for layer in with_faults(plain, Faults("flips", 0.2)).plain_layers():
        codes = layer.weight_codes()
        assert codes.min() >= -8 and codes.max() <= 7
    formats = with_faults(network(("fp4_e2m1", 8)), Faults("flips", 0.2))
    for layer in formats.plain_layers():
        assert {abs(int(c)) for c in layer.weight_codes().unique()} <= {0, 1, 2, 3, 4, 6, 8, 12}
    grouped = with_faults(network(("nf4", 8), group=16), Faults("flips", 0.2))
    for layer in grouped.plain_layers():
        np.testing.assert_array_equal(layer.encoded.decoded(), layer.op.weight.detach().numpy())


def test_inputs_have_other_faults_for_each_batch():
    plain = network()
    found = with_faults(plain, Faults("activations", 0.05))
    first, second = found(images()), found(images())
    assert not torch.equal(first, plain(images())) and not torch.equal(first, second)
    again = with_faults(plain, Faults("activations", 0.05))
    assert torch.equal(again(images()), first)
    assert torch.equal(with_faults(plain, Faults("activations", 0.0))(images()), plain(images()))
    floats = with_faults(network((8, "fp8_e4m3")), Faults("activations", 0.2))
    assert torch.isfinite(floats(images())).all()


def test_sizes_are_those_of_the_codes():
    plain = network((4, 8))
    assert list(stored_bits(plain).values()) == [8 * 9 * 4, 16 * 8 * 9 * 4, 256 * 10 * 4]


def test_what_makes_no_sense_is_refused():
    with pytest.raises(InputError, match="no kind of fault 'cosmic'; there are flips, stuck"):
        Faults("cosmic")
    with pytest.raises(InputError, match=r"give a share from 0 to 1"):
        Faults("flips", 1.5)
    with pytest.raises(InputError, match="below 0"):
        Faults("variation", -0.1)
    with pytest.raises(InputError, match="no layer 'nowhere'"):
        with_faults(network(), Faults(), protected=["nowhere"])
    with pytest.raises(InputError, match="every weight of the network is float"):
        with_faults(network((32, 32)), Faults())
