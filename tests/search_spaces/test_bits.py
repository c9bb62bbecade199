"""Choices are told apart by what they change in the plans."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.bits import bit_choices, common_bits, set_bits
from search_spaces.choice_kinds import choice_kinds, variants, without_bits
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace

SPACE = MobileNetSpace.from_config(preset="28x28", input_channels=1)
BITS = bit_choices(SPACE)


def test_kinds_of_the_mobilenet_choices():
    kinds = choice_kinds(SPACE)
    assert kinds["resolution"] == "resolution"
    assert kinds["width"] == "width" and kinds["s1.b1.expand"] == "width"
    assert kinds["s1.depth"] == "depth"
    assert kinds["s3.b1.kernel"] == "kernel"
    assert kinds["s3.b2.a.depthwise"] == "bits"
    # One option decides nothing.
    assert kinds["s1.b1.kernel"] == "other"
    assert set(BITS) == {name for name, kind in kinds.items() if kind == "bits"}


def test_bits_of_options():
    assert BITS["s1.b1.w.expand"].weight_bits == (2, 3, 4, 8)
    assert BITS["s1.b1.w.expand"].activation_bits == ()
    assert BITS["s1.b1.a.expand"].activation_bits == (2, 3, 4, 8)


def test_bits_that_every_layer_can_have():
    assert common_bits(SPACE) == (8, 4, 3, 2)
    # Inputs at 8 bits alone are no choice, and hold weights back from nothing.
    assert common_bits(
        MobileNetSpace.from_config(preset="8x8", weight_bits=[4, 8], activation_bits=[8])
    ) == (8, 4)
    assert common_bits(
        MobileNetSpace.from_config(preset="8x8", weight_bits=[2, 4], activation_bits=[4, 8])
    ) == (4,)


def test_one_choice_for_a_block_governs_all_its_layers():
    space = MobileNetSpace.from_config(preset="8x8", granularity="block")
    assert bit_choices(space)["s1.b1.w"].weight_bits == (2, 3, 4, 8)


@given(seed=st.integers(0, 2**32 - 1), w=st.sampled_from([2, 3, 4, 8]), a=st.sampled_from([2, 8]))
def test_every_searched_layer_gets_the_bits_and_nothing_else_changes(seed, w, a):
    genes = SPACE.sample_genes(np.random.default_rng(seed), 2)
    changed = set_bits(SPACE, genes, w, a, choices=BITS)
    assert np.array_equal(changed, SPACE.canonical(changed))
    for before, after in zip(SPACE.decode(genes), SPACE.decode(changed), strict=True):
        old, new = SPACE.plan(before), SPACE.plan(after)
        assert without_bits(old) == without_bits(new)
        for layer in new.layers():
            edge = layer.role in ("stem", "head", "classifier")
            assert (layer.weight_bits, layer.activation_bits) == ((8, 8) if edge else (w, a))


def test_bits_that_the_space_lacks_are_refused():
    with pytest.raises(InputError, match=r"5-bit weights.*options: \[2, 3, 4, 8\]"):
        set_bits(SPACE, SPACE.genes([SPACE.largest()]), 5, 5)


def test_variants_differ_in_one_choice():
    plans = variants(SPACE, SPACE.index["resolution"])
    assert [plan.input_shape[1] for plan in plans] == [20, 24, 28]
    assert len({plan.macs for plan in plans}) == 3
