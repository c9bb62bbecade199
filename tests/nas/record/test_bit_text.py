"""Truth values as text."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from nas.record.bit_text import pack_bits, unpack_bits


@given(st.lists(st.booleans(), max_size=99))
def test_bits_survive_packing(values):
    assert unpack_bits(pack_bits(values), len(values)).tolist() == values


def test_they_take_an_eighth_of_a_byte_and_a_third():
    assert len(pack_bits(np.ones(10_000, dtype=bool))) == 1668
