"""The choice of a kernel: load does not turn it over, and what other kernels read is given back."""

from __future__ import annotations

import numpy as np
import pytest

from devices.lowbit.build import find_compiler
from devices.lowbit.library import SUMS, ConvSpec, Native
from devices.lowbit.tuning import best, choose_kernel
from search_spaces.errors import EnvironmentProblem
from tests.devices.lowbit import reference


def under_load(speeds: list[float], rounds: int, seed: int) -> np.ndarray:
    """Timings of kernels on a machine that slows by up to four times from round to round, and
    sometimes within one."""
    rng = np.random.default_rng(seed)
    times = np.array(speeds) * rng.uniform(1, 4, (rounds, 1)) * rng.normal(1, 0.02, (rounds, 1))
    hit = rng.random(times.shape) < 0.2
    return np.where(hit, times * rng.uniform(2, 10, times.shape), times)


def test_load_never_chooses_a_slower_kernel():
    chosen = [best(under_load([1.0, 1.3, 2.0], 15, seed)) for seed in range(300)]
    assert chosen.count(0) == 300


def test_load_hides_an_advantage_seldom():
    chosen = [best(under_load([1.0, 0.6], 15, seed)) for seed in range(300)]
    assert chosen.count(1) > 150
    calm = [best(np.array([[1.0, 0.6, 0.7]] * 3)), best(np.array([[1.0, 0.97]] * 9))]
    assert calm == [1, 0]  # less than the margin is not worth leaving the default


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
def test_a_layer_keeps_its_bits_alone(bits):
    try:
        find_compiler()
    except EnvironmentProblem:  # pragma: no cover
        pytest.skip("no compiler on this machine")
    rng = np.random.default_rng(bits)
    alphabet = [-1, 1] if bits == 1 else list(range(-(2 ** (bits - 1)), 2 ** (bits - 1)))
    spec = ConvSpec(channels=512, outputs=128, largest=255, kind=SUMS)
    codes = rng.choice(np.array(alphabet, np.int8), (128, 512, 1, 1))
    x = rng.integers(0, 256, (1, 1, 1, 512)).astype(np.uint8)
    expected = reference.conv_sums(x, codes, spec).reshape(-1)
    net = Native()
    source, target = net.buffer(512), net.buffer(512)
    layer = net.conv(source, target, spec, codes)
    net.array(source, (512,), np.uint8)[...] = x.reshape(-1)
    first = net.kernels(layer)[0]
    for _ in range(2):  # a second choice makes the weights anew from those that are kept
        assert choose_kernel(net, layer, 3) == net.kernels(layer)[0]
        exact = 128 * 512 * bits // 8
        kept = net.packed_bytes(layer)
        planes_of_three = bits == 3 and "tables" in net.kernels(layer)[0]
        assert kept == (exact * 4 // 3 if planes_of_three else exact)
        for kernel in net.kernels(layer):
            net.choose(layer, kernel)
            net.settle(layer)
            net.run()
            np.testing.assert_array_equal(net.array(target, (128,), np.int32), expected, kernel)
        net.choose(layer, first)
