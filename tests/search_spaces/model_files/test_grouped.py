"""Grouped weights: what is packed is read back, and forms that kernels cannot read are refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from search_spaces.errors import InputError
from search_spaces.model_files.grouped import pack_grouped


@settings(max_examples=40, deadline=None, derandomize=True)
@given(st.integers(0, 2**31))
def test_codes_and_weights_come_back(seed):
    rng = np.random.default_rng(seed)
    bits = int(rng.integers(1, 5))
    planes = int(rng.integers(1, 5)) if bits == 1 else 1
    group = int(rng.choice([0, 32, 64, 128]))
    outputs, channels = int(rng.integers(1, 40)), int(rng.integers(1, 4)) * (group or 11)
    groups = channels // group if group else 1
    codes = rng.integers(0, 2**bits, (planes, outputs, channels))
    scales = rng.uniform(0.01, 0.1, (planes, outputs, groups)).astype(np.float16)
    mins = rng.normal(0, 0.1, (outputs, groups)).astype(np.float16) if seed % 2 else None
    packed = pack_grouped(codes, scales, bits=bits, group=group, zero=1.5, mins=mins)
    np.testing.assert_array_equal(packed.codes(), codes)
    wide = np.repeat(scales.astype(np.float32), channels // groups, 2)
    expected = (wide * (codes - np.float32(1.5))).sum(0)
    if mins is not None:
        expected = expected + np.repeat(mins.astype(np.float32), channels // groups, 1)
    np.testing.assert_allclose(packed.dequantised(), expected, rtol=1e-5, atol=1e-6)


def test_whole_blocks_take_their_bits_and_no_more():
    scales = np.ones((32, 2))
    for bits in (1, 2, 3, 4):
        packed = pack_grouped(np.zeros((32, 128)), scales, bits=bits, group=64)
        assert packed.fields.nbytes == 32 * 128 * bits // 8
        assert packed.nbytes == packed.fields.nbytes + 2 * 32 * 2


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(bits=5), "1 to 4 bits, not 5"),
        (dict(group=48), "a group has 32, 64 or 128 channels"),
        (dict(group=128), "groups of 128 do not divide 64 channels of a layer; use 32 or 64"),
        (dict(codes=np.full((8, 64), 4)), "do not fit 2 bits"),
        (dict(codes=np.zeros((2, 8, 64)), scales=np.ones((2, 8, 2))), "planes are 1 to 4, of one"),
        (dict(scales=np.ones((8, 3))), "scales have shape"),
        (dict(scales=np.full((8, 2), 1e6)), "not finite"),
        (dict(mins=np.ones((8, 1))), "mins have shape"),
        (dict(bias=np.ones(3)), "bias of grouped weights"),
    ],
)
def test_what_does_not_fit_is_refused(change, message):
    arguments = dict(codes=np.zeros((8, 64)), scales=np.ones((8, 2)), bits=2, group=32) | change
    with pytest.raises(InputError, match=message):
        pack_grouped(arguments.pop("codes"), arguments.pop("scales"), **arguments)
