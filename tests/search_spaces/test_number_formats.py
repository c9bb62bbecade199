"""Number formats: codes bit for bit as ml_dtypes has them, and what holds for every table."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from experiments.choices.references import REFERENCES
from search_spaces.errors import InputError
from search_spaces.number_formats import NUMBER_FORMATS, NumberFormat, bits_of, parse_number

EVERY = [(name, v) for name in NUMBER_FORMATS for v in range(NUMBER_FORMATS.get(name).variants)]


def reference(name: str):
    return getattr(pytest.importorskip("ml_dtypes"), REFERENCES[name])


@pytest.mark.parametrize("name", REFERENCES)
def test_every_code_has_the_value_of_the_reference(name):
    found = NUMBER_FORMATS.get(name)
    codes = np.arange(2**found.bits, dtype=np.uint8)
    wanted = codes.view(reference(name)).astype(np.float32)
    finite = np.isfinite(wanted)
    assert np.array_equal(np.isfinite(found.values()), finite)
    assert np.array_equal(found.decode(codes)[finite], wanted[finite])
    assert np.array_equal(np.signbit(found.decode(codes))[finite], np.signbit(wanted)[finite])


@pytest.mark.parametrize("name", REFERENCES)
def test_middles_and_their_neighbours_round_as_the_reference(name):
    found = NUMBER_FORMATS.get(name)
    _, values, middles = found.ladder()
    x = np.concatenate([values, middles]).astype(np.float32)
    x = np.concatenate([x, np.nextafter(x, np.float32(0)), np.nextafter(x, np.float32(np.inf))])
    x = np.clip(np.concatenate([x, -x]), -found.largest(), found.largest())
    assert np.array_equal(found.encode(x), x.astype(reference(name)).view(np.uint8))


@pytest.mark.parametrize("name", REFERENCES)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=50))
def test_any_number_rounds_as_the_reference(name, numbers):
    found = NUMBER_FORMATS.get(name)
    x = np.clip(np.array(numbers, np.float32), -found.largest(), found.largest())
    assert np.array_equal(found.encode(x), x.astype(reference(name)).view(np.uint8))


@pytest.mark.parametrize(("name", "variant"), EVERY)
@settings(max_examples=30, deadline=None)
@given(st.lists(st.floats(-1e4, 1e4), min_size=1, max_size=20))
def test_a_code_is_the_nearest_value(name, variant, numbers):
    found = NUMBER_FORMATS.get(name)
    x = np.array(numbers)
    chosen = found.decode(found.encode(x, variant), variant).astype(np.float64)
    values = found.values(variant).astype(np.float64)
    least = np.nanmin(np.abs(values - x[:, None]), axis=1)
    np.testing.assert_allclose(np.abs(chosen - x), least, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(("name", "variant"), EVERY)
def test_encoding_what_was_decoded_changes_nothing(name, variant):
    found = NUMBER_FORMATS.get(name)
    codes = np.flatnonzero(np.isfinite(found.values(variant))).astype(np.uint8)
    assert np.array_equal(found.encode(found.decode(codes, variant), variant), codes)


def test_shift_weights_have_no_zero_and_whole_numbers_of_a_unit():
    shift = NUMBER_FORMATS.get("shift3")
    assert sorted(shift.values()) == [-8, -4, -2, -1, 1, 2, 4, 8]
    assert shift.whole_codes == (1.0, 8)
    assert NUMBER_FORMATS.get("fp4_e2m1").whole_codes == (0.5, 12)
    assert NUMBER_FORMATS.get("fp6_e2m3").whole_codes == (0.125, 60)
    assert NUMBER_FORMATS.get("nf4").whole_codes == (0.0, 0)
    assert NUMBER_FORMATS.get("shift4").whole_codes == (0.0, 0)
    assert all(bin(int(abs(v))).count("1") <= 2 for v in NUMBER_FORMATS.get("hot2").values()
               if np.isfinite(v))  # fmt: skip


def test_a_group_of_bitmod_has_one_value_more():
    plain = set(NUMBER_FORMATS.get("fp4_e2m1").values())
    chosen = NUMBER_FORMATS.get("bitmod4")
    assert [set(chosen.values(i)) - plain for i in range(4)] == [{5.0}, {-5.0}, {8.0}, {-8.0}]


def test_numbers_are_bits_or_names():
    assert parse_number(" 4") == 4 and parse_number("nf4") == "nf4"
    assert (bits_of(3), bits_of("fp6_e3m2")) == (3, 6)
    with pytest.raises(InputError, match="did you mean 'fp8_e4m3'"):
        parse_number("fp8_e4m4")
    with pytest.raises(InputError, match="has no code"):
        NUMBER_FORMATS.get("nf4").encode(np.array([np.nan]))
    with pytest.raises(InputError, match="has 4 values"):
        NumberFormat("wrong", 2, ((0.0, 1.0),), "")
