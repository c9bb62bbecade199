"""The subnets of a study cover the costs of the space."""

from __future__ import annotations

import numpy as np
import pytest

from nas.studies.subnets import stratified_subnets
from search_spaces.errors import InputError
from search_spaces.spaces.mobilenet import MobileNetSpace

SPACE = MobileNetSpace.from_config(preset="28x28", input_channels=1)


@pytest.mark.parametrize("bits", [None, (4, 4)])
def test_bins_are_filled_evenly_and_hold_similar_macs(bits):
    found = stratified_subnets(SPACE, 30, seed=0, bits=bits)
    assert len(set(found.archs)) == 30
    assert np.bincount(found.macs_bin).tolist() == [6] * 5
    macs = SPACE.costs(SPACE.genes(found.archs))["macs"]
    bins = np.array(found.macs_bin)
    for low, high in zip(range(4), range(1, 5), strict=True):
        assert macs[bins == low].max() <= macs[bins == high].min()
    assert macs.max() / macs.min() > 10


def test_mixed_bits_spread_and_fixed_bits_are_fixed():
    genes = SPACE.genes(stratified_subnets(SPACE, 30, seed=0).archs)
    costs = SPACE.costs(genes)
    per_mac = costs["bops"] / costs["macs"]
    assert per_mac.max() > 2.5 * per_mac.min()
    for arch in stratified_subnets(SPACE, 9, seed=0, bits=(4, 4)).archs:
        inner = [x for x in SPACE.plan(arch).layers() if x.role in ("expand", "project")]
        assert {(x.weight_bits, x.activation_bits) for x in inner} == {(4, 4)}


def test_the_draw_follows_the_seed():
    first = stratified_subnets(SPACE, 8, seed=1)
    assert first == stratified_subnets(SPACE, 8, seed=1)
    assert first != stratified_subnets(SPACE, 8, seed=2)


def test_too_few_are_refused():
    with pytest.raises(InputError, match="3 subnets"):
        stratified_subnets(SPACE, 3, seed=0)
