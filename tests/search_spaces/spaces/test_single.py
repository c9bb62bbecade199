"""The space of one architecture describes exactly that architecture."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from search_spaces.spaces.mobilenet import MobileNetSpace
from search_spaces.spaces.single import SingleSpace

BASE = MobileNetSpace.from_config(preset="28x28", input_channels=1, outputs=7)


@given(seed=st.integers(0, 2**32 - 1))
def test_its_plan_is_that_of_the_architecture(seed):
    arch = BASE.sample(np.random.default_rng(seed))
    single = SingleSpace(BASE, arch)
    assert single.plan(single.largest()) == BASE.plan(arch)
    assert single.cardinality() == 1


def test_costs_are_those_of_the_architecture():
    arch = BASE.sample(np.random.default_rng(3))
    single = SingleSpace(BASE, arch)
    alone = single.costs(single.genes([single.largest()]))
    assert alone == BASE.costs(BASE.genes([arch]))


def test_several_rows_describe_it_several_times():
    arch = BASE.smallest()
    single = SingleSpace(BASE, arch)
    genes = np.zeros((3, 1), dtype=int)
    assert single.costs(genes)["macs"].tolist() == [BASE.plan(arch).macs] * 3
    assert single.resolution_column(genes).tolist() == [20, 20, 20]
