"""Linear layers of weights alone: all kernels give the same bits, those of the formula."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from devices.lowbit.build import find_compiler
from devices.lowbit.library import Native, features, restrict
from search_spaces.errors import EnvironmentProblem, InputError
from search_spaces.model_files.grouped import GroupedWeights, pack_grouped

try:
    find_compiler()
except EnvironmentProblem:  # pragma: no cover
    pytest.skip("no compiler on this machine", allow_module_level=True)


@pytest.fixture(autouse=True)
def _all_instructions():
    yield
    restrict("")


# Around the least that are many, tiles of 6 and of 16, and the 128 of a pass over the weights.
ROWS = (1, 2, 3, 4, 5, 6, 7, 11, 12, 13, 15, 16, 17, 25, 31, 32, 33, 48, 49, 127, 128, 129, 141)


def make_weights(rng: np.random.Generator) -> GroupedWeights:
    bits = int(rng.integers(1, 5))
    planes = int(rng.integers(1, 5)) if bits == 1 else 1
    group = int(rng.choice([0, 32, 64, 128]))
    outputs, channels = int(rng.integers(1, 150)), int(rng.integers(1, 5)) * (group or 13)
    groups = channels // group if group else 1
    return pack_grouped(
        rng.integers(0, 2**bits, (planes, outputs, channels)),
        rng.uniform(0.01, 0.1, (planes, outputs, groups)),
        bits=bits,
        group=group,
        zero=float(rng.choice([0, 0.5, 1.5, 2])),
        mins=rng.normal(0, 0.1, (outputs, groups)) if rng.random() < 0.5 else None,
        bias=rng.normal(0, 1, outputs) if rng.random() < 0.5 else None,
        factor=rng.uniform(0.5, 2, channels) if rng.random() < 0.5 else None,
    )


def formula(x: np.ndarray, weights: GroupedWeights) -> np.ndarray:
    """Activations in 8 bits by row, the rest in float64."""
    factor = np.ones(x.shape[1], np.float32) if weights.factor is None else weights.factor
    scaled = (x * factor).astype(np.float32)
    most = np.abs(scaled).max(1, keepdims=True)
    inverse = np.divide(np.float32(127), most, where=most > 0, out=np.zeros_like(most))
    codes = np.rint(scaled * inverse).astype(np.float64) / factor
    bias = 0 if weights.bias is None else weights.bias
    return codes @ weights.dequantised().T.astype(np.float64) * (most / 127) + bias


def run(x: np.ndarray, weights: GroupedWeights, threads: int = 1) -> np.ndarray:
    shape = (len(x), weights.shape[0])
    net = Native(threads)
    source, target = net.buffer(x.nbytes), net.buffer(4 * shape[0] * shape[1])
    layer = net.linear(source, target, len(x), weights)
    net.array(source, x.shape, np.float32)[...] = x
    net.run()
    assert net.packed_bytes(layer) >= weights.fields.nbytes + weights.scales.nbytes
    return net.array(target, shape, np.float32).copy()


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.integers(0, 2**31))
def test_every_instruction_set_gives_the_bits_of_the_portable_one(seed):
    rng = np.random.default_rng(seed)
    weights = make_weights(rng)
    x = rng.normal(0, 3, (int(rng.choice(ROWS)), weights.shape[1])).astype(np.float32)
    x[0] *= seed % 3  # a row of zeros now and then
    restrict("")
    available = features()
    restrict("portable")
    expected = run(x, weights)
    wanted = formula(x, weights)
    np.testing.assert_allclose(expected, wanted, atol=2e-6 * np.abs(wanted).max() + 1e-6)
    for instructions in ("", "avx512", *(name for name in ("avx2", "neon") if name in available)):
        restrict(instructions)
        got = run(x, weights, threads=1 + seed % 3)
        np.testing.assert_array_equal(got, expected, err_msg=instructions or available[0])


def test_the_tiles_are_left_alone_where_they_are_not_wanted():
    restrict("avx512")
    assert "amx" not in features()
    restrict("avx2")
    assert not {"amx", "avx512vnni"} & set(features())


def test_the_largest_codes_do_not_overflow():
    for bits in (1, 2, 3, 4):
        codes = np.full((16, 8192), 2**bits - 1)
        weights = pack_grouped(codes, np.ones((16, 1)), bits=bits, group=0)
        x = np.full((20, 8192), -1.0, np.float32)
        for rows in (1, 5, 20):
            got = run(x[:rows], weights)
            np.testing.assert_allclose(got, -8192.0 * (2**bits - 1), rtol=1e-6)


def test_layers_that_cannot_be_are_refused():
    weights = pack_grouped(np.zeros((8, 64)), np.ones((8, 2)), bits=2, group=32)
    net = Native()
    small, big = net.buffer(8), net.buffer(4096)
    with pytest.raises(InputError, match="the input buffer is too small"):
        net.linear(small, big, 1, weights)
    with pytest.raises(InputError, match="the output buffer is too small"):
        net.linear(big, small, 1, weights)
    with pytest.raises(InputError, match="positive sizes"):
        net.linear(big, big, 0, weights)
